//! Artifacts: kept by the attempt that owns the job, downloaded by people.

use axum::http::StatusCode;
use pipeyard_model::{AttemptId, Epoch};
use pipeyard_store::repos::Forge;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::{Answer, ONE_JOB, RUNNER_KEY, Server};

async fn put(
    server: &Server,
    attempt: AttemptId,
    path: &str,
    body: &'static [u8],
    more: &[(&str, &str)],
) -> Answer {
    let key = format!("Bearer {RUNNER_KEY}");
    let mut headers =
        vec![("authorization", key.as_str()), ("content-type", "application/octet-stream")];
    headers.extend_from_slice(more);
    let address =
        format!("/api/runner/jobs/{}/{}/artifacts?path={path}", attempt.job, attempt.epoch);
    server.send("PUT", &address, &headers, body).await
}

async fn claimed() -> (Server, AttemptId) {
    let server = Server::with(|config| config.max_artifact_bytes = 100).await;
    let repo = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    server.add_run(repo, ONE_JOB).await;
    let runner = server.add_runner().await;
    let attempt = server.claim(runner).await;
    (server, attempt)
}

#[tokio::test]
async fn a_kept_file_is_downloaded_byte_for_byte() {
    let (server, attempt) = claimed().await;
    let bytes = b"\x00binary\xff<script>";
    let digest = hex::encode(Sha256::digest(bytes));
    let kept = put(&server, attempt, "out/shop%20v1.tar.gz", bytes, &[("x-sha256", &digest)]).await;
    assert_eq!((kept.status, &kept.json()["sha256"]), (StatusCode::OK, &json!(digest)));
    // A repeat after a lost answer changes nothing.
    let again = put(&server, attempt, "out/shop%20v1.tar.gz", bytes, &[]).await;
    assert_eq!(again.json()["id"], kept.json()["id"]);
    let list = server.get("/api/runs/latest/artifacts").await.json();
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    assert_eq!((&list[0]["job"], &list[0]["path"]), (&json!("test"), &json!("out/shop v1.tar.gz")));
    assert_eq!(list[0]["size"], bytes.len());
    let address = format!("/api/artifacts/{}", list[0]["id"].as_str().unwrap());
    let whole = server.get(&address).await;
    assert_eq!((whole.status, whole.body.as_slice()), (StatusCode::OK, &bytes[..]));
    assert_eq!(whole.header("content-length"), bytes.len().to_string());
    assert_eq!(whole.header("content-type"), "application/octet-stream");
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    assert!(whole.header("content-security-policy").starts_with("sandbox"));
    assert!(
        whole.header("content-disposition").starts_with("attachment; filename=\"shop_v1.tar.gz\"")
    );

    let bearer = server.bearer();
    let ranged = async |more: &[(&str, &str)]| {
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend_from_slice(more);
        server.send("GET", &address, &headers, "").await
    };
    let part = ranged(&[("range", "bytes=1-6")]).await;
    assert_eq!((part.status, part.body.as_slice()), (StatusCode::PARTIAL_CONTENT, &b"binary"[..]));
    assert_eq!(part.header("content-range"), format!("bytes 1-6/{}", bytes.len()));
    let other = ranged(&[("range", "bytes=1-6"), ("if-range", "\"another\"")]).await;
    assert_eq!((other.status, other.body.len()), (StatusCode::OK, bytes.len()));
    let beyond = ranged(&[("range", "bytes=1000-")]).await;
    assert_eq!(
        (beyond.status, beyond.code().as_str()),
        (StatusCode::RANGE_NOT_SATISFIABLE, "bad_range")
    );
    let etag = whole.header("etag").to_owned();
    assert_eq!(ranged(&[("if-none-match", &etag)]).await.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn only_the_present_attempt_keeps_files() {
    let (server, attempt) = claimed().await;
    let stale = AttemptId { epoch: Epoch(attempt.epoch.0 + 1), ..attempt };
    let refused = put(&server, stale, "x", b"late", &[]).await;
    assert_eq!((refused.status, refused.code().as_str()), (StatusCode::CONFLICT, "stale_epoch"));
    let address = format!("/api/runner/jobs/{}/{}/artifacts?path=x", attempt.job, attempt.epoch);
    for key in ["Bearer ppk_guessed", &server.bearer()] {
        let answer = server.send("PUT", &address, &[("authorization", key)], "x").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(server.get("/api/runs/latest/artifacts").await.json(), json!([]));
}

#[tokio::test]
async fn a_file_that_is_too_large_wrong_or_out_of_place_is_refused() {
    let (server, attempt) = claimed().await;
    let large = put(&server, attempt, "x", &[b'x'; 101], &[]).await;
    assert_eq!(
        (large.status, large.code().as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE, "artifact_too_large")
    );
    let wrong = put(&server, attempt, "x", b"abc", &[("x-sha256", &"0".repeat(64))]).await;
    assert_eq!(wrong.code(), "wrong_digest");
    for path in ["..%2Fx", "%2Fetc%2Fpasswd", "", "a%2F%2Fb"] {
        assert_eq!(put(&server, attempt, path, b"abc", &[]).await.code(), "bad_path", "{path}");
    }
    assert_eq!(server.get("/api/runs/latest/artifacts").await.json(), json!([]));
}
