//! Artifacts: kept by runners, listed by run, downloaded.
//!
//! A download is somebody's bytes under our address: it is always an attachment, never sniffed,
//! and sandboxed should a browser open it all the same.

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use pipeyard_api::{ErrorBody, views::ArtifactView};
use pipeyard_model::{ArtifactId, AttemptId, Epoch, JobId};
use pipeyard_store::artifacts::NewArtifact;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    auth::{Auth, RunnerAuth},
    range,
    runs::run_id,
};
use crate::{
    AppState,
    blobs::BlobError,
    error::{ApiResult, Failure},
};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(keep)).routes(routes!(list)).routes(routes!(download))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct Kept {
    /// Path in the workspace, relative.
    path: String,
}

/// A path that stays inside of a folder, wherever it is unpacked later.
fn check_path(path: &str) -> ApiResult<()> {
    let good = !path.is_empty()
        && path.len() <= 1000
        && !path.chars().any(char::is_control)
        && !path.contains('\\')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if good {
        return Ok(());
    }
    let message =
        "an artifact's path is relative, without \"..\", empty parts or control characters";
    Err(Failure::bad_request("bad_path", message))
}

/// Keep an output of an attempt. The bytes are the body, `x-sha256` announces their digest.
#[utoipa::path(put, path = "/api/runner/jobs/{job}/{epoch}/artifacts", tag = "runner",
    params(("job" = JobId, Path,), ("epoch" = u32, Path,), Kept,
        ("x-sha256" = Option<String>, Header, description = "SHA-256 of the body in hex")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = KeptArtifact), (status = 409, body = ErrorBody),
        (status = 413, body = ErrorBody)))]
async fn keep(
    State(state): State<AppState>,
    RunnerAuth { id: runner, .. }: RunnerAuth,
    Path((job, epoch)): Path<(JobId, u32)>,
    Query(query): Query<Kept>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<KeptArtifact>> {
    check_path(&query.path)?;
    let attempt = AttemptId { job, epoch: Epoch(epoch) };
    // Before the bytes, so that a runner which lost its job doesn't send a gigabyte for nothing.
    state.store.check_attempt(runner, attempt, state.clock.now()).await?;
    let expected = match headers.get("x-sha256").map(HeaderValue::to_str) {
        None => None,
        Some(Ok(text)) if text.len() == 64 => Some(text.to_owned()),
        Some(_) => {
            return Err(Failure::bad_request("bad_digest", "x-sha256 isn't 64 hex digits"));
        }
    };
    let max = state.config.max_artifact_bytes;
    let stored = state.blobs.put_stream(body.into_data_stream(), max, expected.as_deref()).await;
    let blob = stored.map_err(|error| refuse(&error, &query.path))?;
    let artifact = NewArtifact {
        id: ArtifactId::new(),
        attempt,
        path: query.path,
        size: blob.size,
        sha256: blob.sha256.clone(),
    };
    let id = state.store.add_artifact(runner, artifact, state.clock.now()).await?;
    Ok(Json(KeptArtifact { id, size: blob.size, sha256: blob.sha256 }))
}

/// An output that is durable from now on.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
struct KeptArtifact {
    /// Its id.
    id: ArtifactId,
    /// Bytes.
    size: u64,
    /// Of its bytes, in hex.
    sha256: String,
}

fn refuse(error: &BlobError, path: &str) -> Failure {
    match error {
        BlobError::TooLarge { max } => Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "artifact_too_large",
            format!("artifact {path} is larger than {max} bytes"),
        )
        .hint("raise max_artifact_bytes in the server's settings, or keep less"),
        BlobError::WrongDigest { .. } => {
            Failure::bad_request("wrong_digest", format!("artifact {path}: {error}"))
        }
        BlobError::Broken(_) => {
            Failure::bad_request("transfer_broke", format!("artifact {path}: {error}"))
        }
        BlobError::Disk(cause) if cause.kind() == std::io::ErrorKind::StorageFull => {
            tracing::error!(error = %cause, "an artifact was not stored");
            Failure::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", "the server's disk is full")
        }
        BlobError::Disk(cause) => Failure::internal(cause),
    }
}

/// Outputs of a run: of each job those of its present attempt.
#[utoipa::path(get, path = "/api/runs/{run}/artifacts", tag = "artifacts",
    params(("run" = String, Path, description = "number or `latest`")),
    responses((status = 200, body = [ArtifactView]), (status = 404, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    _auth: Auth,
    Path(run): Path<String>,
) -> ApiResult<Json<Vec<ArtifactView>>> {
    let run = run_id(&state, &run).await?;
    if state.store.run(run).await?.is_none() {
        return Err(Failure::not_found(format_args!("run {run}")));
    }
    Ok(Json(state.store.artifacts(run).await?))
}

/// The bytes of an artifact. `Range` and `If-Range` are honoured.
#[utoipa::path(get, path = "/api/artifacts/{id}", tag = "artifacts", params(("id" = ArtifactId, Path,)),
    responses((status = 200, content_type = "application/octet-stream"), (status = 206),
        (status = 404, body = ErrorBody), (status = 410, body = ErrorBody), (status = 416, body = ErrorBody)))]
async fn download(
    State(state): State<AppState>,
    _auth: Auth,
    Path(id): Path<ArtifactId>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let missing = || Failure::not_found(format_args!("artifact {id}"));
    let artifact = state.store.artifact(id).await?.ok_or_else(missing)?;
    if let Some(at) = artifact.removed_at {
        let what = format_args!("artifact {} of run {}", artifact.path, artifact.run);
        return Err(Failure::removed("artifact_removed", what, at));
    }
    // Looked at before the first byte leaves: a reader must not get others under this name.
    let file = state.blobs.checked(&artifact.sha256).await.map_err(|problem| {
        let message = format!("artifact {} of run {}: {problem}", artifact.path, artifact.run);
        tracing::error!(artifact.id = %id, "{message}");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "artifact_damaged", message)
            .hint("run its job again, or bring the file back from a backup")
    })?;
    let mut file = tokio::fs::File::open(file).await.map_err(Failure::internal)?;
    let etag = format!("\"{}\"", artifact.sha256);
    let mut answer = HeaderMap::new();
    let mut put = |name: header::HeaderName, value: &str| -> ApiResult<()> {
        answer.insert(name, value.parse().map_err(Failure::internal)?);
        Ok(())
    };
    put(header::CONTENT_TYPE, "application/octet-stream")?;
    put(header::CONTENT_DISPOSITION, &disposition(&artifact.path))?;
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
    put(header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'")?;
    put(header::CACHE_CONTROL, "private, max-age=31536000, immutable")?;
    put(header::ACCEPT_RANGES, "bytes")?;
    put(header::ETAG, &etag)?;
    if headers.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == etag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    // A range of another version would be joined to the wrong bytes.
    let wanted = headers.get(header::RANGE).filter(|_| {
        headers.get(header::IF_RANGE).is_none_or(|value| value.as_bytes() == etag.as_bytes())
    });
    let wanted = wanted.and_then(|value| value.to_str().ok());
    let (status, part) = match range::parse(wanted, artifact.size) {
        range::Wanted::Whole => (StatusCode::OK, 0..artifact.size),
        range::Wanted::Part(part) => {
            let (first, last) = (part.start, part.end.saturating_sub(1));
            let value = format!("bytes {first}-{last}/{}", artifact.size);
            answer.insert(header::CONTENT_RANGE, value.parse().map_err(Failure::internal)?);
            (StatusCode::PARTIAL_CONTENT, part)
        }
        range::Wanted::Unsatisfiable => {
            let value = format!("bytes */{}", artifact.size);
            answer.insert(header::CONTENT_RANGE, value.parse().map_err(Failure::internal)?);
            let message = format!("the artifact has {} bytes", artifact.size);
            let failure = Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, "bad_range", message);
            let mut response = failure.into_response();
            response.headers_mut().extend(
                answer.remove(header::CONTENT_RANGE).map(|value| (header::CONTENT_RANGE, value)),
            );
            return Ok(response);
        }
    };
    let length = part.end - part.start;
    answer.insert(header::CONTENT_LENGTH, length.into());
    file.seek(std::io::SeekFrom::Start(part.start)).await.map_err(Failure::internal)?;
    let body = Body::from_stream(ReaderStream::with_capacity(file.take(length), 64 << 10));
    Ok((status, answer, body).into_response())
}

/// The file's own name, both as plain ASCII and, should it hold more, in full (RFC 6266).
fn disposition(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%') { c } else { '_' })
        .collect();
    if plain == name {
        format!("attachment; filename=\"{plain}\"")
    } else {
        let full = urlencoding::encode(name);
        format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{full}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_not_leave_the_folder_that_it_is_unpacked_in() {
        for good in ["shop.tar.gz", "target/a b/한글.txt", ".hidden"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a\nb", "a\\b"] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_download_is_named_by_its_last_part() {
        assert_eq!(disposition("out/shop.tar.gz"), "attachment; filename=\"shop.tar.gz\"");
        assert_eq!(
            disposition("a\"b 가.txt"),
            "attachment; filename=\"a_b__.txt\"; filename*=UTF-8''a%22b%20%EA%B0%80.txt"
        );
    }
}
