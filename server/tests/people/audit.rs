//! Every change is told in the audit log: who, by which credential, from where.

use std::time::Duration;

use axum::http::StatusCode;
use pipeyard_store::repos::Forge;
use serde_json::{Value, json};

use crate::support::{ONE_JOB, Server};

async fn newest(server: &Server) -> Value {
    server.get("/api/audit?limit=1").await.json()["items"][0].clone()
}

async fn actions(server: &Server) -> Vec<String> {
    let page = server.get("/api/audit?limit=200").await.json();
    let rows = page["items"].as_array().unwrap().iter().rev();
    rows.map(|row| row["action"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_change_tells_its_credential_and_a_refusal_leaves_a_row() {
    let server = Server::start().await;
    let me = server.get("/api/tokens").await.json()[0]["id"].clone();
    let set = server
        .call("PUT", "/api/secrets/TOKEN?all_repos=true", json!({ "value": "hunter22" }))
        .await;
    assert!(set.status.is_success() || set.code() == "repo_needed", "{:?}", set.status);
    server.call("POST", "/api/users", json!({ "name": "ann" })).await;
    let row = newest(&server).await;
    assert_eq!((&row["who"], &row["actor"]), (&json!("user"), &json!("admin")));
    assert_eq!(row["credential"], me);
    assert_eq!(row["action"], "login.mint");
    let wrong = json!({ "code": "AAAAA-AAAAA-AAAAA-AAAAA" }).to_string();
    let refused = server.send("POST", "/api/login", &[], wrong).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let row = newest(&server).await;
    assert_eq!((&row["who"], &row["action"]), (&json!("nobody"), &json!("login.refused")));
    let rogue = json!({ "token": "guessed", "name": "rogue", "labels": ["prod"], "protocol": 1,
        "version": "1" });
    let refused = server.send("POST", "/api/runner/register", &[], rogue.to_string()).await;
    assert_eq!(refused.code(), "bad_token");
    let row = newest(&server).await;
    assert_eq!((&row["who"], &row["action"]), (&json!("nobody"), &json!("runner.refused")));
    assert_eq!(row["target"], "runner rogue");
}

#[tokio::test]
async fn the_address_is_that_of_the_caller_behind_a_trusted_proxy() {
    let server = Server::with(|config| config.trusted_proxy = true).await;
    let bearer = server.bearer();
    let headers = [("authorization", bearer.as_str()), ("x-forwarded-for", "1.2.3.4, 10.0.0.9")];
    let body = json!({ "label": "x" }).to_string();
    let made = server.send("POST", "/api/tokens", &headers, body.clone()).await;
    assert_eq!(made.status, StatusCode::OK);
    assert_eq!(newest(&server).await["address"], "10.0.0.9");
    // Without one, what a caller says of itself is worth nothing.
    let server = Server::start().await;
    let bearer = server.bearer();
    let headers = [("authorization", bearer.as_str()), ("x-forwarded-for", "1.2.3.4")];
    server.send("POST", "/api/tokens", &headers, body).await;
    assert_eq!(newest(&server).await["address"], Value::Null);
}

#[tokio::test]
async fn what_runs_and_runners_do_is_told_too() {
    let server = Server::start().await;
    let repo = server.add_repo("shop", Forge::Git, "/tmp/nowhere").await;
    let run = server.add_run(repo, ONE_JOB).await;
    server.add_runner().await;
    let path = format!("/api/runs/{run}/cancel");
    assert!(server.call("POST", &path, json!({})).await.status.is_success());
    let told = actions(&server).await;
    for action in ["repo.add", "run.start", "runner.register", "run.cancel"] {
        assert!(told.iter().any(|one| one == action), "{action} is missing in {told:?}");
    }
}

#[tokio::test]
async fn a_log_that_somebody_touched_is_noticed_and_an_untouched_one_isnt() {
    let server = Server::start().await;
    for name in ["ann", "bob"] {
        server.call("POST", "/api/users", json!({ "name": name })).await;
    }
    let check = async || server.get("/api/audit/verify").await.json();
    let whole = check().await;
    assert_eq!((&whole["whole"], &whole["broken_at"]), (&json!(true), &Value::Null), "{whole}");
    let file = server.folder.path().join("pipeyard.sqlite");
    let change = async |sql: &'static str| {
        let script = format!(
            "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1],timeout=10)\nc.execute({sql:?})\nc.commit()"
        );
        let done = tokio::process::Command::new("python3")
            .args(["-c", &script])
            .arg(&file)
            .output()
            .await
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    change("UPDATE audit SET name = 'ann' WHERE seq = 3").await;
    let broken = check().await;
    assert_eq!((&broken["whole"], &broken["broken_at"]), (&json!(false), &json!(3)), "{broken}");
}

#[tokio::test]
async fn a_token_ends_and_takes_with_it_what_it_made() {
    let server = Server::start().await;
    let made =
        server.call("POST", "/api/tokens", json!({ "label": "day", "days": 1 })).await.json();
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    let day = [("authorization", bearer.as_str())];
    // It can't make one that lasts longer, and says so.
    let body = json!({ "label": "week", "days": 7 }).to_string();
    let refused = server.send("POST", "/api/tokens", &day, body).await;
    assert_eq!(refused.code(), "outlives_parent");
    for days in [0, 366, 3650] {
        let body = json!({ "label": "x", "days": days });
        assert_eq!(server.call("POST", "/api/tokens", body).await.code(), "bad_days");
    }
    let body = json!({ "label": "child" }).to_string();
    let child = server.send("POST", "/api/tokens", &day, body).await.json();
    assert_eq!(child["expires_at"], made["expires_at"]);
    // Nor by the way round over a new login.
    let body = json!({ "code": made["token"], "want": "token" }).to_string();
    let login = server.send("POST", "/api/login", &[], body).await.json();
    assert_eq!(login["expires_at"], made["expires_at"]);
    let body = json!({ "code": made["token"], "want": "token", "days": 30 }).to_string();
    assert_eq!(server.send("POST", "/api/login", &[], body).await.code(), "outlives_parent");
    let path = format!("/api/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(server.call("DELETE", &path, json!(null)).await.status, StatusCode::NO_CONTENT);
    for secret in [&made["token"], &child["token"], &login["token"]] {
        let bearer = format!("Bearer {}", secret.as_str().unwrap());
        let answer = server.send("GET", "/api/me", &[("authorization", &bearer)], "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    // One that nobody gave a length ends too.
    let login = json!({ "code": server.token, "want": "token" }).to_string();
    let login = server.send("POST", "/api/login", &[], login).await.json();
    let bearer = format!("Bearer {}", login["token"].as_str().unwrap());
    server.clock.advance(Duration::from_secs(90 * 24 * 3600));
    let over = server.send("GET", "/api/me", &[("authorization", &bearer)], "").await;
    assert_eq!(over.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.get("/api/me").await.status, StatusCode::OK);
}
