//! Runners and their registration.

use std::time::Duration;

use pipeyard_model::{
    Actor, Clock as _, Epoch, ManualClock, RequestId, RunnerId, UserId, runner::Grant,
};

use super::{
    claims::is_conflict,
    make::{claim, one_job, runner, setup, sha},
};
use crate::{
    Store, StoreError,
    runners::{NewEnrolment, NewRunner, Process, Standing},
};

const PROCESS: Process<'_> = Process { nonce: "", previous: None };

fn new(key: [u8; 32]) -> NewRunner {
    NewRunner {
        id: RunnerId::new(),
        name: "r".into(),
        labels: vec![],
        version: "0".into(),
        key_hash: key,
    }
}

/// A registration token works until it expires, and only then is there a runner.
pub async fn a_registration_needs_a_live_token<S: Store>(store: &S, clock: &ManualClock) {
    let token = *sha("token");
    is_conflict(
        store.register_runner(token, new(*sha("k1")), None, clock.now()).await,
        "bad_token",
    );
    store
        .add_enrolment(
            NewEnrolment {
                hash: token,
                expires_at: clock.now() + Duration::from_secs(60),
                grant: Grant::everything(),
            },
            Actor::pipeyard(),
            clock.now(),
        )
        .await
        .unwrap();
    let runner = new(*sha("k2"));
    store.register_runner(token, runner.clone(), None, clock.now()).await.unwrap();
    assert_eq!(
        store.runner_by_key(*sha("k2"), PROCESS, clock.now()).await.unwrap(),
        Standing::Speaks(runner.id)
    );
    assert_eq!(
        store.runner_by_key(*sha("k1"), PROCESS, clock.now()).await.unwrap(),
        Standing::Unknown
    );
    clock.advance(Duration::from_secs(61));
    is_conflict(
        store.register_runner(token, new(*sha("k3")), None, clock.now()).await,
        "bad_token",
    );
}

/// A runner is online while it speaks, and what it works on is shown.
pub async fn a_silent_runner_is_offline<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let id = one_job(store, clock, made.repo).await;
    claim(store, clock, made.runner).await;
    let views = store.runners(clock.now()).await.unwrap();
    assert_eq!(
        (views[0].state.as_str(), views[0].jobs.clone()),
        ("online", vec![format!("run {id} / test")])
    );
    clock.advance(Duration::from_secs(120));
    assert_eq!(store.runners(clock.now()).await.unwrap()[0].state, "offline");
    let key = *sha(&made.runner.to_string());
    store.runner_by_key(key, PROCESS, clock.now()).await.unwrap();
    assert_eq!(store.runners(clock.now()).await.unwrap()[0].state, "online");
}

/// A removed runner's key is worth nothing and its jobs go to others at once.
pub async fn a_removed_runner_loses_its_jobs_at_once<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    one_job(store, clock, made.repo).await;
    claim(store, clock, made.runner).await;
    store.remove_runner(made.runner, Actor::user(UserId::new()), clock.now()).await.unwrap();
    assert!(matches!(
        store.remove_runner(made.runner, Actor::user(UserId::new()), clock.now()).await,
        Err(StoreError::NotFound { .. })
    ));
    assert_eq!(
        store.runner_by_key(*sha(&made.runner.to_string()), PROCESS, clock.now()).await.unwrap(),
        Standing::Unknown
    );
    assert!(store.runners(clock.now()).await.unwrap().is_empty());
    let refused = store.claim_jobs(made.runner, RequestId::new(), 1, clock.now()).await;
    assert!(matches!(refused, Err(StoreError::NotFound { .. })));
    let other = runner(store, clock, "two", &[]).await;
    assert_eq!(claim(store, clock, other).await.epoch, Epoch(2));
}
