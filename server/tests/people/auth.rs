//! Who may do what.

use std::time::Duration;

use axum::http::StatusCode;
use pipeyard_server::{ServerConfig, http::login};
use serde_json::json;

use crate::support::Server;

async fn log_in(server: &Server, code: &str, want: &str) -> crate::support::Answer {
    let body = json!({ "code": code, "want": want }).to_string();
    server.send("POST", "/api/login", &[], body).await
}

fn session(answer: &crate::support::Answer) -> String {
    answer.header("set-cookie").split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn every_documented_route_refuses_a_stranger() {
    let server = Server::start().await;
    let document = server.get("/api/openapi.json").await.json();
    let open = ["get /healthz", "get /readyz", "post /api/login", "post /api/runner/register"];
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, _) in methods.as_object().unwrap() {
            let name = format!("{method} {path}");
            // Their handlers verify a signature over the body instead.
            if open.contains(&name.as_str()) || path.starts_with("/hooks/") {
                continue;
            }
            let id = "0190d9a4-7e6f-7000-8000-000000000000";
            let address: String = path
                .split('/')
                .map(|part| match part {
                    "{run}" | "{epoch}" => "1",
                    "{name}" | "{env}" | "{service}" => "TEST",
                    part if part.starts_with('{') => id,
                    part => part,
                })
                .collect::<Vec<_>>()
                .join("/");
            for credentials in [
                &[][..],
                &[("authorization", "Bearer ppt_guessed")],
                &[("cookie", "pipeyard_session=pps_guessed")],
            ] {
                let answer = server.send(&method.to_uppercase(), &address, credentials, "{}").await;
                assert_eq!(
                    answer.status,
                    StatusCode::UNAUTHORIZED,
                    "{name} {credentials:?}: {}",
                    String::from_utf8_lossy(&answer.body)
                );
            }
            asked += 1;
        }
    }
    assert!(asked > 20, "the document has only {asked} operations");
}

#[tokio::test]
async fn a_one_time_login_signs_in_once() {
    let server = Server::start().await;
    let code = login::mint_one_time_login(&server.state).await.unwrap();
    let first = log_in(&server, &code.to_lowercase(), "cookie").await;
    assert_eq!(first.status, StatusCode::OK);
    let cookie = first.header("set-cookie").to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "plain HTTP on loopback: {cookie}");
    let me = server.send("GET", "/api/me", &[("cookie", &session(&first))], "").await;
    assert_eq!((me.status, me.json()["name"].as_str()), (StatusCode::OK, Some("admin")));
    let second = log_in(&server, &code, "cookie").await;
    assert_eq!((second.status, second.code().as_str()), (StatusCode::UNAUTHORIZED, "bad_code"));
    assert!(
        login::first_login(&server.state).await.unwrap().is_none(),
        "somebody signed in already"
    );
}

#[tokio::test]
async fn behind_tls_the_cookie_is_secure() {
    let server = Server::with(|config| config.trusted_proxy = true).await;
    let code = login::mint_one_time_login(&server.state).await.unwrap();
    assert!(log_in(&server, &code, "cookie").await.header("set-cookie").contains("; Secure"));
}

#[tokio::test]
async fn a_write_by_cookie_must_come_from_our_own_page() {
    let server = Server::start().await;
    let cookie = session(&log_in(&server, &server.token, "cookie").await);
    let cookie = ("cookie", cookie.as_str());
    let host = ("host", "ci.example.com");
    let body = json!({ "label": "x" }).to_string();
    for (headers, status) in [
        (vec![cookie], StatusCode::FORBIDDEN),
        (vec![cookie, ("sec-fetch-site", "cross-site")], StatusCode::FORBIDDEN),
        (vec![cookie, ("sec-fetch-site", "same-site")], StatusCode::FORBIDDEN),
        (vec![cookie, host, ("origin", "https://evil.example.com")], StatusCode::FORBIDDEN),
        (vec![cookie, host, ("origin", "null")], StatusCode::FORBIDDEN),
        (vec![cookie, host, ("origin", "http://ci.example.com")], StatusCode::OK),
        (vec![cookie, ("origin", "http://127.0.0.1:8470")], StatusCode::OK),
        (vec![cookie, ("sec-fetch-site", "same-origin")], StatusCode::OK),
    ] {
        let answer = server.send("POST", "/api/tokens", &headers, body.clone()).await;
        assert_eq!(answer.status, status, "{headers:?}");
    }
    // Reading by a link from elsewhere is harmless: nobody but us can see the answer.
    let read = server.send("GET", "/api/me", &[cookie, ("sec-fetch-site", "cross-site")], "").await;
    assert_eq!(read.status, StatusCode::OK);
    // Nor may another site sign somebody in.
    let body = json!({ "code": server.token }).to_string();
    let login = server.send("POST", "/api/login", &[("sec-fetch-site", "cross-site")], body).await;
    assert_eq!(login.code(), "cross_site");
}

#[tokio::test]
async fn a_session_is_no_token_and_a_token_no_session() {
    let server = Server::start().await;
    let cookie = session(&log_in(&server, &server.token, "cookie").await);
    let secret = cookie.split_once('=').unwrap().1;
    let bearer = format!("Bearer {secret}");
    let as_token = server.send("GET", "/api/me", &[("authorization", &bearer)], "").await;
    assert_eq!(as_token.status, StatusCode::UNAUTHORIZED);
    let cookie = format!("pipeyard_session={}", server.token);
    let as_session = server.send("GET", "/api/me", &[("cookie", &cookie)], "").await;
    assert_eq!(as_session.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn signing_out_ends_the_session_and_no_other() {
    let server = Server::start().await;
    let cookie = session(&log_in(&server, &server.token, "cookie").await);
    let headers = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
    let out = server.send("POST", "/api/logout", &headers, "").await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(server.send("GET", "/api/me", &headers, "").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.get("/api/me").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_session_ends_after_thirty_days() {
    let server = Server::start().await;
    let cookie = session(&log_in(&server, &server.token, "cookie").await);
    let headers = [("cookie", cookie.as_str())];
    server.clock.advance(Duration::from_secs(29 * 24 * 3600));
    assert_eq!(server.send("GET", "/api/me", &headers, "").await.status, StatusCode::OK);
    server.clock.advance(Duration::from_secs(2 * 24 * 3600));
    assert_eq!(server.send("GET", "/api/me", &headers, "").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let server = Server::start().await;
    for _ in 0..10 {
        assert_eq!(log_in(&server, "AAAAA-AAAAA-AAAAA-AAAAA", "token").await.code(), "bad_code");
    }
    // Even the right one has to wait now.
    let refused = log_in(&server, &server.token, "cookie").await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "too_many_logins")
    );
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(log_in(&server, &server.token, "cookie").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_is_made_listed_used_and_revoked() {
    let server = Server::start().await;
    let made =
        server.call("POST", "/api/tokens", json!({ "label": "build bot", "days": 7 })).await.json();
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(server.send("GET", "/api/me", &headers, "").await.status, StatusCode::OK);
    let list = server.get("/api/tokens").await.json();
    let row = list.as_array().unwrap().iter().find(|row| row["label"] == "build bot").unwrap();
    assert_eq!((&row["kind"], &row["current"]), (&json!("token"), &json!(false)));
    assert!(!list.to_string().contains(made["token"].as_str().unwrap()), "a list shows no token");
    let path = format!("/api/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(server.call("DELETE", &path, json!(null)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(server.send("GET", "/api/me", &headers, "").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.call("DELETE", &path, json!(null)).await.status, StatusCode::NOT_FOUND);
    let audit = server.get("/api/audit").await.json();
    let actions: Vec<_> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions[..2], ["token.revoke", "token.create"]);
}

#[tokio::test]
async fn no_credential_lies_in_the_data_folder_in_clear() {
    let server = Server::start().await;
    let code = login::mint_one_time_login(&server.state).await.unwrap();
    let cookie = session(&log_in(&server, &server.token, "cookie").await);
    let secret = cookie.split_once('=').unwrap().1;
    for needle in [code.replace('-', ""), code, secret.to_owned(), server.token.clone()] {
        crate::secrets::assert_not_on_disk(server.folder.path(), needle.as_bytes());
    }
}

#[test]
fn beyond_loopback_only_behind_a_proxy_that_ends_tls() {
    let listen = "0.0.0.0:8470".parse().unwrap();
    let bare = ServerConfig { listen, ..Default::default() };
    assert!(bare.check().unwrap_err().to_string().contains("clear text"));
    assert!(ServerConfig { listen, trusted_proxy: true, ..Default::default() }.check().is_ok());
    assert!(ServerConfig::default().check().is_ok());
}
