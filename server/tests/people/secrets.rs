//! Secrets: in, never out but for a job.

use std::path::Path;

use axum::http::StatusCode;
use pipeyard_model::{Actor, RepoId, SecretName};
use pipeyard_server::http::secrets::{SecretsError, secrets_for};
use pipeyard_store::repos::Forge;
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

fn names(names: &[&str]) -> Vec<SecretName> {
    names.iter().map(|name| SecretName::new(*name).unwrap()).collect()
}

#[tokio::test]
async fn a_secret_goes_in_and_comes_out_for_a_job_only() {
    let server = Server::start().await;
    let shop = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    let value = "correct horse battery";
    let set = server.call("PUT", "/api/secrets/TOKEN?repo=shop", json!({ "value": value })).await;
    assert_eq!(set.status, StatusCode::NO_CONTENT);
    let list = server.get("/api/secrets").await;
    assert_eq!(list.json()[0]["repo"], "shop");
    assert_eq!(list.json()[0]["used_at"], json!(null));
    for path in ["/api/secrets", "/api/audit"] {
        let text = String::from_utf8(server.get(path).await.body).unwrap();
        assert!(!text.contains(value), "{path}");
    }
    assert_not_on_disk(server.folder.path(), value.as_bytes());
    let given = secrets_for(&server.state, shop, &names(&["TOKEN"]), false, Actor::pipeyard())
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
    server.call("PUT", "/api/secrets/GENERAL", json!({ "value": "general value" })).await;
    let wanted = names(&["GENERAL", "OWN"]);
    let missing =
        secrets_for(&server.state, shop, &wanted, false, Actor::pipeyard()).await.unwrap_err();
    assert_eq!(missing.code(), "secret_missing");
    assert!(missing.to_string().contains("pipectl secrets set OWN"), "{missing}");
    server.call("PUT", "/api/secrets/OWN?repo=shop", json!({ "value": "own value" })).await;
    let given = secrets_for(&server.state, shop, &wanted, false, Actor::pipeyard()).await.unwrap();
    assert_eq!(given.values().collect::<Vec<_>>(), ["general value", "own value"]);
    // Another repository's secrets are not for this one, and a fork gets none at all.
    let other = secrets_for(&server.state, RepoId::new(), &wanted, false, Actor::pipeyard()).await;
    assert!(matches!(other, Err(SecretsError::Missing(names)) if names.len() == 1));
    let fork = secrets_for(&server.state, shop, &wanted, true, Actor::pipeyard()).await;
    assert!(matches!(fork, Err(SecretsError::Fork(_))));
    assert!(
        secrets_for(&server.state, shop, &[], true, Actor::pipeyard()).await.unwrap().is_empty()
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
        let path = format!("/api/secrets/{name}");
        let answer = server.call("PUT", &path, json!({ "value": value })).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_REQUEST, code));
    }
    let unknown =
        server.call("PUT", "/api/secrets/A?repo=nowhere", json!({ "value": "12345678" })).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/api/secrets").await.json(), json!([]));
}
