//! Messages reach a receiver that fails, in order, once it is back.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    routing::post,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use pipeyard_server::{outgoing, tasks::outbox};
use pipeyard_store::repos::Forge;
use serde_json::{Value, json};

use crate::support::{COMMIT, ONE_JOB, Server};

/// Somebody else's server that fails as often as it is told to.
#[derive(Clone, Default)]
struct Receiver {
    got: Arc<Mutex<Vec<(String, HeaderMap, String)>>>,
    answers: Arc<Mutex<Vec<StatusCode>>>,
}

impl Receiver {
    async fn start(failures: &[StatusCode]) -> (Self, SocketAddr) {
        let receiver = Self::default();
        receiver.answers.lock().unwrap().extend(failures.iter().rev());
        let app = Router::new().fallback(post(receive)).with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        (receiver, address)
    }

    fn got(&self) -> Vec<(String, HeaderMap, String)> {
        self.got.lock().unwrap().clone()
    }
}

async fn receive(
    State(receiver): State<Receiver>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let body = String::from_utf8(body.to_vec()).unwrap();
    receiver.got.lock().unwrap().push((uri.path().to_owned(), headers, body));
    receiver.answers.lock().unwrap().pop().unwrap_or(StatusCode::CREATED)
}

#[tokio::test]
async fn commit_statuses_survive_a_github_that_fails_three_times() {
    let bad = StatusCode::BAD_GATEWAY;
    let (github, address) = Receiver::start(&[bad, StatusCode::TOO_MANY_REQUESTS, bad]).await;
    let server = Server::with(|config| config.github_api = format!("http://{address}/")).await;
    let repo = server.add_repo("shop", Forge::Github, "https://github.com/acme/shop.git").await;
    let set =
        server.call("PUT", "/api/forge-token?repo=shop", json!({ "value": "ghp_secret" })).await;
    assert_eq!(set.status, StatusCode::NO_CONTENT);
    crate::secrets::assert_not_on_disk(server.folder.path(), b"ghp_secret");
    server.add_run(repo, ONE_JOB).await;
    for tries in 1..=3 {
        outbox::round(&server.state).await.unwrap();
        assert_eq!(github.got().len(), tries);
        // Not again before its time.
        let sleep = outbox::round(&server.state).await.unwrap();
        assert_eq!(github.got().len(), tries);
        assert!(sleep > Duration::ZERO);
        server.clock.advance(Duration::from_secs(3600));
    }
    outbox::round(&server.state).await.unwrap();
    let counts = server.state.store.outbox_counts().await.unwrap();
    assert_eq!((counts.waiting, counts.dead), (0, 0));
    let (path, headers, body) = github.got().pop().unwrap();
    assert_eq!(path, format!("/repos/acme/shop/statuses/{COMMIT}"));
    assert_eq!(headers["authorization"], "Bearer ghp_secret");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&body["state"], &body["context"]),
        (&json!("pending"), &json!("pipeyard/pipeyard"))
    );
    assert_eq!(body["target_url"], "http://127.0.0.1:8470/runs/1");
    // The end of the run is told as well, and only the newest word.
    server.call("POST", "/api/runs/1/cancel", json!(null)).await;
    outbox::round(&server.state).await.unwrap();
    let (_, _, body) = github.got().pop().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["state"], "error");
}

#[tokio::test]
async fn a_refused_token_is_not_tried_for_ever() {
    let (github, address) = Receiver::start(&[StatusCode::UNAUTHORIZED]).await;
    let server = Server::with(|config| config.github_api = format!("http://{address}")).await;
    let repo = server.add_repo("shop", Forge::Github, "git@github.com:acme/shop.git").await;
    server.call("PUT", "/api/forge-token?repo=shop", json!({ "value": "ghp_secret" })).await;
    server.add_run(repo, ONE_JOB).await;
    outbox::round(&server.state).await.unwrap();
    server.clock.advance(Duration::from_secs(24 * 3600));
    outbox::round(&server.state).await.unwrap();
    assert_eq!(github.got().len(), 1);
    assert_eq!(server.state.store.outbox_counts().await.unwrap().dead, 1);
}

#[tokio::test]
async fn a_plain_repository_or_one_without_a_token_tells_nobody() {
    let server = Server::start().await;
    let plain = server.add_repo("plain", Forge::Git, "/srv/plain.git").await;
    let github = server.add_repo("shop", Forge::Github, "https://github.com/acme/shop").await;
    server.add_run(plain, ONE_JOB).await;
    server.add_run(github, ONE_JOB).await;
    assert_eq!(server.state.store.outbox_counts().await.unwrap().waiting, 0);
}

/// Ends the one run as failed.
async fn fail_the_run(server: &Server) {
    let repo = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    server.add_run(repo, ONE_JOB).await;
    let runner = server.add_runner().await;
    let attempt = server.claim(runner).await;
    let finish = pipeyard_api::runner::FinishRequest {
        conclusion: pipeyard_model::Conclusion::Failure,
        reason: Some(pipeyard_api::views::ReasonView {
            code: "step_failed".to_owned(),
            message: "step 1 ended with exit code 2".to_owned(),
        }),
        log_bytes: 0,
        finished_at: crate::support::NOW,
    };
    server.state.store.finish_attempt(runner, attempt, finish, crate::support::NOW).await.unwrap();
}

#[tokio::test]
async fn a_failed_run_is_told_with_a_signature_that_holds() {
    let (receiver, address) = Receiver::start(&[StatusCode::INTERNAL_SERVER_ERROR]).await;
    let server = Server::with(|config| {
        config.notify_url = Some(format!("http://{address}/told"));
        config.notify_private = true;
    })
    .await;
    let made = server.call("POST", "/api/notifications/secret", serde_json::json!(null)).await;
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    fail_the_run(&server).await;
    outbox::round(&server.state).await.unwrap();
    server.clock.advance(Duration::from_secs(60));
    outbox::round(&server.state).await.unwrap();
    let got = receiver.got();
    assert_eq!(got.len(), 2);
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    for (path, headers, body) in &got {
        assert_eq!(path, "/told");
        let header = |name: &str| headers[name].to_str().unwrap();
        let seconds = header("webhook-timestamp").parse().unwrap();
        let expected = outgoing::sign(&key, header("webhook-id"), seconds, body);
        assert_eq!(header("webhook-signature"), expected);
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["type"], &body["data"]["run"]), (&json!("run.failed"), &json!(1)));
        assert_eq!(body["data"]["conclusion"], "failure");
        assert_eq!(body["url"], "http://127.0.0.1:8470/runs/1");
    }
    // A receiver tells the repeat by its id.
    assert_eq!(got[0].1["webhook-id"], got[1].1["webhook-id"]);
    assert_ne!(got[0].1["webhook-timestamp"], got[1].1["webhook-timestamp"]);
}

#[tokio::test]
async fn a_notification_to_a_private_address_is_refused() {
    let (receiver, address) = Receiver::start(&[]).await;
    let server = Server::with(|config| {
        config.notify_url = Some(format!("https://localhost:{}/told", address.port()));
    })
    .await;
    fail_the_run(&server).await;
    outbox::round(&server.state).await.unwrap();
    assert_eq!(receiver.got().len(), 0);
    assert_eq!(server.state.store.outbox_counts().await.unwrap().dead, 1);
}
