//! A runner is what an administrator said that it is.

use axum::http::StatusCode;
use pipeyard_model::{Actor, RepoId};
use pipeyard_store::repos::Forge;
use serde_json::{Value, json};

use crate::support::{Answer, ONE_JOB, Server};

async fn enrolment(server: &Server, wanted: Value) -> String {
    let made = server.call("POST", "/api/runners/tokens", wanted).await;
    assert_eq!(made.status, StatusCode::OK, "{}", String::from_utf8_lossy(&made.body));
    made.json()["token"].as_str().unwrap().to_owned()
}

async fn register(server: &Server, token: &str, more: Value) -> Answer {
    let mut body =
        json!({ "token": token, "name": "r", "labels": [], "protocol": 1, "version": "1" });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    server.send("POST", "/api/runner/register", &[], body.to_string()).await
}

/// The jobs that a runner with this key is given.
async fn claimed(server: &Server, key: &str) -> usize {
    let bearer = format!("Bearer {key}");
    let body = json!({ "request": uuid(), "free_slots": 9, "wait_seconds": 0 }).to_string();
    let headers = [("authorization", bearer.as_str())];
    let answer = server.send("POST", "/api/runner/claim", &headers, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()["jobs"].as_array().unwrap().len()
}

fn uuid() -> String {
    pipeyard_model::RequestId::new().to_string()
}

fn key(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()["key"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_registers_one_runner_once() {
    let server = Server::start().await;
    let token = enrolment(&server, json!({})).await;
    key(&register(&server, &token, json!({})).await);
    assert_eq!(register(&server, &token, json!({})).await.code(), "bad_token");
    // Asked again with the key that the runner made itself, it is the same one: an answer was lost.
    let token = enrolment(&server, json!({})).await;
    let own = json!({ "key": format!("ppk_{}", "k".repeat(43)) });
    let first = register(&server, &token, own.clone()).await.json();
    assert_eq!(register(&server, &token, own).await.json(), first);
    let other = json!({ "key": format!("ppk_{}", "x".repeat(43)) });
    assert_eq!(register(&server, &token, other).await.code(), "bad_token");
    let weak = json!({ "key": "ppk_short" });
    let token = enrolment(&server, json!({})).await;
    assert_eq!(register(&server, &token, weak).await.code(), "bad_registration");
    // And it ends.
    server.clock.advance(std::time::Duration::from_secs(3601));
    assert_eq!(register(&server, &token, json!({})).await.code(), "bad_token");
    assert_eq!(server.get("/api/runners").await.json().as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_runner_gets_the_labels_of_its_token_and_no_other() {
    let server = Server::start().await;
    let token = enrolment(&server, json!({ "labels": ["gpu"] })).await;
    for rogue in [json!(["prod"]), json!(["gpu", "prod"]), json!(["GPU"])] {
        let refused = register(&server, &token, json!({ "labels": rogue })).await;
        assert_eq!(refused.code(), "bad_label");
    }
    // The refusals didn't use it up.
    key(&register(&server, &token, json!({})).await);
    let list = server.get("/api/runners").await.json();
    assert_eq!(list[0]["labels"], json!(["gpu"]));
    let token = enrolment(&server, json!({ "any_label": true })).await;
    key(&register(&server, &token, json!({ "labels": ["x"] })).await);
    let told = server.get("/api/audit?limit=1").await.json()["items"][0].clone();
    assert_eq!((&told["action"], &told["who"]), (&json!("runner.register"), &json!("runner")));
    assert_eq!(told["after"]["labels"], json!(["x"]));
    for bad in [json!({ "labels": [""] }), json!({ "repos": ["nothing"] }), json!({ "minutes": 0 })]
    {
        let refused = server.call("POST", "/api/runners/tokens", bad.clone()).await;
        assert!(refused.status.is_client_error(), "{bad}");
    }
}

#[tokio::test]
async fn a_runner_takes_no_job_of_a_repository_that_it_is_not_for() {
    let server = Server::start().await;
    let shop = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    let blog = server.add_repo("blog", Forge::Git, "/srv/blog.git").await;
    let run_of = async |repo: RepoId| server.add_run(repo, ONE_JOB).await;
    run_of(shop).await;
    let token = enrolment(&server, json!({ "repos": ["blog"] })).await;
    let blogs = key(&register(&server, &token, json!({})).await);
    assert_eq!(claimed(&server, &blogs).await, 0);
    server.state.store.explain_waits(server.now()).await.unwrap();
    let why = server.get("/api/runs/1").await.json().to_string();
    assert!(why.contains("no runner takes jobs of this repository"), "{why}");
    run_of(blog).await;
    assert_eq!(claimed(&server, &blogs).await, 1);
    // A repository that is removed takes its runner's reach with it, not the limit.
    server.state.store.remove_repo(blog, Actor::pipeyard(), server.now()).await.unwrap();
    assert_eq!(claimed(&server, &blogs).await, 0);
    let all = key(&register(&server, &enrolment(&server, json!({})).await, json!({})).await);
    assert_eq!(claimed(&server, &all).await, 1);
}

#[tokio::test]
async fn a_second_process_of_a_runner_is_refused_while_the_first_lives() {
    let server = Server::start().await;
    let key = key(&register(&server, &enrolment(&server, json!({})).await, json!({})).await);
    let bearer = format!("Bearer {key}");
    let ask = async |process: &str, path: &str, body: Value| {
        let headers = [("authorization", bearer.as_str()), ("x-pipeyard-process", process)];
        server.send("POST", path, &headers, body.to_string()).await
    };
    let claim = || json!({ "request": uuid(), "free_slots": 1, "wait_seconds": 0 });
    let hello = async |process, previous: Value| {
        ask(process, "/api/runner/hello", json!({ "previous": previous })).await.json()["accepted"]
            == true
    };
    assert!(hello("one", Value::Null).await);
    assert!(!hello("two", Value::Null).await, "the first spoke a moment ago");
    assert!(!hello("two", json!("three")).await);
    for path in ["/api/runner/claim", "/api/runner/goodbye"] {
        assert_eq!(ask("two", path, claim()).await.code(), "runner_is_live", "{path}");
        assert_eq!(ask("", path, claim()).await.code(), "runner_is_live", "{path}");
    }
    assert_eq!(ask("one", "/api/runner/claim", claim()).await.status, StatusCode::OK);
    // The one before is proven to be dead; then the other way round.
    assert!(hello("two", json!("one")).await);
    assert_eq!(ask("one", "/api/runner/claim", claim()).await.code(), "runner_is_live");
    // One that said goodbye, or was silent for a lease, is in nobody's way.
    assert_eq!(ask("two", "/api/runner/goodbye", json!(null)).await.status, StatusCode::NO_CONTENT);
    assert!(hello("four", Value::Null).await);
    server.clock.advance(std::time::Duration::from_secs(30));
    assert!(hello("five", Value::Null).await);
    assert_eq!(ask("four", "/api/runner/claim", claim()).await.code(), "runner_is_live");
}
