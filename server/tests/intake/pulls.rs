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
    let repo = world.add_as(json!({ "url": git.bare(), "forge": "github" })).await;
    world.github(&repo, "pull_request", "d-1", &payload(Some(7), &head, &base)).await;
    world.compile().await;
    let runs = world.runs().await;
    assert!(!runs[0].run.held);
    assert_eq!(runs[0].jobs[0].name.as_str(), "steal");
}
