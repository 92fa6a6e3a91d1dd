//! Artifacts, and messages that leave.

use std::time::Duration;

use pipeyard_model::{
    Actor, ArtifactId, AttemptId, Clock as _, Conclusion, Epoch, HookId, ManualClock, RepoId,
    RepoName, UserId,
};

use super::{
    claims::{end, is_conflict, of},
    make::{claim, one_job, runner, setup},
};
use crate::{
    Store,
    artifacts::NewArtifact,
    outbox::{CommitState, Notice},
    repos::{Forge, Repo},
};

pub(super) fn artifact(attempt: AttemptId, path: &str, digit: &str) -> NewArtifact {
    NewArtifact {
        id: ArtifactId::new(),
        attempt,
        path: path.to_owned(),
        size: 5,
        sha256: digit.repeat(64),
    }
}

/// Only the runner that holds the job keeps files for it; the same path again is the same artifact.
pub async fn the_present_attempt_keeps_artifacts<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let other = runner(store, clock, "two", &[]).await;
    let run = one_job(store, clock, made.repo).await;
    let attempt = of(&claim(store, clock, made.runner).await);
    let now = clock.now();
    let first = store.add_artifact(made.runner, artifact(attempt, "a", "1"), now).await.unwrap();
    let again = store.add_artifact(made.runner, artifact(attempt, "a", "2"), now).await.unwrap();
    assert_eq!(first, again);
    store.add_artifact(made.runner, artifact(attempt, "b", "1"), now).await.unwrap();
    let late = AttemptId { epoch: Epoch(attempt.epoch.0 + 1), ..attempt };
    for (runner, attempt) in [(other, attempt), (made.runner, late)] {
        let refused = store.add_artifact(runner, artifact(attempt, "c", "1"), now).await;
        is_conflict(refused, "stale_epoch");
    }
    let success = end(Conclusion::Success, clock);
    store.finish_attempt(made.runner, attempt, success, now).await.unwrap();
    let refused = store.add_artifact(made.runner, artifact(attempt, "c", "1"), now).await;
    is_conflict(refused, "stale_epoch");
    let list = store.artifacts(run).await.unwrap();
    let paths: Vec<_> = list.iter().map(|a| (a.path.as_str(), &a.sha256[..1], a.run)).collect();
    assert_eq!(paths, [("a", "2", run), ("b", "1", run)]);
    assert_eq!(store.artifact(first).await.unwrap().unwrap().path, "a");
    let found = store.artifact_of_job(attempt.job, "b").await.unwrap();
    assert_eq!(found.map(|a| a.id), Some(list[1].id));
    assert!(store.artifact_of_job(attempt.job, "c").await.unwrap().is_none());
    assert!(store.artifact(ArtifactId::new()).await.unwrap().is_none());
}

/// What a job that is tried again kept before isn't its output any more.
pub async fn a_new_attempt_begins_without_artifacts<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let run = one_job(store, clock, made.repo).await;
    let attempt = of(&claim(store, clock, made.runner).await);
    let now = clock.now();
    store.add_artifact(made.runner, artifact(attempt, "a", "1"), now).await.unwrap();
    let failure = end(Conclusion::Failure, clock);
    store.finish_attempt(made.runner, attempt, failure, now).await.unwrap();
    assert_eq!(store.artifacts(run).await.unwrap().len(), 1);
    store.rerun(run, false, Actor::user(UserId::new()), now).await.unwrap();
    claim(store, clock, made.runner).await;
    assert_eq!(store.artifacts(run).await.unwrap().len(), 0);
    assert!(store.artifact_of_job(attempt.job, "a").await.unwrap().is_none());
}

pub(super) async fn github<S: Store>(store: &S, clock: &ManualClock, token: bool) -> RepoId {
    let id = RepoId::new();
    let repo = Repo {
        id,
        name: RepoName::new("acme/shop").unwrap(),
        forge: Forge::Github,
        url: "https://github.com/acme/shop.git".into(),
        credentials: None,
        default_branch: "main".into(),
        hook: HookId::new(),
        hook_secret: vec![1],
        forge_id: None,
        created_at: clock.now(),
        problem: None,
    };
    store.add_repo(repo, Actor::user(UserId::new())).await.unwrap();
    if token {
        store
            .set_forge_token(id, Some(vec![1]), Actor::user(UserId::new()), clock.now())
            .await
            .unwrap();
    }
    id
}

/// The states that wait to be told, in order; takes them out.
async fn told<S: Store>(store: &S, clock: &ManualClock) -> Vec<CommitState> {
    let mut states = Vec::new();
    for message in store.due_messages(clock.now(), 100).await.unwrap() {
        if let Notice::CommitStatus { state, .. } = message.notice {
            states.push(state);
        }
        store.message_sent(message.id, clock.now()).await.unwrap();
    }
    states
}

/// Each change of a run is put into the outbox with it, and what was not told yet is replaced.
pub async fn a_runs_state_is_told_to_its_forge<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let repo = github(store, clock, true).await;
    one_job(store, clock, repo).await;
    assert_eq!(told(store, clock).await, [CommitState::Pending]);
    let attempt = of(&claim(store, clock, made.runner).await);
    assert_eq!(told(store, clock).await, [CommitState::Pending]);
    let failure = end(Conclusion::Failure, clock);
    store.finish_attempt(made.runner, attempt, failure, clock.now()).await.unwrap();
    assert_eq!(told(store, clock).await, [CommitState::Failure]);
    // Queued, running and passed while the forge was away: only the last word counts.
    let run = store.latest_run().await.unwrap().unwrap();
    store.rerun(run, true, Actor::user(UserId::new()), clock.now()).await.unwrap();
    let attempt = of(&claim(store, clock, made.runner).await);
    let success = end(Conclusion::Success, clock);
    store.finish_attempt(made.runner, attempt, success, clock.now()).await.unwrap();
    assert_eq!(told(store, clock).await, [CommitState::Success]);
    assert_eq!(told(store, clock).await, []);
}

/// Without a token nothing is told to a forge, and a failure is told to whoever listens.
pub async fn a_failure_is_told_once<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let repo = github(store, clock, false).await;
    one_job(store, clock, repo).await;
    let attempt = of(&claim(store, clock, made.runner).await);
    assert_eq!(store.outbox_counts().await.unwrap().waiting, 0);
    assert_eq!(store.next_message_at().await.unwrap(), None);
    let failure = end(Conclusion::Failure, clock);
    for _ in 0..2 {
        let finish = failure.clone();
        store.finish_attempt(made.runner, attempt, finish, clock.now()).await.unwrap();
    }
    let due = store.due_messages(clock.now(), 10).await.unwrap();
    assert_eq!(due.len(), 1);
    assert!(matches!(&due[0].notice, Notice::Notification { event, data }
            if event == "run.failed" && data["repo"] == "acme/shop"));
    let later = clock.now() + Duration::from_secs(5);
    store.message_failed(due[0].id, "away", Some(later), clock.now()).await.unwrap();
    assert_eq!(store.due_messages(clock.now(), 10).await.unwrap(), []);
    assert_eq!(store.next_message_at().await.unwrap(), Some(later));
}
