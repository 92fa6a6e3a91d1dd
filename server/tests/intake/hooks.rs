//! Forged, replayed, oversized and malformed deliveries.

use axum::body::{Body, Bytes};
use pipeyard_api::hooks::SIGNATURE;
use pipeyard_server::intake::{body::MAX_BODY, signature::sign};
use serde_json::json;

use crate::{
    repository::Repository,
    world::{World, ZERO},
};

#[tokio::test]
async fn a_push_that_the_hook_tells_of_becomes_one_run() {
    let (world, git) = (World::new().await, Repository::empty());
    let repo = world.add(&git.bare()).await;
    let sha = git.push(".pipeyard.yml", crate::repository::PIPELINE);
    let answer = world.pushed(&repo, "refs/heads/main", ZERO, &sha).await;
    assert_eq!(answer, json!({ "disposition": "requested", "duplicate": false }));
    assert_eq!(world.compile().await, 1);
    let runs = world.runs().await;
    assert_eq!(runs.len(), 1);
    let run = &runs[0].run;
    assert_eq!((run.commit.as_str(), run.branch.as_str()), (sha.as_str(), "main"));
    assert_eq!((run.title.as_str(), run.author.as_str()), ("Change .pipeyard.yml", "Ann"));
    assert_eq!(runs[0].jobs[0].name.as_str(), "test");
    assert_eq!(world.compile().await, 0, "nothing is left to do");
    assert_eq!(world.compare().await, 0, "the comparison of refs knows the push");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_replays_at_once_give_one_run() {
    let (world, git) = (World::new().await, Repository::empty());
    let repo = world.add(&git.bare()).await;
    let sha = git.push(".pipeyard.yml", crate::repository::PIPELINE);
    let all = (0..50).map(|_| world.pushed(&repo, "refs/heads/main", ZERO, &sha));
    let all = futures_util::future::join_all(all).await;
    assert_eq!(all.iter().filter(|answer| answer["duplicate"] == false).count(), 1);
    world.compile().await;
    assert_eq!(world.commits().await, [sha]);
}

#[tokio::test]
async fn what_is_not_signed_by_the_hooks_secret_leaves_no_row_but_a_count() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add(&git.bare()).await;
    let other = world.add_as(json!({ "url": git.bare(), "name": "other" })).await;
    let body = json!({ "updates": [{ "ref": "refs/heads/main", "old": ZERO, "new": git.head() }] })
        .to_string();
    let good = sign(repo.hook_secret.as_bytes(), body.as_bytes());
    let upper = good.to_uppercase().replace("SHA256", "sha256");
    let elsewhere = sign(other.hook_secret.as_bytes(), body.as_bytes());
    let another_body = sign(repo.hook_secret.as_bytes(), body.replace(':', ": ").as_bytes());
    let forged: [&[(&str, &str)]; 9] = [
        &[],
        &[(SIGNATURE, "")],
        &[("x-hub-signature", &good)],
        &[(SIGNATURE, &upper)],
        &[(SIGNATURE, &good[..40])],
        &[(SIGNATURE, &elsewhere)],
        &[(SIGNATURE, &another_body)],
        &[(SIGNATURE, &good), (SIGNATURE, &good)],
        &[(SIGNATURE, &good), (SIGNATURE, &elsewhere)],
    ];
    for headers in forged {
        let answer = world.send("POST", &repo.repo.hook_path, headers, body.clone()).await;
        assert_eq!(answer.refusal(), (401, "signature_refused".into()), "{headers:?}");
    }
    assert_eq!(world.due().await, 0);
    let metrics = world.call("GET", "/metrics", serde_json::Value::Null).await.text();
    assert!(metrics.contains("pipeyard_hooks_refused_total 9"), "{metrics}");
    let answer = world.send("POST", &repo.repo.hook_path, &[(SIGNATURE, &good)], body).await;
    assert_eq!(answer.status.as_u16(), 202);
}

#[tokio::test]
async fn an_unknown_hook_and_another_forges_look_the_same() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add(&git.bare()).await;
    let id = repo.repo.hook;
    for path in [
        "/hooks/git/nonsense".to_owned(),
        "/hooks/git/0197a3f0-0000-7000-8000-000000000000".to_owned(),
        format!("/hooks/github/{id}"),
    ] {
        let answer = world.send("POST", &path, &[], "{}").await;
        assert_eq!(answer.refusal(), (404, "hook_not_found".into()), "{path}");
    }
    assert_eq!(world.call("DELETE", "/api/repos/shop", json!(null)).await.status.as_u16(), 204);
    let answer = world.send("POST", &format!("/hooks/git/{id}"), &[], "{}").await;
    assert_eq!(answer.refusal(), (404, "hook_not_found".into()));
}

#[tokio::test]
async fn an_oversized_body_is_refused_whether_it_says_so_or_not() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add(&git.bare()).await;
    let length = (MAX_BODY + 1).to_string();
    let headers = [("content-length", length.as_str())];
    let answer = world.send("POST", &repo.repo.hook_path, &headers, "{}").await;
    assert_eq!(answer.refusal(), (413, "body_too_large".into()));
    let pieces = futures_util::stream::repeat_with(|| {
        Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1 << 20]))
    });
    let answer = world.send("POST", &repo.repo.hook_path, &[], Body::from_stream(pieces)).await;
    assert_eq!(answer.refusal(), (413, "body_too_large".into()));
}

#[tokio::test]
async fn a_signed_body_that_makes_no_sense_is_refused_or_ignored_with_the_reason() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add(&git.bare()).await;
    for body in ["", "{", "[]", "{\"updates\": 1}"] {
        let signature = sign(repo.hook_secret.as_bytes(), body.as_bytes());
        let answer =
            world.send("POST", &repo.repo.hook_path, &[(SIGNATURE, &signature)], body).await;
        assert_eq!(answer.refusal(), (400, "payload_invalid".into()), "{body}");
    }
    let sha = git.head();
    for (name, old, new) in [
        ("refs/heads/gone", sha.as_str(), ZERO),
        ("refs/tags/main", ZERO, sha.as_str()),
        ("--upload-pack=touch x", ZERO, sha.as_str()),
        ("refs/heads/a\nb", ZERO, sha.as_str()),
        ("refs/heads/\u{202e}x", ZERO, sha.as_str()),
    ] {
        let answer = world.pushed(&repo, name, old, new).await;
        assert_eq!(answer["disposition"], "ignored", "{name:?}");
        assert!(answer["reason"].as_str().is_some_and(|r| !r.is_empty()), "{name:?}");
    }
    assert_eq!(world.due().await, 0);
    let packed = [("content-encoding", "gzip")];
    let answer = world.send("POST", &repo.repo.hook_path, &packed, "x").await;
    assert_eq!(answer.refusal(), (415, "encoding_unsupported".into()));
}

fn push_payload(repository: i64, after: &str) -> String {
    let before = "a".repeat(40);
    json!({
        "ref": "refs/heads/main", "before": before, "after": after, "repository": { "id": repository },
    })
    .to_string()
}

#[tokio::test]
async fn a_redelivery_of_github_changes_nothing_even_with_another_body() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add_as(json!({ "url": git.bare(), "forge": "github" })).await;
    let first = world.github(&repo, "push", "d-1", &push_payload(7, &git.head())).await;
    assert_eq!((first.status.as_u16(), first.json()["duplicate"].as_bool()), (202, Some(false)));
    let again = world.github(&repo, "push", "d-1", &push_payload(7, &"c".repeat(40))).await;
    assert_eq!((again.status.as_u16(), again.json()["duplicate"].as_bool()), (202, Some(true)));
    let replayed = world.github(&repo, "push", "d-2", &push_payload(7, &git.head())).await;
    assert_eq!(replayed.json()["duplicate"], true, "a replay under a new id is the same push");
    world.compile().await;
    assert_eq!(world.commits().await, [git.head()]);
}

#[tokio::test]
async fn a_hook_of_github_belongs_to_the_repository_of_its_first_delivery() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add_as(json!({ "url": git.bare(), "forge": "github" })).await;
    let ping =
        world.github(&repo, "ping", "d-1", "{\"zen\":\"x\",\"repository\":{\"id\":7}}").await;
    assert_eq!(
        ping.json(),
        json!({ "disposition": "ignored", "reason": "ping", "duplicate": false })
    );
    let foreign = world.github(&repo, "push", "d-2", &push_payload(8, &git.head())).await;
    assert_eq!(foreign.refusal(), (422, "wrong_repository".into()));
    assert_eq!(world.due().await, 0);
    let own = world.github(&repo, "push", "d-3", &push_payload(7, &git.head())).await;
    assert_eq!(own.json()["disposition"], "requested");
}

#[tokio::test]
async fn githubs_headers_are_needed_and_a_form_is_refused_with_the_fix() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add_as(json!({ "url": git.bare(), "forge": "github" })).await;
    let body = push_payload(7, &git.head());
    let signature = sign(repo.hook_secret.as_bytes(), body.as_bytes());
    let signed = ("x-hub-signature-256", signature.as_str());
    let event = ("x-github-event", "push");
    for headers in [
        vec![signed, event],
        vec![signed, ("x-github-delivery", "d")],
        vec![signed, event, ("x-github-delivery", "")],
    ] {
        let answer = world.send("POST", &repo.repo.hook_path, &headers, body.clone()).await;
        assert_eq!(answer.refusal(), (400, "header_missing".into()), "{headers:?}");
    }
    let form = [("content-type", "application/x-www-form-urlencoded"), signed];
    let answer = world.send("POST", &repo.repo.hook_path, &form, body).await;
    assert_eq!(answer.refusal(), (415, "not_json".into()));
    assert!(answer.json()["error"]["hint"].as_str().unwrap().contains("application/json"));
}

#[tokio::test]
async fn a_push_of_100_000_commits_is_taken() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add_as(json!({ "url": git.bare(), "forge": "github" })).await;
    let commit = json!({
        "id": git.head(), "message": "Change a thing and say why in a line of the usual length", "added": ["a/b/c.rs"],
    });
    let commits = vec![commit; 100_000];
    let body = json!({
        "ref": "refs/heads/main", "before": ZERO, "after": git.head(), "repository": { "id": 7 }, "commits": commits,
    })
    .to_string();
    assert!(body.len() > 10_000_000 && body.len() < MAX_BODY, "{}", body.len());
    let answer = world.github(&repo, "push", "d-1", &body).await;
    assert_eq!(answer.json()["disposition"], "requested");
    world.compile().await;
    assert_eq!(world.commits().await, [git.head()]);
}
