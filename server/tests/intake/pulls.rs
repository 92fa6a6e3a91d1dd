//! Pull requests: forks are held and bring no pipeline of their own.

use serde_json::json;

use crate::{
    repository::{PIPELINE, Repository},
    world::World,
};

fn payload(head_repo: Option<i64>, head: &str, base: &str) -> String {
    json!({
        "action": "opened", "number": 5, "repository": { "id": 7 },
        "pull_request": {
            "head": { "ref": "fix", "sha": head, "repo": head_repo.map(|id| json!({ "id": id })) },
            "base": { "ref": "main", "sha": base, "repo": { "id": 7 } },
            "user": { "login": "stranger" },
        },
    })
    .to_string()
}

/// A repository whose pull request 5 changes the pipeline; answers it with base and head.
fn with_pull_request() -> (Repository, String, String) {
    let git = Repository::with_pipeline();
    let base = git.head();
    git.git(&["checkout", "--quiet", "-b", "fix"]);
    let head = git.commit(".pipeyard.yml", PIPELINE.replace("test:", "steal:"));
    git.git(&["push", "--quiet", "origin", "HEAD:refs/pull/5/head"]);
    (git, base, head)
}

#[tokio::test]
async fn a_forks_pull_request_is_held_and_runs_the_target_branchs_pipeline() {
    for head_repo in [Some(8), None] {
        let world = World::new().await;
        let (git, base, head) = with_pull_request();
        let repo = world.add_as(json!({ "url": git.bare(), "forge": "github" })).await;
        let answer =
            world.github(&repo, "pull_request", "d-1", &payload(head_repo, &head, &base)).await;
        assert_eq!(answer.json()["disposition"], "requested");
        world.compile().await;
        let runs = world.runs().await;
        let run = &runs[0].run;
        assert!(run.held, "{head_repo:?}");
        assert_eq!(
            (run.commit.as_str(), run.branch.as_str(), run.pull_request),
            (head.as_str(), "main", Some(5))
        );
        assert_eq!(runs[0].jobs[0].name.as_str(), "test", "the stranger's pipeline isn't used");
    }
}

#[tokio::test]
async fn a_pull_request_from_the_repository_itself_runs_its_own_pipeline_at_once() {
    let world = World::new().await;
    let (git, base, head) = with_pull_request();
    git.git(&["push", "--quiet", "origin", "HEAD:fix"]);
    let repo = world.add_as(json!({ "url": git.bare(), "forge": "github" })).await;
    world.github(&repo, "pull_request", "d-1", &payload(Some(7), &head, &base)).await;
    world.compile().await;
    let runs = world.runs().await;
    assert!(!runs[0].run.held);
    assert_eq!(runs[0].jobs[0].name.as_str(), "steal");
}

#[tokio::test]
async fn a_pull_request_is_the_repositorys_own_only_if_a_branch_has_its_commit() {
    let world = World::new().await;
    // The payload says that it comes from the repository itself; no branch of it has the commit.
    let (git, base, head) = with_pull_request();
    let repo = world.add_as(json!({ "url": git.bare(), "forge": "github" })).await;
    world.github(&repo, "pull_request", "d-1", &payload(Some(7), &head, &base)).await;
    world.compile().await;
    let run = &world.runs().await[0];
    assert!(run.run.held && run.run.fork);
    assert_eq!(run.jobs[0].name.as_str(), "test", "the stranger's pipeline isn't used");
}

#[tokio::test]
async fn a_forks_pipeline_is_the_target_branchs_whatever_base_the_payload_names() {
    let world = World::new().await;
    let (git, _, head) = with_pull_request();
    let repo = world.add_as(json!({ "url": git.bare(), "forge": "github" })).await;
    world.github(&repo, "pull_request", "d-1", &payload(Some(8), &head, &head)).await;
    world.compile().await;
    assert_eq!(world.runs().await[0].jobs[0].name.as_str(), "test");
}

#[tokio::test]
async fn a_forks_commit_is_fetched_when_a_person_approves_and_not_before() {
    let world = World::new().await;
    let (git, base, head) = with_pull_request();
    let repo = world.add_as(json!({ "url": git.bare(), "forge": "github" })).await;
    world.github(&repo, "pull_request", "d-1", &payload(Some(8), &head, &base)).await;
    world.compile().await;
    let run = &world.runs().await[0].run;
    assert_eq!((run.title.as_str(), run.author.as_str()), ("Pull request 5", "stranger"));
    let sha: pipeyard_git::Sha = head.parse().unwrap();
    let mirror = pipeyard_server::mirror::open(&world.state, repo.repo.id).await.unwrap();
    assert!(!mirror.has_commit(&sha).await.unwrap(), "nothing of a stranger's lies here yet");
    let path = format!("/api/runs/{}/approve", run.id);
    let answer = world.call("POST", &path, json!(null)).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    assert_eq!(
        (answer.json()["held"].clone(), answer.json()["fork"].clone()),
        (json!(false), json!(true))
    );
    assert!(mirror.has_commit(&sha).await.unwrap());
    assert_eq!(mirror.strangers().await.unwrap(), [sha]);
}

#[tokio::test]
async fn a_forks_commit_that_is_gone_leaves_the_run_held_and_says_so() {
    let world = World::new().await;
    let (git, base, head) = with_pull_request();
    let repo = world.add_as(json!({ "url": git.bare(), "forge": "github" })).await;
    let gone = "d".repeat(40);
    world.github(&repo, "pull_request", "d-1", &payload(Some(8), &gone, &base)).await;
    world.compile().await;
    let run = world.runs().await[0].run.id;
    let answer = world.call("POST", &format!("/api/runs/{run}/approve"), json!(null)).await;
    assert_eq!(answer.refusal(), (409, "commit_not_found".into()));
    assert!(world.runs().await[0].run.held);
    assert_ne!(head, gone);
}

#[tokio::test]
async fn two_pull_requests_with_one_head_and_one_target_are_two() {
    let world = World::new().await;
    let (git, base, head) = with_pull_request();
    git.git(&["push", "--quiet", "origin", "HEAD:fix"]);
    let repo = world.add_as(json!({ "url": git.bare(), "forge": "github" })).await;
    let other_number = payload(Some(7), &head, &base).replace("\"number\":5", "\"number\":6");
    for (id, body, duplicate) in [
        ("d-1", payload(Some(7), &head, &base), false),
        ("d-2", payload(Some(8), &head, &base), false),
        ("d-3", payload(None, &head, &base), false),
        ("d-4", other_number, false),
        // The same pull request as the first, told in other words.
        ("d-5", format!(" {}", payload(Some(7), &head, &base)), true),
    ] {
        let answer = world.github(&repo, "pull_request", id, &body).await.json();
        assert_eq!(answer["duplicate"], duplicate, "{id}");
    }
    world.compile().await;
    let runs = world.runs().await;
    let held: Vec<_> = runs.iter().map(|run| (run.run.pull_request, run.run.held)).collect();
    assert_eq!(held, [(Some(5), false), (Some(5), true), (Some(5), true), (Some(6), false)]);
}

#[tokio::test]
async fn a_forks_commit_is_capped_and_not_kept_for_ever() {
    use std::time::Duration;
    let world = World::with(|config| config.max_stranger_bytes = 64 << 10).await;
    let (git, base, head) = with_pull_request();
    // Text that doesn't shrink.
    let mut noise = 1_u64;
    let large: String = std::iter::repeat_with(|| {
        noise =
            noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{noise:x}\n")
    })
    .take(20_000)
    .collect();
    let heavy = git.commit("large", large);
    git.git(&["push", "--quiet", "origin", "HEAD:refs/pull/6/head"]);
    let repo = world.add_as(json!({ "url": git.bare(), "forge": "github" })).await;
    for (id, sha) in [("d-1", &heavy), ("d-2", &head)] {
        world.github(&repo, "pull_request", id, &payload(Some(8), sha, &base)).await;
    }
    world.compile().await;
    let runs = world.runs().await;
    let approve = async |n: usize| {
        world.call("POST", &format!("/api/runs/{}/approve", runs[n].run.id), json!(null)).await
    };
    assert_eq!(approve(0).await.refusal(), (502, "fetch_too_large".into()));
    let pack = world.state.mirrors.path(repo.repo.id).join("objects/pack");
    let left = std::fs::read_dir(&pack).unwrap().flatten();
    assert!(left.map(|e| e.file_name()).all(|name| !name.to_string_lossy().starts_with("tmp_")));
    assert_eq!(approve(1).await.status.as_u16(), 200);
    let mirror = pipeyard_server::mirror::open(&world.state, repo.repo.id).await.unwrap();
    let maintain = async || {
        pipeyard_server::tasks::refs::maintain(&world.state).await.unwrap();
        mirror.strangers().await.unwrap().len()
    };
    assert_eq!(maintain().await, 1);
    let cancel = format!("/api/runs/{}/cancel", runs[1].run.id);
    world.call("POST", &cancel, json!(null)).await;
    assert_eq!(maintain().await, 1);
    world.clock.advance(Duration::from_secs(15 * 24 * 3600));
    assert_eq!(maintain().await, 0);
}
