//! Runs and runners as people see and change them.

use axum::http::StatusCode;
use pipeyard_store::repos::Forge;
use serde_json::json;

use crate::support::{COMMIT, ONE_JOB, Server};

#[tokio::test]
async fn runs_are_listed_newest_first_and_page_by_page() {
    let server = Server::start().await;
    let repo = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    let other = server.add_repo("team/other", Forge::Git, "/srv/other.git").await;
    for _ in 0..3 {
        server.add_run(repo, ONE_JOB).await;
    }
    server.add_run(other, ONE_JOB).await;
    let ids = |page: &serde_json::Value| -> Vec<i64> {
        page["items"].as_array().unwrap().iter().map(|run| run["id"].as_i64().unwrap()).collect()
    };
    let first = server.get("/api/runs?repo=shop&limit=2").await.json();
    assert_eq!(ids(&first), [3, 2]);
    let path = format!("/api/runs?repo=shop&limit=2&before={}", first["next"].as_str().unwrap());
    let second = server.get(&path).await.json();
    assert_eq!((ids(&second), second.get("next")), (vec![1], None));
    assert_eq!(ids(&server.get("/api/runs?repo=team/other").await.json()), [4]);
    assert_eq!(ids(&server.get("/api/runs?status=finished").await.json()), [0; 0]);
    assert_eq!(
        ids(&server.get(&format!("/api/runs?commit={}", &COMMIT[..7])).await.json()).len(),
        4
    );
    for bad in ["status=done", "conclusion=ok", "commit=xyz", "before=x", "repo=a//b"] {
        let answer = server.get(&format!("/api/runs?{bad}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(server.get("/api/runs?repo=nowhere").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn latest_is_the_newest_run() {
    let server = Server::start().await;
    let none = server.get("/api/runs/latest").await;
    assert_eq!((none.status, none.code().as_str()), (StatusCode::NOT_FOUND, "not_found"));
    let repo = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    let run = server.add_run(repo, ONE_JOB).await;
    let latest = server.get("/api/runs/latest").await.json();
    assert_eq!((&latest["id"], &latest["kind"]), (&json!(run.0), &json!("run")));
    assert_eq!(latest["jobs"][0]["name"], "test");
    assert_eq!(server.get("/api/runs/99").await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/api/runs/newest").await.code(), "bad_run");
}

#[tokio::test]
async fn a_run_is_cancelled_once_and_run_again() {
    let server = Server::start().await;
    let repo = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    server.add_run(repo, ONE_JOB).await;
    let early = server.call("POST", "/api/runs/1/rerun", json!({})).await;
    assert_eq!((early.status, early.code().as_str()), (StatusCode::CONFLICT, "run_not_finished"));
    let not_held = server.call("POST", "/api/runs/1/approve", json!(null)).await;
    assert_eq!(not_held.code(), "run_not_held");
    let cancelled = server.call("POST", "/api/runs/latest/cancel", json!(null)).await.json();
    assert_eq!(
        (&cancelled["status"], &cancelled["conclusion"]),
        (&json!("finished"), &json!("cancelled"))
    );
    let again = server.call("POST", "/api/runs/1/cancel", json!(null)).await;
    assert_eq!((again.status, again.code().as_str()), (StatusCode::CONFLICT, "run_finished"));
    let rerun = server.call("POST", "/api/runs/1/rerun", json!({ "failed": true })).await.json();
    assert_eq!((&rerun["id"], &rerun["status"]), (&json!(1), &json!("queued")));
}

#[tokio::test]
async fn a_runner_is_registered_by_a_token_seen_and_removed() {
    let server = Server::start().await;
    let made = server.call("POST", "/api/runners/tokens", json!(null)).await.json();
    assert!(made["token"].as_str().is_some_and(|token| token.starts_with("ppr_")));
    let runner = server.add_runner().await;
    let list = server.get("/api/runners").await.json();
    assert_eq!((&list[0]["name"], &list[0]["id"]), (&json!("one"), &json!(runner.to_string())));
    let path = format!("/api/runners/{runner}");
    assert_eq!(server.call("DELETE", &path, json!(null)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(server.get("/api/runners").await.json(), json!([]));
    assert_eq!(server.call("DELETE", &path, json!(null)).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn metrics_tell_of_queue_and_requests() {
    let server = Server::start().await;
    let repo = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    server.add_run(repo, ONE_JOB).await;
    server.get("/api/runs").await;
    let text = String::from_utf8(server.get("/metrics").await.body).unwrap();
    for line in [
        "pipeyard_jobs_waiting 1",
        "pipeyard_jobs_running 0",
        "pipeyard_outbox_waiting 0",
        "pipeyard_http_requests_total{method=\"GET\",route=\"/api/runs\",status=\"2xx\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(server.send("GET", "/healthz", &[], "").await.body, b"ok\n");
    assert_eq!(server.send("GET", "/readyz", &[], "").await.status, StatusCode::OK);
}
