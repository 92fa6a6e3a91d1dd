//! Logs and artifacts go when they are old, and whoever asks for them is told so.

use std::time::Duration;

use axum::http::StatusCode;
use pipeyard_api::runner::FinishRequest;
use pipeyard_model::{Clock as _, Conclusion};
use pipeyard_server::tasks::retention;
use pipeyard_store::repos::Forge;
use serde_json::json;

use crate::support::{ONE_JOB, RUNNER_KEY, Server};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// One run that ended, with a log and an artifact.
async fn ended(server: &Server) -> String {
    let repo = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    server.add_run(repo, ONE_JOB).await;
    let runner = server.add_runner().await;
    let attempt = server.claim(runner).await;
    let line = bytes::Bytes::from(crate::logs::lines(&["hello"]));
    server.state.logs.append(attempt, 0, line).await.unwrap();
    let path = format!("/api/runner/jobs/{}/{}/artifacts?path=a.txt", attempt.job, attempt.epoch);
    let key = format!("Bearer {RUNNER_KEY}");
    let kept = server.send("PUT", &path, &[("authorization", &key)], "bytes").await;
    assert_eq!(kept.status, StatusCode::OK, "{:?}", kept.body);
    let finish = FinishRequest {
        conclusion: Conclusion::Success,
        reason: None,
        log_bytes: 0,
        finished_at: server.clock.now(),
    };
    server.state.store.finish_attempt(runner, attempt, finish, server.clock.now()).await.unwrap();
    pipeyard_server::tasks::logs::seal_now(&server.state).await.unwrap();
    assert!(server.state.logs.unsealed().await.unwrap().is_empty());
    kept.json()["id"].as_str().unwrap().to_owned()
}

/// Files under a folder of the server's data.
fn files(server: &Server, folder: &str) -> usize {
    let mut count = 0;
    let mut folders = vec![server.folder.path().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { count += 1 }
        }
    }
    count
}

#[tokio::test]
async fn old_logs_and_artifacts_go_and_the_answer_says_so() {
    let server = Server::start().await;
    let artifact = ended(&server).await;
    let log = "/api/runs/1/jobs/test/log";
    server.clock.advance(90 * DAY);
    retention::once(&server.state).await.unwrap();
    assert_eq!(server.get(log).await.json()["total"], 1);
    assert_eq!(server.get(&format!("/api/artifacts/{artifact}")).await.body, b"bytes");
    let (logs, blobs) = (files(&server, "logs"), files(&server, "blobs"));
    assert!(logs > 0 && blobs > 0);

    server.clock.advance(DAY);
    retention::once(&server.state).await.unwrap();
    for (path, code) in [
        (log.to_owned(), "log_removed"),
        (format!("{log}/raw"), "log_removed"),
        (format!("{log}/search?q=hello"), "log_removed"),
        (format!("{log}/follow"), "log_removed"),
        (format!("/api/artifacts/{artifact}"), "artifact_removed"),
    ] {
        let gone = server.get(&path).await;
        assert_eq!((gone.status, gone.code().as_str()), (StatusCode::GONE, code), "{path}");
        let message = gone.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.ends_with("was removed on 2026-05-31 because of its age"), "{message}");
    }
    assert_eq!((files(&server, "logs"), files(&server, "blobs")), (0, 0));
    // The run and what it kept are still told of.
    let listed = server.get("/api/runs/1/artifacts").await.json();
    assert_eq!((&listed[0]["path"], listed[0]["removed_at"].is_string()), (&json!("a.txt"), true));
    assert_eq!(server.get("/api/runs/1").await.status, StatusCode::OK);
}

#[tokio::test]
async fn nothing_goes_where_everything_is_kept_for_ever() {
    let mut server = Server::with(|config| config.keep_days = 0).await;
    let artifact = ended(&server).await;
    server.clock.advance(3_650 * DAY);
    server.sign_in().await;
    retention::once(&server.state).await.unwrap();
    assert_eq!(server.get("/api/runs/1/jobs/test/log").await.json()["total"], 1);
    assert_eq!(server.get(&format!("/api/artifacts/{artifact}")).await.body, b"bytes");
}
