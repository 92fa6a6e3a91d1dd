//! The master key: a server starts with the one that sealed its secrets, or not at all; and no secret
//! is told by any answer.

use std::path::{Path, PathBuf};

use pipeyard_server::{ServerConfig, boot::boot, http::access::ROUTES};
use pipeyard_store::repos::Forge;
use serde_json::json;

use crate::support::Server;

fn config(folder: &Path) -> ServerConfig {
    ServerConfig { data_dir: folder.join("server"), ..Default::default() }
}

/// An installation that holds something sealed; answers where its key is.
async fn installation(folder: &Path) -> PathBuf {
    let state = boot(config(folder)).await.unwrap();
    let sealed = state.seal.seal("secret:*:TOKEN", b"hunter22");
    let name = "TOKEN".parse().unwrap();
    let secret = pipeyard_store::secrets::SealedSecret { name, repo: None, sealed };
    let secret = pipeyard_store::secrets::NewSecret { secret, branches: None, events: None };
    let by = pipeyard_model::Actor::pipeyard();
    state.store.set_secret(secret, by, state.clock.now()).await.unwrap();
    folder.join("server/key")
}

async fn refusal(config: ServerConfig) -> String {
    match boot(config).await {
        Ok(_) => panic!("it started"),
        Err(error) => format!("{error:#}"),
    }
}

/// As an earlier version left it.
async fn forget_the_check(folder: &Path) {
    let script = "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1],timeout=10)\nc.execute('UPDATE installation SET key_check = NULL')\nc.commit()";
    let done = tokio::process::Command::new("python3")
        .args(["-c", script])
        .arg(folder.join("server/pipeyard.sqlite"))
        .status();
    assert!(done.await.unwrap().success());
}

#[tokio::test]
async fn a_missing_key_is_never_replaced_by_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let key = installation(folder.path()).await;
    let kept = folder.path().join("kept");
    std::fs::rename(&key, &kept).unwrap();
    for forgotten in [false, true] {
        if forgotten {
            forget_the_check(folder.path()).await;
        }
        let said = refusal(config(folder.path())).await;
        assert!(said.contains("key_missing") && said.contains("server/key"), "{said}");
        assert!(said.contains("backup") && said.contains("--key-file"), "{said}");
        assert!(!key.exists(), "a new key was written");
    }
    // Named where it is, it is taken.
    let named = ServerConfig { key_file: Some(kept), ..config(folder.path()) };
    boot(named).await.unwrap();
    assert!(!key.exists());
}

#[tokio::test]
async fn another_key_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let key = installation(folder.path()).await;
    let right = std::fs::read_to_string(&key).unwrap();
    for wrong in ["0".repeat(64), String::new(), right[1..].to_owned(), "2 ".to_owned() + &right] {
        std::fs::write(&key, &wrong).unwrap();
        let said = refusal(config(folder.path())).await;
        assert!(said.contains("server/key"), "{said}");
        assert_eq!(std::fs::read_to_string(&key).unwrap(), wrong);
    }
    // Without a check value, by what is sealed; and then there is one.
    forget_the_check(folder.path()).await;
    std::fs::write(&key, "0".repeat(64)).unwrap();
    assert!(refusal(config(folder.path())).await.contains("key_wrong"));
    std::fs::write(&key, &right).unwrap();
    let state = boot(config(folder.path())).await.unwrap();
    assert!(state.store.key_check().await.unwrap().is_some());
    // A second key beside it seals what is new, and the old opens still.
    std::fs::write(&key, format!("1 {}\n2 {}\n", right.trim(), "0".repeat(64))).unwrap();
    let state = boot(config(folder.path())).await.unwrap();
    let samples = state.store.sealed_samples().await.unwrap();
    assert_eq!(state.seal.unseal("secret:*:TOKEN", &samples[0].1).unwrap(), b"hunter22");
}

#[tokio::test]
async fn no_answer_of_a_read_holds_a_secret() {
    let server = Server::with(|config| {
        config.notify_url =
            Some("https://ann:swordfish@chat.example.com/hook/T0PS3CRET?k=v".into());
    })
    .await;
    server.add_repo("shop", Forge::Github, "https://github.com/acme/shop").await;
    let value = json!({ "value": "ghp_TOPSECRETVALUE" });
    let set = server.call("PUT", "/api/forge-token?repo=shop", value.clone()).await;
    assert!(set.status.is_success());
    server.call("PUT", "/api/secrets/TOKEN?repo=shop", value).await;
    let made = server.call("POST", "/api/notifications/secret", json!(null)).await.json();
    let user = server.call("POST", "/api/users", json!({ "name": "ann" })).await.json();
    let runner = server.call("POST", "/api/runners/tokens", json!({})).await.json();
    let token = server.call("POST", "/api/tokens", json!({ "label": "x" })).await.json();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let secrets = [
        "ghp_TOPSECRETVALUE".to_owned(),
        "swordfish".to_owned(),
        "T0PS3CRET".to_owned(),
        text(&made["secret"]),
        text(&user["code"]),
        text(&runner["token"]),
        text(&token["token"]),
        server.token.clone(),
        std::fs::read_to_string(server.folder.path().join("key")).unwrap().trim().to_owned(),
    ];
    let mut read = 0;
    for (method, path, _) in ROUTES {
        // The stream never ends; it tells kinds and ids.
        if *method != "GET" || path.contains('{') || *path == "/api/events" {
            continue;
        }
        let body = server.get(path).await.body;
        let body = String::from_utf8_lossy(&body);
        for secret in &secrets {
            assert!(!body.contains(secret.as_str()), "GET {path} tells {secret}");
        }
        read += 1;
    }
    assert!(read > 15, "{read}");
    let shown = server.get("/api/notifications").await.json();
    assert_eq!(shown["url"], "https://chat.example.com/...");
    assert!(shown["secret_set_at"].is_string(), "{shown}");
}
