//! Finishes, retries, cancels and reruns.

use pipeyard_api::runner::ReasonView;
use pipeyard_model::{
    Actor, Clock as _, Conclusion, Epoch, ManualClock, RequestId, Status, UserId,
};

use super::{
    claims::{end, is_conflict, of, reference},
    make::{claim, job, need, one_job, run, setup},
};
use crate::Store;

/// A finish that is repeated is acknowledged; one that says something else is not.
pub async fn a_repeated_finish_is_acknowledged<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let id = one_job(store, clock, made.repo).await;
    let claimed = claim(store, clock, made.runner).await;
    let success = end(Conclusion::Success, clock);
    for _ in 0..2 {
        store
            .finish_attempt(made.runner, of(&claimed), success.clone(), clock.now())
            .await
            .unwrap();
    }
    let failure = end(Conclusion::Failure, clock);
    is_conflict(
        store.finish_attempt(made.runner, of(&claimed), failure, clock.now()).await,
        "stale_epoch",
    );
    assert_eq!(store.run(id).await.unwrap().unwrap().run.conclusion, Some(Conclusion::Success));
}

/// A failed job is tried again as often as it asks; each try is an attempt of its own.
pub async fn a_failed_job_is_tried_again<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let id = run(store, clock, made.repo, vec![job("flaky", |spec| spec.retry = 1)]).await;
    for epoch in 1..=2 {
        let claimed = claim(store, clock, made.runner).await;
        assert_eq!(claimed.epoch, Epoch(epoch));
        let failure = end(Conclusion::Failure, clock);
        store.finish_attempt(made.runner, of(&claimed), failure, clock.now()).await.unwrap();
    }
    let view = store.run(id).await.unwrap().unwrap();
    assert_eq!(view.run.conclusion, Some(Conclusion::Failure));
    assert_eq!(view.jobs[0].attempts.len(), 2);
}

/// A runner that restarted says itself that its attempt was lost: the job is offered again.
pub async fn a_restarted_runner_gives_its_job_back<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    one_job(store, clock, made.repo).await;
    let claimed = claim(store, clock, made.runner).await;
    let mut lost = end(Conclusion::Error, clock);
    lost.reason =
        Some(ReasonView { code: "runner_lost".into(), message: "the runner was restarted".into() });
    for _ in 0..2 {
        store.finish_attempt(made.runner, of(&claimed), lost.clone(), clock.now()).await.unwrap();
    }
    assert_eq!(claim(store, clock, made.runner).await.epoch, Epoch(2));
}

/// Queued jobs end at once, running ones through their heartbeat; a late success doesn't count.
pub async fn a_cancelled_run_ends<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let nodes = vec![job("a", |_| {}), job("b", |_| {}), need(job("c", |_| {}), &["a"])];
    let id = run(store, clock, made.repo, nodes).await;
    let a = claim(store, clock, made.runner).await;
    let by = Actor::user(UserId::new());
    for _ in 0..2 {
        store.cancel_run(id, by, clock.now()).await.unwrap();
    }
    let view = store.run(id).await.unwrap().unwrap();
    let shown: Vec<_> = view.jobs.iter().map(|j| (j.status, j.conclusion)).collect();
    let cancelled = (Status::Finished, Some(Conclusion::Cancelled));
    assert_eq!(shown, [(Status::Running, None), cancelled, cancelled]);
    assert_eq!(view.jobs[0].reason.as_ref().unwrap().code, "cancelling");
    let news = store.heartbeat_news(made.runner, &[reference(&a)]).await.unwrap();
    assert_eq!(news.cancel, [reference(&a)]);
    let success = end(Conclusion::Success, clock);
    for _ in 0..2 {
        store.finish_attempt(made.runner, of(&a), success.clone(), clock.now()).await.unwrap();
    }
    let view = store.run(id).await.unwrap().unwrap();
    assert_eq!(view.run.conclusion, Some(Conclusion::Cancelled));
    is_conflict(store.cancel_run(id, by, clock.now()).await, "run_finished");
    assert!(
        store.claim_jobs(made.runner, RequestId::new(), 9, clock.now()).await.unwrap().is_empty()
    );
}

/// What needs a job starts after its success, and is skipped with a reason otherwise.
pub async fn needs_are_kept<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let nodes = || {
        vec![
            job("a", |_| {}),
            job("b", |_| {}),
            need(job("c", |_| {}), &["a", "b"]),
            need(job("d", |_| {}), &["c"]),
        ]
    };
    let id = run(store, clock, made.repo, nodes()).await;
    let roots = store.claim_jobs(made.runner, RequestId::new(), 9, clock.now()).await.unwrap();
    assert_eq!(roots.len(), 2, "nothing starts before what it needs");
    let view = store.run(id).await.unwrap().unwrap();
    assert_eq!(view.jobs[2].reason.as_ref().unwrap().message, "waits for a, b");
    for root in &roots {
        let success = end(Conclusion::Success, clock);
        store.finish_attempt(made.runner, of(root), success, clock.now()).await.unwrap();
    }
    let c = claim(store, clock, made.runner).await;
    assert_eq!(c.name.as_str(), "c");
    let failure = end(Conclusion::Failure, clock);
    store.finish_attempt(made.runner, of(&c), failure, clock.now()).await.unwrap();
    let view = store.run(id).await.unwrap().unwrap();
    assert_eq!(view.jobs[3].conclusion, Some(Conclusion::Skipped));
    assert_eq!(view.jobs[3].reason.as_ref().unwrap().code, "need_failed");
    assert_eq!(view.run.conclusion, Some(Conclusion::Failure));
    assert!(view.run.finished_at.is_some());
}

/// `rerun --failed` runs what didn't succeed and what needs it, in the same run.
pub async fn a_rerun_of_what_failed_keeps_what_passed<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let by = Actor::user(UserId::new());
    let nodes = vec![job("a", |_| {}), job("b", |_| {}), need(job("c", |_| {}), &["a", "b"])];
    let id = run(store, clock, made.repo, nodes).await;
    is_conflict(store.rerun(id, true, by, clock.now()).await, "run_not_finished");
    let (a, b) = (claim(store, clock, made.runner).await, claim(store, clock, made.runner).await);
    for (claimed, conclusion) in [(&a, Conclusion::Success), (&b, Conclusion::Failure)] {
        let end = end(conclusion, clock);
        store.finish_attempt(made.runner, of(claimed), end, clock.now()).await.unwrap();
    }
    store.rerun(id, true, by, clock.now()).await.unwrap();
    let again = claim(store, clock, made.runner).await;
    assert_eq!((again.job, again.epoch), (b.job, Epoch(2)));
    let success = end(Conclusion::Success, clock);
    store.finish_attempt(made.runner, of(&again), success.clone(), clock.now()).await.unwrap();
    let c = claim(store, clock, made.runner).await;
    store.finish_attempt(made.runner, of(&c), success.clone(), clock.now()).await.unwrap();
    let view = store.run(id).await.unwrap().unwrap();
    assert_eq!(view.run.conclusion, Some(Conclusion::Success));
    assert_eq!(view.jobs[0].attempts.len(), 1);
    is_conflict(store.rerun(id, true, by, clock.now()).await, "nothing_failed");
    store.rerun(id, false, by, clock.now()).await.unwrap();
    let all = store.claim_jobs(made.runner, RequestId::new(), 9, clock.now()).await.unwrap();
    assert_eq!(all.iter().map(|c| c.epoch).collect::<Vec<_>>(), [Epoch(2), Epoch(3)]);
}
