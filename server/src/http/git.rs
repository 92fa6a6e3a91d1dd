//! Git's smart HTTP over the mirrors, for runners: fetching only, by the password of an attempt.
//! There is no way to push here, and no way to another repository than the attempt's.

use std::{io::Read as _, time::Duration};

use axum::{
    body::Body,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::stream;
use pipeyard_git::{UploadPack, upload_pack};
use pipeyard_model::RepoId;
use serde::Deserialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    AppState, checkout,
    error::{ApiResult, Failure},
    mirror,
};

/// The largest request, before and after it is unpacked: a list of commits wanted and had.
const MAX_REQUEST: usize = 8 * 1024 * 1024;
/// For the request's body.
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// For one answer.
const DEADLINE: Duration = Duration::from_secs(15 * 60);
/// Answers in the making; others wait for [`WAIT`].
const AT_ONCE: usize = 32;
/// For a place.
const WAIT: Duration = Duration::from_secs(120);

static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(info_refs))
        .routes(routes!(answer))
        .layer(DefaultBodyLimit::disable())
}

#[derive(Debug, Deserialize)]
struct Service {
    service: Option<String>,
}

/// Announces what can be fetched.
#[utoipa::path(
    get, path = "/git/{repo}/info/refs", tag = "git", security(()),
    params(
        ("repo" = String, Path, description = "The repository's id"),
        ("service" = String, Query, description = "`git-upload-pack`"),
    ),
    responses(
        (status = 200, description = "Git's smart HTTP", content_type = "application/x-git-upload-pack-advertisement"),
        (status = 401, description = "The password is wrong, or its attempt is over"),
        (status = 403, description = "Another service than fetching"),
    )
)]
async fn info_refs(
    State(state): State<AppState>,
    Path(repo): Path<String>,
    Query(Service { service }): Query<Service>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let repo = match allowed(&state, &repo, &headers).await? {
        Ok(repo) => repo,
        Err(refusal) => return Ok(refusal),
    };
    if service.as_deref() != Some("git-upload-pack") {
        let message = "this address serves git fetch only";
        return Err(Failure::new(StatusCode::FORBIDDEN, "read_only", message));
    }
    if !state.mirrors.path(repo).exists() {
        // Somebody removed it; the remote still has everything that a branch has.
        let row = state.store.repo(repo).await?.ok_or_else(|| Failure::not_found("repository"))?;
        mirror::fetch(&state, &row).await.map_err(|e| unavailable(&e))?;
    }
    // The first line is for the old protocol only.
    let head =
        if protocol(&headers).is_some() { "" } else { "001e# service=git-upload-pack\n0000" };
    serve(&state, repo, None, &headers, head, "application/x-git-upload-pack-advertisement").await
}

/// Answers a request for objects.
#[utoipa::path(
    post, path = "/git/{repo}/git-upload-pack", tag = "git", security(()),
    params(("repo" = String, Path, description = "The repository's id")),
    request_body(content = Vec<u8>, content_type = "application/x-git-upload-pack-request"),
    responses(
        (status = 200, description = "Git's smart HTTP", content_type = "application/x-git-upload-pack-result"),
        (status = 401, description = "The password is wrong, or its attempt is over"),
    )
)]
async fn answer(
    State(state): State<AppState>,
    Path(repo): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let repo = match allowed(&state, &repo, &headers).await? {
        Ok(repo) => repo,
        Err(refusal) => return Ok(refusal),
    };
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind != Some(b"application/x-git-upload-pack-request") {
        let message = "the body is not a request of git fetch";
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_a_fetch", message));
    }
    let request = read(&headers, body).await?;
    serve(&state, repo, Some(request), &headers, "", "application/x-git-upload-pack-result").await
}

/// The repository, if the password opens it; otherwise the answer that asks for a password.
async fn allowed(
    state: &AppState,
    repo: &str,
    headers: &HeaderMap,
) -> ApiResult<Result<RepoId, Response>> {
    if let (Ok(repo), Some(token)) = (repo.parse::<RepoId>(), password(headers))
        && checkout::check_checkout_token(state, &token, repo).await?.is_some()
    {
        return Ok(Ok(repo));
    }
    let message = "this checkout's password is wrong, or its attempt is over";
    let mut refusal =
        Failure::new(StatusCode::UNAUTHORIZED, "checkout_refused", message).into_response();
    let ask = HeaderValue::from_static("Basic realm=\"pipeyard\"");
    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
    Ok(Err(refusal))
}

/// The password of `Authorization: Basic`, if the user is `attempt`.
fn password(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = plain.split_once(':')?;
    (user == checkout::USER).then(|| password.to_owned())
}

/// The Git-Protocol header, if it asks for the one protocol that is passed on.
fn protocol(headers: &HeaderMap) -> Option<&'static str> {
    let value = headers.get("git-protocol")?.to_str().ok()?;
    value.split(':').any(|part| part == "version=2").then_some("version=2")
}

/// The request's body, unpacked. Both its forms are capped, so that a small one can't become huge.
async fn read(headers: &HeaderMap, body: Body) -> ApiResult<Vec<u8>> {
    let too_large = || {
        let message = format!("a request of git fetch is at most {MAX_REQUEST} bytes");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    let late =
        |_| Failure::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "the body took too long");
    let bytes = tokio::time::timeout(BODY_DEADLINE, axum::body::to_bytes(body, MAX_REQUEST))
        .await
        .map_err(late)?
        .map_err(|_| too_large())?;
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(bytes.into()),
        Some(b"gzip" | b"x-gzip") => {
            let mut plain = Vec::new();
            let limit = MAX_REQUEST as u64 + 1;
            flate2::read::GzDecoder::new(&bytes[..]).take(limit).read_to_end(&mut plain).map_err(
                |_| {
                    Failure::bad_request(
                        "not_gzip",
                        "the body is not the gzip that it claims to be",
                    )
                },
            )?;
            if plain.len() > MAX_REQUEST { Err(too_large()) } else { Ok(plain) }
        }
        Some(_) => {
            let message = "only gzip is read";
            Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoding_unsupported", message))
        }
    }
}

/// An answer in the making, with its place.
struct Answer {
    head: &'static str,
    pack: UploadPack,
    _place: SemaphorePermit<'static>,
}

async fn serve(
    state: &AppState,
    repo: RepoId,
    request: Option<Vec<u8>>,
    headers: &HeaderMap,
    head: &'static str,
    kind: &'static str,
) -> ApiResult<Response> {
    let place = tokio::time::timeout(WAIT, PLACES.acquire()).await;
    let Ok(Ok(place)) = place else {
        let message = "too many checkouts at once; try again";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message));
    };
    let pack = upload_pack(&state.mirrors.path(repo), request, protocol(headers), DEADLINE)
        .map_err(Failure::internal)?;
    let answer = Answer { head, pack, _place: place };
    let chunks = stream::try_unfold(answer, |mut answer| async move {
        if !answer.head.is_empty() {
            let head = std::mem::take(&mut answer.head);
            return Ok(Some((Bytes::from_static(head.as_bytes()), answer)));
        }
        let chunk = answer.pack.chunk().await.inspect_err(|error| {
            tracing::warn!(%error, "a checkout was broken off");
        })?;
        Ok::<_, std::io::Error>(chunk.map(|chunk| (Bytes::from(chunk), answer)))
    });
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

fn unavailable(error: &mirror::MirrorError) -> Failure {
    tracing::error!(%error, "a mirror can't be made again");
    Failure::new(
        StatusCode::BAD_GATEWAY,
        error.code(),
        "the repository's mirror can't be made again; see the server's log",
    )
}
