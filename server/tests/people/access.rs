//! Every route as nobody, developer, administrator and runner, against one reviewed table.

use std::fmt::Write as _;

use axum::http::StatusCode;
use pipeyard_server::http::access::ROUTES;
use serde_json::json;

use crate::support::{RUNNER_KEY, Server};

/// An address of this path; nothing that it names exists.
fn address(path: &str) -> String {
    let id = "0190d9a4-7e6f-7000-8000-000000000000";
    path.split('/')
        .map(|part| match part {
            "{run}" | "{epoch}" => "1",
            "{name}" | "{env}" | "{service}" | "{team}" => "nobody-s",
            part if part.starts_with('{') => id,
            part => part,
        })
        .collect::<Vec<_>>()
        .join("/")
}

/// The token of a new developer.
async fn developer(server: &Server, name: &str) -> String {
    let added = server.call("POST", "/api/users", json!({ "name": name })).await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&added.body));
    let code = added.json()["code"].as_str().unwrap().to_owned();
    let body = json!({ "code": code, "want": "token" }).to_string();
    let answer = server.send("POST", "/api/login", &[], body).await;
    answer.json()["token"].as_str().unwrap().to_owned()
}

/// Whether the guard or the handler let this credential through: anything but "who are you" and "you
/// may not" counts, also "there is no such thing".
fn word(status: StatusCode, code: &str) -> &'static str {
    match (status, code) {
        (StatusCode::UNAUTHORIZED, _) => "-",
        (StatusCode::FORBIDDEN, _) => "forbidden",
        _ => "yes",
    }
}

#[tokio::test]
async fn every_route_as_every_role_is_as_reviewed() {
    let server = Server::start().await;
    let developer = developer(&server, "dev").await;
    server.add_runner().await;
    let mut table = String::new();
    let mut routes: Vec<_> = ROUTES.iter().map(|(method, path, _)| (*path, *method)).collect();
    routes.sort_unstable();
    for (path, method) in routes {
        // It ends the credential that it is called with; anybody who is signed in may.
        if path == "/api/logout" {
            continue;
        }
        write!(table, "{:<64}", format!("{method} {path}")).unwrap();
        let credentials = [
            ("nobody", None),
            ("developer", Some(developer.as_str())),
            ("admin", Some(server.token.as_str())),
            ("runner", Some(RUNNER_KEY)),
        ];
        for (_, secret) in credentials {
            let bearer = format!("Bearer {}", secret.unwrap_or_default());
            let headers = if secret.is_some() {
                vec![("authorization", bearer.as_str())]
            } else {
                Vec::new()
            };
            // Streams begin at once and never end: their status is enough.
            let answer = server.status(method, &address(path), &headers, "{}").await;
            write!(table, " {:<10}", word(answer.0, &answer.1)).unwrap();
        }
        table.truncate(table.trim_end().len());
        table.push('\n');
    }
    insta::assert_snapshot!("roles", table);
}

#[tokio::test]
async fn the_table_names_every_documented_route_and_no_other() {
    let server = Server::start().await;
    let document = server.get("/api/openapi.json").await.json();
    let mut documented = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            documented.insert((method.to_uppercase(), path.clone()));
        }
    }
    let named: std::collections::BTreeSet<_> =
        ROUTES.iter().map(|(m, p, _)| ((*m).to_owned(), (*p).to_owned())).collect();
    let missing: Vec<_> = documented.difference(&named).collect();
    assert!(missing.is_empty(), "http/access.rs doesn't say who may call {missing:?}");
    let unknown: Vec<_> = named.difference(&documented).collect();
    assert!(unknown.is_empty(), "http/access.rs names routes that aren't there: {unknown:?}");
}

#[tokio::test]
async fn a_role_holds_from_the_next_request_on() {
    let server = Server::start().await;
    let token = developer(&server, "ann").await;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let secrets = async || server.send("GET", "/api/secrets", &headers, "").await;
    let refused = secrets().await;
    assert_eq!((refused.status, refused.code().as_str()), (StatusCode::FORBIDDEN, "forbidden"));
    let role = json!({ "role": "admin" });
    assert_eq!(server.call("PATCH", "/api/users/ann", role).await.status, StatusCode::OK);
    assert_eq!(secrets().await.status, StatusCode::OK);
    let gone = server.call("DELETE", "/api/users/ann", json!(null)).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(secrets().await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_developer_sees_and_ends_their_own_tokens_only() {
    let server = Server::start().await;
    let token = developer(&server, "ann").await;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let list = server.send("GET", "/api/tokens", &headers, "").await.json();
    assert!(list.as_array().unwrap().iter().all(|row| row["user"] == "ann"), "{list}");
    let all = server.get("/api/tokens").await.json();
    let foreign = all.as_array().unwrap().iter().find(|row| row["user"] == "admin").unwrap();
    let path = format!("/api/tokens/{}", foreign["id"].as_str().unwrap());
    let refused = server.send("DELETE", &path, &headers, "").await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/api/me").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_bad_user_is_refused_before_anything_is_written() {
    let server = Server::start().await;
    let before = server.get("/api/users").await.json();
    for (body, code) in [
        (json!({ "name": "Ann" }), "bad_request"),
        (json!({ "name": "pipeyard" }), "bad_request"),
        (json!({ "name": "../x" }), "bad_request"),
        (json!({ "name": "ann", "role": "root" }), "bad_request"),
        (json!({ "name": "ann", "team": "x" }), "bad_request"),
        (json!({ "name": "ann", "identities": ["github"] }), "bad_identity"),
        (json!({ "name": "ann", "identities": ["gitlab=ann"] }), "bad_identity"),
        (json!({ "name": "ann", "identities": ["github=a b"] }), "bad_identity"),
        (json!({ "name": "ann", "identities": ["github=a", "github=A"] }), "identity_taken"),
        (json!({ "name": "admin" }), "name_taken"),
    ] {
        let answer = server.call("POST", "/api/users", body.clone()).await;
        assert_eq!(answer.code(), code, "{body}");
    }
    assert_eq!(server.get("/api/users").await.json(), before);
}
