//! GitHub's published example payloads: each gets a definite answer. They are installed by
//! `server/tests/payloads/install.sh`.

use std::{collections::HashMap, path::PathBuf};

use pipeyard_api::views::AddedRepo;
use serde_json::{Value, json};

use crate::{repository::Repository, world::World};

fn payloads() -> Vec<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../target/github-payloads/node_modules/@octokit/webhooks-examples");
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| entry.path().join("index.json"))
        .filter(|path| path.is_file())
        .collect()
}

#[tokio::test]
async fn every_published_payload_of_github_gets_a_definite_answer() {
    let files = payloads();
    let found = if files.is_empty() { Err("none are installed".to_owned()) } else { Ok(()) };
    let test = "every_published_payload_of_github_gets_a_definite_answer";
    if !pipeyard_needs::met(test, pipeyard_needs::Need::Payloads, found) {
        return;
    }
    let (world, git) = (World::new().await, Repository::empty());
    // One repository of ours for each of theirs.
    let mut repos: HashMap<Option<i64>, AddedRepo> = HashMap::new();
    let (mut sent, mut requested) = (0, 0);
    for file in files {
        let kinds: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for kind in kinds {
            let event = kind["name"].as_str().unwrap();
            for example in kind["examples"].as_array().unwrap() {
                let id = example["repository"]["id"].as_i64();
                if !repos.contains_key(&id) {
                    let name = format!("shop-{}", repos.len());
                    let added = world
                        .add_as(json!({ "url": git.bare(), "forge": "github", "name": name }))
                        .await;
                    repos.insert(id, added);
                }
                sent += 1;
                let answer = world
                    .github(&repos[&id], event, &format!("d-{sent}"), &example.to_string())
                    .await;
                let named =
                    format!("{event} in {}: {} {}", file.display(), answer.status, answer.text());
                assert_eq!(answer.status.as_u16(), 202, "{named}");
                match answer.json()["disposition"].as_str() {
                    Some("requested") => {
                        assert!(matches!(event, "push" | "pull_request"), "{named}");
                        requested += 1;
                    }
                    Some("ignored") => assert!(answer.json()["reason"].is_string(), "{named}"),
                    _ => panic!("{named}"),
                }
            }
        }
    }
    assert!(sent >= 300 && requested >= 10, "{sent} payloads, {requested} ask for runs");
}
