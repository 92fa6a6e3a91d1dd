//! Pushes that overtake, undo or repeat each other, and pushes that nobody told of.

use std::time::Duration;

use pipeyard_model::Conclusion;
use serde_json::json;

use crate::{
    repository::{PIPELINE, Repository},
    world::{World, ZERO},
};

#[tokio::test]
async fn two_pushes_in_one_second_are_two_runs_in_their_order() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add(&git.bare()).await;
    let start = git.head();
    let first = git.push("a", "1");
    let second = git.push("a", "2");
    world.pushed(&repo, "refs/heads/main", &start, &first).await;
    world.pushed(&repo, "refs/heads/main", &first, &second).await;
    world.compile().await;
    assert_eq!(world.commits().await, [first, second]);
    let runs = world.runs().await;
    assert!(runs[0].run.id < runs[1].run.id);
}

#[tokio::test]
async fn the_latest_run_is_that_of_the_push_that_was_just_accepted() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add(&git.bare()).await;
    let start = git.head();
    let first = git.push("a", "1");
    world.pushed(&repo, "refs/heads/main", &start, &first).await;
    world.compile().await;
    let second = git.push("a", "2");
    world.pushed(&repo, "refs/heads/main", &first, &second).await;
    let latest = world.call("GET", "/api/runs/latest", json!(null));
    let (latest, handled) = tokio::join!(latest, world.compile());
    assert_eq!((latest.json()["commit"].clone(), handled), (json!(second), 1));
}

#[tokio::test]
async fn a_commit_that_a_forced_push_took_away_waits_for_a_person() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add(&git.bare()).await;
    let start = git.head();
    let lost = git.push("a", "1");
    git.git(&["reset", "--quiet", "--hard", &start]);
    let kept = git.push("a", "2");
    world.pushed(&repo, "refs/heads/main", &start, &lost).await;
    world.pushed(&repo, "refs/heads/main", &lost, &kept).await;
    world.compile().await;
    assert_eq!(world.commits().await, [lost, kept]);
    let runs = world.runs().await;
    // No branch has it any more, so nobody can tell who wrote it.
    assert!(runs[0].run.held && runs[0].run.fork && !runs[1].run.fork);
    let reason = runs[0].run.reason.as_ref().unwrap();
    assert!(reason.message.contains("its branch doesn't have this commit"), "{reason:?}");
    let path = format!("/api/runs/{}/approve", runs[0].run.id);
    assert_eq!(world.call("POST", &path, json!(null)).await.json()["held"], false);
}

#[tokio::test]
async fn a_commit_that_is_gone_for_good_ends_as_a_failed_run_that_says_so() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add(&git.bare()).await;
    let never = "c".repeat(40);
    world.pushed(&repo, "refs/heads/main", &git.head(), &never).await;
    let next = git.push("a", "1");
    world.pushed(&repo, "refs/heads/main", &never, &next).await;
    // The forge may be slow to show it, so it is asked for a few times.
    for _ in 0..5 {
        world.compile().await;
        world.clock.advance(Duration::from_secs(60));
    }
    world.compile().await;
    assert_eq!(world.commits().await, [next, never], "the good one didn't wait");
    let runs = world.runs().await;
    assert_eq!(runs[1].run.conclusion, Some(Conclusion::Error));
    assert_eq!(runs[1].run.reason.as_ref().unwrap().code, "commit_not_found");
}

#[tokio::test]
async fn commits_that_never_were_hold_back_no_push_and_are_given_up() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add(&git.bare()).await;
    let ghosts: Vec<_> = (0..60).map(|n| format!("{n:040x}")).collect();
    let tell = async |ghost: &String| {
        world.pushed(&repo, &format!("refs/heads/{ghost}"), ZERO, ghost).await
    };
    for ghost in &ghosts[..30] {
        tell(ghost).await;
    }
    let start = git.head();
    let first = git.push("a", "1");
    world.pushed(&repo, "refs/heads/main", &start, &first).await;
    // In front of it, behind it, and waiting for their retry: nothing holds a push back.
    for ghost in &ghosts[30..] {
        tell(ghost).await;
    }
    world.compile().await;
    assert_eq!(world.commits().await, std::slice::from_ref(&first));
    let second = git.push("a", "2");
    world.pushed(&repo, "refs/heads/main", &first, &second).await;
    world.compile().await;
    assert_eq!(world.commits().await, [first, second]);
    // Each is asked for a few times; then runs say so, and when enough of them do, the repository.
    let mut looks = 0;
    while world.open().await > 0 {
        world.clock.advance(Duration::from_secs(30));
        world.compile().await;
        looks += 1;
        assert!(looks < 300, "they are asked for without an end");
    }
    let runs = world.runs().await;
    let failed = runs.iter().filter(|r| r.run.conclusion == Some(Conclusion::Error)).count();
    assert_eq!(failed, 20);
    let repos = world.call("GET", "/api/repos", json!(null)).await.json();
    assert_eq!(repos[0]["problem"]["code"], "commit_not_found", "{repos}");
}

#[tokio::test]
async fn the_same_commit_runs_once_for_each_branch_that_it_is_pushed_to() {
    let (world, git) = (World::new().await, Repository::empty());
    let repo = world.add(&git.bare()).await;
    let text = format!("when:\n  push: ['main', 'release']\n{PIPELINE}");
    let sha = git.push(".pipeyard.yml", text);
    git.git(&["push", "--quiet", "origin", "HEAD:release", "HEAD:other"]);
    world.pushed(&repo, "refs/heads/main", ZERO, &sha).await;
    world.pushed(&repo, "refs/heads/release", ZERO, &sha).await;
    let again = world.pushed(&repo, "refs/heads/release", ZERO, &sha).await;
    assert_eq!(again["duplicate"], true);
    world.pushed(&repo, "refs/heads/other", ZERO, &sha).await;
    world.compile().await;
    let branches: Vec<_> = world.runs().await.into_iter().map(|r| r.run.branch).collect();
    assert_eq!(branches, ["main", "release"]);
    assert_eq!(world.due().await, 0, "the push to the third branch is closed");
}

#[tokio::test]
async fn a_push_that_nobody_told_of_is_made_up_once() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add(&git.bare()).await;
    let start = git.head();
    assert_eq!(world.compare().await, 0, "what was there before is not new");
    let first = git.push("a", "1");
    let second = git.push("a", "2");
    assert_eq!(world.compare().await, 1);
    assert_eq!(world.compare().await, 0);
    // The hooks come late: the last commit is known, the one before is a push of its own.
    assert_eq!(world.pushed(&repo, "refs/heads/main", &first, &second).await["duplicate"], true);
    assert_eq!(world.pushed(&repo, "refs/heads/main", &start, &first).await["duplicate"], false);
    assert_eq!(world.pushed(&repo, "refs/heads/main", &first, &second).await["duplicate"], true);
    assert_eq!(world.compare().await, 0);
    world.compile().await;
    assert_eq!(world.commits().await, [second, first]);
}

#[tokio::test]
async fn the_first_push_to_an_empty_repository_is_made_up_too() {
    let (world, git) = (World::new().await, Repository::empty());
    world.add(&git.bare()).await;
    assert_eq!(world.compare().await, 0);
    let sha = git.push(".pipeyard.yml", PIPELINE);
    assert_eq!(world.compare().await, 1);
    world.compile().await;
    assert_eq!(world.commits().await, [sha]);
    git.git(&["push", "--quiet", "origin", "HEAD:topic"]);
    assert_eq!(world.compare().await, 1, "a new branch is a push");
    git.git(&["push", "--quiet", "origin", ":topic"]);
    assert_eq!(world.compare().await, 0, "a removed one is not");
    world.compile().await;
    assert_eq!(world.runs().await.len(), 1, "the pipeline is for the default branch only");
}

#[tokio::test]
async fn a_remote_that_is_away_is_shown_and_tried_again() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add(&git.bare()).await;
    let (start, sha) = (git.head(), git.push("a", "1"));
    world.pushed(&repo, "refs/heads/main", &start, &sha).await;
    let away = format!("{}-away", git.bare());
    std::fs::rename(git.bare(), &away).unwrap();
    assert_eq!(world.compile().await, 1);
    assert_eq!(world.runs().await.len(), 0);
    let repos = world.call("GET", "/api/repos", json!(null)).await.json();
    assert_eq!(repos[0]["problem"]["code"], "remote_unreachable", "{repos}");
    assert_eq!(world.compile().await, 0, "it is not due yet");
    std::fs::rename(&away, git.bare()).unwrap();
    world.clock.advance(Duration::from_secs(3));
    assert_eq!(world.compile().await, 1);
    assert_eq!(world.commits().await, [sha]);
    let repos = world.call("GET", "/api/repos", json!(null)).await.json();
    assert_eq!(repos[0]["problem"], json!(null));
}

#[tokio::test]
async fn a_removed_repository_closes_what_waits() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add(&git.bare()).await;
    let (start, sha) = (git.head(), git.push("a", "1"));
    world.pushed(&repo, "refs/heads/main", &start, &sha).await;
    world.call("DELETE", "/api/repos/shop", json!(null)).await;
    world.compile().await;
    assert_eq!((world.due().await, world.runs().await.len()), (0, 0));
}

#[tokio::test]
async fn the_mirror_of_a_removed_repository_goes_and_the_others_stay() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let mut mirrors = Vec::new();
    for name in ["shop", "other"] {
        let added = world.add_as(json!({ "url": git.bare(), "name": name })).await;
        world.call("POST", "/api/runs", json!({ "repo": name })).await;
        mirrors.push(world.state.mirrors.path(added.repo.id));
    }
    assert!(mirrors.iter().all(|path| path.join("HEAD").is_file()));
    world.call("DELETE", "/api/repos/shop", json!(null)).await;
    pipeyard_server::tasks::refs::maintain(&world.state).await.unwrap();
    assert!(!mirrors[0].exists() && mirrors[1].join("HEAD").is_file());
}

/// What a pushed run may do, as its deploys see it: (stranger's, overtaken).
async fn standing(world: &World) -> Vec<(bool, bool)> {
    let ready = world.state.store.ready_deploys(100).await.unwrap();
    ready.into_iter().map(|deploy| (deploy.origin.is_fork(), deploy.overtaken)).collect()
}

/// A pipeline whose deploy needs nothing but a job that is over.
const DEPLOYS: &str = "jobs:\n  package:\n    image: busybox\n    run: make\n    artifacts: a.tgz\ndeploys:\n  ship:\n    release: a.tgz\n    to: production/web\n    needs: package\n";

/// Lets every job that is ready succeed, so that deploys become ready.
async fn finish_jobs(world: &World) {
    use pipeyard_api::runner::FinishRequest;
    use pipeyard_model::{Actor, AttemptId, Clock as _, RequestId, RunnerId, runner::Grant};
    use pipeyard_store::runners::NewEnrolment;
    let (store, now) = (&world.state.store, world.clock.now());
    let id = RunnerId::new();
    let token = *b"0123456789abcdef0123456789abcdef";
    let end = now + Duration::from_secs(60);
    let enrolment = NewEnrolment { hash: token, expires_at: end, grant: Grant::everything() };
    store.add_enrolment(enrolment, Actor::pipeyard(), now).await.unwrap();
    let runner = pipeyard_store::runners::NewRunner {
        id,
        name: "one".into(),
        labels: vec![],
        version: "1".into(),
        key_hash: *b"0123456789abcdef0123456789abcdeX",
    };
    store.register_runner(token, runner, None, now).await.unwrap();
    for job in store.claim_jobs(id, RequestId::new(), 50, now).await.unwrap() {
        let finish = FinishRequest {
            conclusion: Conclusion::Success,
            reason: None,
            log_bytes: 0,
            finished_at: now,
        };
        let attempt = AttemptId { job: job.job, epoch: job.epoch };
        store.finish_attempt(id, attempt, finish, now).await.unwrap();
    }
}

#[tokio::test]
async fn an_old_push_that_is_told_of_again_deploys_nothing_and_quick_ones_do() {
    let (world, git) = (World::new().await, Repository::empty());
    let repo = world.add(&git.bare()).await;
    let first = git.push(".pipeyard.yml", DEPLOYS);
    let second = git.push("a", "1");
    let third = git.push("a", "2");
    // Three at once, before anybody looked: each was the tip when it was taken in.
    world.pushed(&repo, "refs/heads/main", ZERO, &first).await;
    world.pushed(&repo, "refs/heads/main", &first, &second).await;
    world.pushed(&repo, "refs/heads/main", &second, &third).await;
    world.compile().await;
    // An hour later the second is told of again, in a message of its own.
    world.clock.advance(Duration::from_secs(3600));
    assert_eq!(world.pushed(&repo, "refs/heads/main", &first, &second).await["duplicate"], false);
    world.compile().await;
    assert_eq!(world.commits().await, [&first, &second, &third, &second].map(String::clone));
    finish_jobs(&world).await;
    assert_eq!(
        standing(&world).await,
        [(false, false), (false, false), (false, false), (false, true)]
    );
    // The comparison doesn't take the branch's standing where it was for a push.
    assert_eq!(world.compare().await, 0);
    pipeyard_server::tasks::deploy::run_once(&world.state).await.unwrap();
    let old = &world.runs().await[3];
    let ship = old.jobs.iter().find(|job| job.name.as_str() == "ship").unwrap();
    assert_eq!(ship.conclusion, Some(Conclusion::Skipped));
    assert_eq!(ship.reason.as_ref().unwrap().code, "push_overtaken");
    // A person who asks for it again is not held up by what was pushed since.
    let rerun = format!("/api/runs/{}/rerun", old.run.id);
    let answer = world.call("POST", &rerun, json!({ "failed": true })).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    assert_eq!(standing(&world).await, [(false, false)]);
}

#[tokio::test]
async fn a_push_that_names_a_commit_of_elsewhere_is_a_strangers() {
    let (world, git) = (World::new().await, Repository::empty());
    let repo = world.add(&git.bare()).await;
    let start = git.push(".pipeyard.yml", DEPLOYS);
    world.pushed(&repo, "refs/heads/main", ZERO, &start).await;
    git.git(&["checkout", "--quiet", "-b", "feature"]);
    let feature = git.push("a", "1");
    git.git(&["checkout", "--quiet", "--detach"]);
    let pull = git.commit("a", "2");
    git.git(&["push", "--quiet", "origin", "HEAD:refs/pull/1/head"]);
    for sha in [&feature, &pull] {
        world.pushed(&repo, "refs/heads/main", &start, sha).await;
    }
    world.compile().await;
    let runs = world.runs().await;
    let strangers: Vec<_> = runs.iter().map(|run| (run.run.fork, run.run.held)).collect();
    assert_eq!(strangers, [(false, false), (true, true), (true, true)]);
    assert_eq!(world.compare().await, 1, "the feature's own push, and none of main");
}

#[tokio::test]
async fn a_delivery_is_known_by_its_body_under_another_id() {
    let (world, git) = (World::new().await, Repository::with_pipeline());
    let repo = world.add_as(json!({ "url": git.bare(), "forge": "github" })).await;
    let (start, sha) = (git.head(), git.push("a", "1"));
    let body = json!({
        "ref": "refs/heads/main", "before": start, "after": sha, "repository": { "id": 7 },
    })
    .to_string();
    let tell = async |id: &str| world.github(&repo, "push", id, &body).await.json();
    assert_eq!(tell("d-1").await["duplicate"], false);
    world.compile().await;
    world.clock.advance(Duration::from_secs(30 * 24 * 3600));
    assert_eq!(tell("d-2").await["duplicate"], true);
    // Nor under the name of another event, which nobody signs either.
    let answer = world.github(&repo, "star", "d-3", &body).await.json();
    assert_eq!(answer["duplicate"], true);
    assert_eq!((world.compile().await, world.runs().await.len()), (0, 1));
}
