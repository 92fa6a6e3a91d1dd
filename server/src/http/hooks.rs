//! Webhooks. In this order: the hook's id, the body's size, its signature, and only then its
//! meaning. What is answered with 202 is stored, in one transaction with the runs that it asks for;
//! a repeat changes nothing. A body that isn't proven leaves no row, only a count.

use axum::{
    Json,
    body::Body,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, header},
};
use pipeyard_api::hooks::{HookAnswer, SIGNATURE};
use pipeyard_store::{
    intake::{Accepted, Disposition, NewDelivery},
    repos::{Forge, Repo},
};
use sha2::{Digest as _, Sha256};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    AppState,
    error::{ApiResult, Failure},
    intake::{
        BadPayload, Parsed,
        body::{self, MAX_BODY, Received},
        github, pushed, signature,
    },
    mirror,
};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    // Bodies are read with a cap of their own.
    OpenApiRouter::new()
        .routes(routes!(from_github))
        .routes(routes!(from_git))
        .layer(DefaultBodyLimit::disable())
}

/// Takes a delivery of GitHub.
#[utoipa::path(
    post, path = "/hooks/github/{hook}", tag = "hooks", security(()),
    params(("hook" = String, Path, description = "The hook's id")),
    request_body(content = String, content_type = "application/json", description = "GitHub's payload"),
    responses(
        (status = 202, description = "Stored", body = HookAnswer),
        (status = 400, description = "Not a payload of GitHub"),
        (status = 401, description = "The signature isn't good"),
        (status = 404, description = "There is no such hook"),
        (status = 413, description = "Larger than 25 MiB"),
        (status = 422, description = "About another repository than the hook's"),
    )
)]
async fn from_github(
    State(state): State<AppState>,
    Path(hook): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<(StatusCode, Json<HookAnswer>)> {
    let repo = repo_of(&state, &hook, Forge::Github).await?;
    if !is_json(&headers) {
        let message = "the payload is not application/json";
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message)
            .hint("choose the content type application/json in the webhook's settings"));
    }
    let received = body::read(&headers, body, MAX_BODY).await?;
    let secret = secret_of(&state, &repo)?;
    let event = name(&headers, "x-github-event");
    let delivery = name(&headers, "x-github-delivery");
    let (received, parsed) = checked(&state, received, move |bytes| {
        signature::verify(&headers, "x-hub-signature-256", &secret, bytes)?;
        let event = event.ok_or(Refusal::Header("x-github-event"))?;
        let delivery = delivery.ok_or(Refusal::Header("x-github-delivery"))?;
        let parsed = github::parse(&event, bytes)?;
        Ok((event, delivery, parsed))
    })
    .await?;
    let (event, delivery, Parsed { repository, disposition }) = parsed?;
    if let Some(id) = repository {
        match repo.forge_id {
            Some(known) if known != id => {
                tracing::warn!(repo = %repo.name, "a delivery is about another repository than its hook's");
                let message = "the payload is about another repository than this hook's";
                return Err(Failure::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "wrong_repository",
                    message,
                )
                .hint("add the other repository to Pipeyard; each has a hook of its own"));
            }
            Some(_) => {}
            None => state.store.set_repo_forge_id(repo.id, id).await?,
        }
    }
    let told = Told { delivery, event, by_body: true, disposition };
    accept(&state, &repo, received, told).await
}

/// Takes a push that `pipectl hook` tells of.
#[utoipa::path(
    post, path = "/hooks/git/{hook}", tag = "hooks", security(()),
    params(("hook" = String, Path, description = "The hook's id")),
    request_body = pipeyard_api::hooks::PushedRefs,
    responses(
        (status = 202, description = "Stored", body = HookAnswer),
        (status = 400, description = "Not what `pipectl hook` sends"),
        (status = 401, description = "The signature isn't good"),
        (status = 404, description = "There is no such hook"),
        (status = 413, description = "Larger than 25 MiB"),
    )
)]
async fn from_git(
    State(state): State<AppState>,
    Path(hook): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<(StatusCode, Json<HookAnswer>)> {
    let repo = repo_of(&state, &hook, Forge::Git).await?;
    let received = body::read(&headers, body, MAX_BODY).await?;
    let secret = secret_of(&state, &repo)?;
    let (received, parsed) = checked(&state, received, move |bytes| {
        signature::verify(&headers, SIGNATURE, &secret, bytes)?;
        Ok(pushed::parse(bytes)?)
    })
    .await?;
    let (delivery, disposition) = parsed?;
    // Two pushes that move the same refs the same way have the same body, unless it names itself.
    let by_body = delivery.is_some();
    let delivery = delivery.unwrap_or_else(uuid::Uuid::now_v7).to_string();
    let told = Told { delivery, event: "push".into(), by_body, disposition };
    accept(&state, &repo, received, told).await
}

/// A verified delivery.
struct Told {
    delivery: String,
    event: String,
    /// Its body tells it from every other.
    by_body: bool,
    disposition: Disposition,
}

/// Stores the delivery and wakes whoever handles it.
async fn accept(
    state: &AppState,
    repo: &Repo,
    mut received: Received,
    told: Told,
) -> ApiResult<(StatusCode, Json<HookAnswer>)> {
    let Told { delivery, event, by_body, disposition } = told;
    let body_hash = by_body.then(|| Sha256::digest(&received.bytes).into());
    let (word, reason) = match &disposition {
        Disposition::Requests(_) => ("requested", None),
        Disposition::Ignored(reason) => ("ignored", Some(reason.clone())),
    };
    let accepted = state
        .store
        .accept_delivery(NewDelivery {
            repo: repo.id,
            delivery,
            event,
            body: std::mem::take(&mut received.bytes),
            body_hash,
            received_at: state.clock.now(),
            disposition,
        })
        .await?;
    let duplicate = accepted == Accepted::Duplicate;
    if !duplicate {
        state.wake.compile.notify_one();
    }
    let answer = HookAnswer { disposition: word.into(), reason, duplicate };
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

/// The repository of a hook. Unknown, removed and another forge's look the same from outside.
async fn repo_of(state: &AppState, hook: &str, forge: Forge) -> ApiResult<Repo> {
    let unknown = || {
        Failure::new(StatusCode::NOT_FOUND, "hook_not_found", "there is no such hook")
            .hint("pipectl repos list shows the address of each repository's hook")
    };
    let id = hook.parse().map_err(|_| unknown())?;
    state.store.repo_by_hook(id).await?.filter(|repo| repo.forge == forge).ok_or_else(unknown)
}

fn secret_of(state: &AppState, repo: &Repo) -> ApiResult<Vec<u8>> {
    state
        .seal
        .unseal(&mirror::hook_secret_purpose(repo.id), &repo.hook_secret)
        .map_err(Failure::internal)
}

/// Why a body that was read is refused.
enum Refusal {
    Unverified(signature::Unverified),
    Header(&'static str),
    Payload(BadPayload),
}

impl From<signature::Unverified> for Refusal {
    fn from(why: signature::Unverified) -> Self {
        Self::Unverified(why)
    }
}

impl From<BadPayload> for Refusal {
    fn from(why: BadPayload) -> Self {
        Self::Payload(why)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unverified(why) => {
                Self::new(StatusCode::UNAUTHORIZED, "signature_refused", why.to_string())
                    .hint("the sender must use this hook's secret and SHA-256")
            }
            Refusal::Header(name) => Self::bad_request(
                "header_missing",
                format!("the header {name} is missing or not plain text"),
            ),
            Refusal::Payload(why) => Self::bad_request("payload_invalid", why.to_string()),
        }
    }
}

/// Runs `check` over the raw bytes; on a thread of its own if they are many.
async fn checked<T, F>(
    state: &AppState,
    received: Received,
    check: F,
) -> ApiResult<(Received, Result<T, Failure>)>
where
    T: Send + 'static,
    F: FnOnce(&[u8]) -> Result<T, Refusal> + Send + 'static,
{
    let large = received.is_large();
    let work = move || {
        let result = check(&received.bytes);
        (received, result)
    };
    let (received, result) = if large {
        tokio::task::spawn_blocking(work).await.map_err(Failure::internal)?
    } else {
        work()
    };
    if matches!(result, Err(Refusal::Unverified(_))) {
        state.metrics.refused_hook();
    }
    Ok((received, result.map_err(Failure::from)))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        value.split(';').next().is_some_and(|v| v.trim() == "application/json")
    })
}

/// A header's value, if there is exactly one and it is short, printable ASCII.
fn name(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    let plain =
        !value.is_empty() && value.len() <= 100 && value.bytes().all(|b| b.is_ascii_graphic());
    (plain && values.next().is_none()).then(|| value.to_owned())
}
