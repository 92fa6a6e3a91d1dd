//! Secrets: in, never out but for a job.

use std::path::Path;

use axum::http::StatusCode;
use pipeyard_model::{
    Actor, RepoId, SecretName,
    origin::{Event, Origin, Stranger},
};
use pipeyard_server::http::secrets::secrets_for;
use pipeyard_store::{repos::Forge, secrets::AskingAttempt};
use serde_json::json;

use crate::support::Server;

/// Looks through every file below `folder`.
pub(crate) fn assert_not_on_disk(folder: &Path, needle: &[u8]) {
    let mut folders = vec![folder.to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "{} holds it in clear", path.display());
        }
    }
    assert!(files >= 2, "the data folder has {files} files");
}

/// An attempt on this branch; on none, of a stranger's run.
fn attempt(repo: RepoId, branch: Option<&str>) -> AskingAttempt {
    let stranger = Origin::Fork(Stranger::PullRequest);
    AskingAttempt {
        repo,
        event: Event::Push,
        origin: branch.map_or(stranger, |branch| Origin::Branch(branch.to_owned())),
    }
}

fn names(names: &[&str]) -> Vec<SecretName> {
    names.iter().map(|name| SecretName::new(*name).unwrap()).collect()
}

#[tokio::test]
async fn a_secret_goes_in_and_comes_out_for_a_job_only() {
    let server = Server::start().await;
    let shop = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    let value = "correct horse battery";
    let set = server.call("PUT", "/api/secrets/TOKEN?repo=shop", json!({ "value": value })).await;
    assert_eq!((set.status, set.json()), (StatusCode::OK, json!({ "scope": "every branch" })));
    let list = server.get("/api/secrets").await;
    assert_eq!(list.json()[0]["repo"], "shop");
    assert_eq!(list.json()[0]["used_at"], json!(null));
    for path in ["/api/secrets", "/api/audit"] {
        let text = String::from_utf8(server.get(path).await.body).unwrap();
        assert!(!text.contains(value), "{path}");
    }
    assert_not_on_disk(server.folder.path(), value.as_bytes());
    let given = secrets_for(
        &server.state,
        attempt(shop, Some("topic")),
        &names(&["TOKEN"]),
        Actor::pipeyard(),
    )
    .await
    .unwrap();
    assert_eq!(given.values().collect::<Vec<_>>(), [value]);
    assert!(server.get("/api/secrets").await.json()[0]["used_at"].is_string());
    let gone = server.call("DELETE", "/api/secrets/TOKEN?repo=shop", json!(null)).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let again = server.call("DELETE", "/api/secrets/TOKEN?repo=shop", json!(null)).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_job_gets_all_of_its_secrets_or_none() {
    let server = Server::start().await;
    let shop = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    let general = json!({ "value": "general value" });
    server.call("PUT", "/api/secrets/GENERAL?all_repos=true", general).await;
    let wanted = names(&["GENERAL", "OWN"]);
    let ask = async |repo, branch| {
        secrets_for(&server.state, attempt(repo, branch), &wanted, Actor::pipeyard())
            .await
            .map_err(|why| (why.code().to_owned(), why.to_string()))
    };
    let (code, text) = ask(shop, Some("main")).await.unwrap_err();
    assert_eq!(code, "secret_missing");
    assert!(text.contains("pipectl secrets set OWN --repo"), "{text}");
    server.call("PUT", "/api/secrets/OWN?repo=shop", json!({ "value": "own value" })).await;
    let given = ask(shop, Some("main")).await.unwrap();
    assert_eq!(given.values().collect::<Vec<_>>(), ["general value", "own value"]);
    // Another repository's secrets are not for this one, and a fork gets none at all.
    assert_eq!(ask(RepoId::new(), Some("main")).await.unwrap_err().0, "secret_missing");
    assert_eq!(ask(shop, None).await.unwrap_err().0, "secret_refused_to_fork");
    assert!(
        secrets_for(&server.state, attempt(shop, None), &[], Actor::pipeyard())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn whose_a_secret_is_and_what_it_is_limited_to_is_said_openly_or_refused() {
    let server = Server::start().await;
    let shop = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    let put = async |query: &str, limits: serde_json::Value| {
        let mut body = json!({ "value": "long enough" });
        body.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        server.call("PUT", &format!("/api/secrets/KEY{query}"), body).await
    };
    for (query, limits, code) in [
        ("", json!({}), "secret_scope_missing"),
        ("?all_repos=false", json!({}), "secret_scope_missing"),
        ("?repo=shop&all_repos=true", json!({}), "secret_scope_missing"),
        ("?repo=shop", json!({ "environments": ["production"] }), "secret_limit_unsupported"),
        ("?repo=shop", json!({ "branches": ["!main"] }), "secret_limit_invalid"),
        ("?repo=shop", json!({ "branches": ["refs/heads/main"] }), "secret_limit_invalid"),
        (
            "?repo=shop",
            json!({ "branches": ["main"], "default_branch_only": true }),
            "secret_limit_invalid",
        ),
    ] {
        let answer = put(query, limits).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_REQUEST, code));
    }
    // What nobody knows is not dropped silently.
    assert!(put("?repo=shop", json!({ "branch": "main" })).await.status.is_client_error());
    assert!(put("?repo=shop", json!({ "events": ["schedule"] })).await.status.is_client_error());
    assert_eq!(server.get("/api/secrets").await.json(), json!([]));

    let scope = |answer: crate::support::Answer| answer.json()["scope"].clone();
    let limited = json!({ "branches": ["main", "release/*"], "events": ["push"] });
    assert_eq!(scope(put("?repo=shop", limited).await), "main, release/*; push");
    // A new value alone widens nothing.
    assert_eq!(scope(put("?repo=shop", json!({})).await), "main, release/*; push");
    let wanted = names(&["KEY"]);
    let topic =
        secrets_for(&server.state, attempt(shop, Some("topic")), &wanted, Actor::pipeyard()).await;
    let why = topic.unwrap_err();
    assert_eq!(why.code(), "secret_not_for_branch");
    assert!(why.to_string().contains("release/*") && why.to_string().contains("topic"), "{why}");
    // What lint asks, before anything runs.
    let ask = json!({ "branch": "topic", "event": "push", "names": ["KEY", "NONE"] });
    let refused = server.call("POST", "/api/secrets/check?repo=shop", ask).await.json();
    let codes: Vec<_> = refused.as_array().unwrap().iter().map(|r| r["code"].clone()).collect();
    assert_eq!(codes, ["secret_not_for_branch", "secret_missing"]);
    let ask = json!({ "event": "push", "names": ["KEY"] });
    assert_eq!(server.call("POST", "/api/secrets/check?repo=shop", ask).await.json(), json!([]));
    let wide = json!({ "branches": ["**"], "events": ["push", "pull_request", "manual"] });
    assert_eq!(scope(put("?repo=shop", wide).await), "every branch");
    assert!(
        secrets_for(&server.state, attempt(shop, Some("topic")), &wanted, Actor::pipeyard())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_value_that_can_not_be_kept_safe_is_refused() {
    let server = Server::start().await;
    for (name, value, code) in [
        ("SHORT", "1234567".to_owned(), "secret_too_short"),
        ("LONG", "x".repeat((64 << 10) + 1), "secret_too_long"),
        ("NUL", "12345678\0".to_owned(), "secret_with_nul"),
        ("bad-name", "long enough".to_owned(), "bad_request"),
    ] {
        let path = format!("/api/secrets/{name}?all_repos=true");
        let answer = server.call("PUT", &path, json!({ "value": value })).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_REQUEST, code));
    }
    let unknown =
        server.call("PUT", "/api/secrets/A?repo=nowhere", json!({ "value": "12345678" })).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/api/secrets").await.json(), json!([]));
}
