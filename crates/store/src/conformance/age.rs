//! What is old is given up; what a release needs isn't.

use std::time::Duration;

use pipeyard_model::{Actor, AttemptId, Clock as _, Conclusion, ManualClock, RunId, UserId};

use super::{
    claims::{end, of},
    kept::artifact,
    make::{Made, claim, new_deployment, one_job, places, setup},
    rollouts::ship,
};
use crate::{
    Store,
    retention::{KEPT_RELEASES, Removal},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A run that ended now, whose job kept the artifact of this digit's digest.
async fn ended<S: Store>(
    store: &S,
    clock: &ManualClock,
    made: Made,
    digit: &str,
) -> (RunId, AttemptId) {
    let run = one_job(store, clock, made.repo).await;
    let attempt = of(&claim(store, clock, made.runner).await);
    store.add_artifact(made.runner, artifact(attempt, "a", digit), clock.now()).await.unwrap();
    let success = end(Conclusion::Success, clock);
    store.finish_attempt(made.runner, attempt, success, clock.now()).await.unwrap();
    (run, attempt)
}

async fn give_up<S: Store>(store: &S, clock: &ManualClock) -> Vec<Removal> {
    let now = clock.now();
    while store.give_up(now - 90 * DAY, now, 2).await.unwrap() == 2 {}
    store.removals(100).await.unwrap()
}

/// The age counts from the run's end; what is given up is told and noted for removal, once.
pub async fn what_is_old_is_given_up<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let (old, attempt) = ended(store, clock, made, "a").await;
    clock.advance(45 * DAY);
    let (young, _) = ended(store, clock, made, "b").await;
    one_job(store, clock, made.repo).await;
    clock.advance(45 * DAY);
    assert!(give_up(store, clock).await.is_empty(), "exactly 90 days are not over 90 days");
    clock.advance(Duration::from_secs(1));
    let blob = Removal::Blob("a".repeat(64));
    assert_eq!(give_up(store, clock).await, [blob.clone(), Removal::Log(attempt)]);
    let gone = &store.artifacts(old).await.unwrap()[0];
    assert_eq!(gone.removed_at, Some(clock.now()));
    let view = store.run(old).await.unwrap().unwrap();
    assert_eq!(view.jobs[0].attempts[0].log_removed_at, Some(clock.now()));
    assert_eq!(store.artifacts(young).await.unwrap()[0].removed_at, None);
    store.removed(blob).await.unwrap();
    assert_eq!(
        give_up(store, clock).await,
        [Removal::Log(attempt)],
        "a note stays until it is done"
    );
    // Started again it has a log of its own, and ends anew.
    store.rerun(old, false, Actor::user(UserId::new()), clock.now()).await.unwrap();
    let again = of(&claim(store, clock, made.runner).await);
    let success = end(Conclusion::Success, clock);
    store.finish_attempt(made.runner, again, success, clock.now()).await.unwrap();
    store.removed(Removal::Log(attempt)).await.unwrap();
    assert!(give_up(store, clock).await.is_empty());
    clock.advance(91 * DAY);
    assert!(give_up(store, clock).await.contains(&Removal::Log(again)));
}

/// The same bytes may be kept again before they are removed: they are needed then.
pub async fn bytes_that_are_kept_again_are_needed<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    ended(store, clock, made, "a").await;
    clock.advance(91 * DAY);
    assert!(store.blob_is_needed(&"a".repeat(64)).await.unwrap());
    give_up(store, clock).await;
    assert!(!store.blob_is_needed(&"a".repeat(64)).await.unwrap());
    ended(store, clock, made, "a").await;
    assert!(store.blob_is_needed(&"a".repeat(64)).await.unwrap());
}

/// A release that serves, may be gone back to, or is on its way stays however old it is; it goes when
/// enough newer ones have succeeded.
pub async fn a_release_is_kept_while_it_may_be_needed<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web"]).await;
    let made = setup(store, clock).await;
    let (run, attempt) = ended(store, clock, made, "a").await;
    let (waiting, _) = ended(store, clock, made, "b").await;
    ship(store, clock, "web", "a").await;
    store.create_deployment(new_deployment("production", "web", "b"), clock.now()).await.unwrap();
    clock.advance(400 * DAY);
    let removals = give_up(store, clock).await;
    assert_eq!(removals.len(), 2, "the logs: {removals:?}");
    assert!(removals.contains(&Removal::Log(attempt)));
    for run in [run, waiting] {
        assert_eq!(store.artifacts(run).await.unwrap()[0].removed_at, None);
    }
    for _ in 1..KEPT_RELEASES {
        ship(store, clock, "web", "c").await;
    }
    give_up(store, clock).await;
    assert_eq!(store.artifacts(run).await.unwrap()[0].removed_at, None, "the last that is kept");
    ship(store, clock, "web", "c").await;
    assert!(give_up(store, clock).await.contains(&Removal::Blob("a".repeat(64))));
    assert_eq!(store.artifacts(waiting).await.unwrap()[0].removed_at, None, "it may still start");
}
