//! Claims, replays, labels, leases and the fence.

use std::{collections::BTreeSet, time::Duration};

use pipeyard_api::runner::{AttemptRef, FinishRequest, StepEnd, StepReport};
use pipeyard_model::{AttemptId, Clock as _, Conclusion, Epoch, ManualClock, RequestId, Status};

use super::make::{claim, job, one_job, run, runner, setup};
use crate::{
    Store, StoreError,
    queue::{Appends, Claimed, LATE_LOG, LEASE_SECONDS},
};

pub(super) fn of(claimed: &Claimed) -> AttemptId {
    AttemptId { job: claimed.job, epoch: claimed.epoch }
}

pub(super) fn reference(claimed: &Claimed) -> AttemptRef {
    AttemptRef { job: claimed.job, epoch: claimed.epoch }
}

pub(super) fn end(conclusion: Conclusion, clock: &ManualClock) -> FinishRequest {
    FinishRequest { conclusion, reason: None, log_bytes: 0, finished_at: clock.now() }
}

pub(super) fn is_conflict<T: std::fmt::Debug>(result: Result<T, StoreError>, code: &str) {
    match result {
        Err(StoreError::Conflict { code: found, .. }) if found == code => {}
        other => panic!("expected conflict {code}, got {other:?}"),
    }
}

const A_LEASE: Duration = Duration::from_secs(LEASE_SECONDS as u64 + 1);

/// Many runners that claim at once never get the same job, and none is left over.
pub async fn parallel_claims_give_each_job_once<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let nodes = (0..40).map(|n| job(&format!("j{n}"), |_| {})).collect();
    run(store, clock, made.repo, nodes).await;
    let claims = (0..20).map(|_| store.claim_jobs(made.runner, RequestId::new(), 3, clock.now()));
    let claims = futures_util::future::join_all(claims).await;
    let jobs: Vec<_> = claims.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(jobs.len(), 40);
    assert_eq!(jobs.iter().map(|c| c.job).collect::<BTreeSet<_>>().len(), 40);
    assert!(jobs.iter().all(|c| c.epoch == Epoch(1)));
}

/// The oldest run goes first, its jobs in the order of the file.
pub async fn the_oldest_run_goes_first<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let first = run(store, clock, made.repo, vec![job("b", |_| {}), job("a", |_| {})]).await;
    let second = one_job(store, clock, made.repo).await;
    assert!(first < second);
    let claimed = store.claim_jobs(made.runner, RequestId::new(), 10, clock.now()).await.unwrap();
    let order: Vec<_> = claimed.iter().map(|c| (c.run, c.name.to_string())).collect();
    assert_eq!(order, [(first, "b".into()), (first, "a".into()), (second, "test".into())]);
}

/// A reply that was lost is answered again; an answer of nothing isn't kept.
pub async fn a_repeated_request_gets_the_same_jobs<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let request = RequestId::new();
    assert!(store.claim_jobs(made.runner, request, 2, clock.now()).await.unwrap().is_empty());
    run(store, clock, made.repo, (0..3).map(|n| job(&format!("j{n}"), |_| {})).collect()).await;
    let first = store.claim_jobs(made.runner, request, 2, clock.now()).await.unwrap();
    let again = store.claim_jobs(made.runner, request, 2, clock.now()).await.unwrap();
    assert_eq!(first.len(), 2);
    assert_eq!(first.iter().map(of).collect::<Vec<_>>(), again.iter().map(of).collect::<Vec<_>>());
    // Another runner can't pick up somebody's reply.
    let other = runner(store, clock, "two", &[]).await;
    let stolen = store.claim_jobs(other, request, 2, clock.now()).await.unwrap();
    assert!(stolen.iter().all(|c| first.iter().all(|f| f.job != c.job)));
}

/// A job that asks for labels goes to a runner that has them all.
pub async fn labels_decide_who_gets_a_job<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let labels =
        |spec: &mut pipeyard_model::plan::JobSpec| spec.labels = vec!["gpu".into(), "arm".into()];
    let id = run(store, clock, made.repo, vec![job("train", labels)]).await;
    let half = runner(store, clock, "half", &["gpu"]).await;
    for runner in [made.runner, half] {
        assert!(
            store.claim_jobs(runner, RequestId::new(), 1, clock.now()).await.unwrap().is_empty()
        );
    }
    store.explain_waits(clock.now()).await.unwrap();
    let waits = store.run(id).await.unwrap().unwrap().jobs[0].reason.clone().unwrap();
    assert_eq!(waits.code, "no_runner");
    assert!(waits.message.contains("gpu"), "{waits:?}");
    let whole = runner(store, clock, "whole", &["arm", "gpu", "linux"]).await;
    store.explain_waits(clock.now()).await.unwrap();
    let waits = store.run(id).await.unwrap().unwrap().jobs[0].reason.clone().unwrap();
    assert_eq!(waits.code, "waiting_for_runner");
    assert_eq!(claim(store, clock, whole).await.name.as_str(), "train");
}

/// An attempt that its runner gives back isn't spent, whatever the job's retries are.
pub async fn a_job_that_is_handed_back_is_offered_again<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let id = one_job(store, clock, made.repo).await;
    for epoch in 1..=3 {
        let claimed = claim(store, clock, made.runner).await;
        assert_eq!(claimed.epoch, Epoch(epoch));
        let mut back = end(Conclusion::Error, clock);
        back.reason = Some(pipeyard_api::runner::ReasonView {
            code: pipeyard_api::runner::HANDED_BACK.into(),
            message: "Docker doesn't answer".into(),
        });
        store.finish_attempt(made.runner, of(&claimed), back.clone(), clock.now()).await.unwrap();
        // Said again, because the answer was lost.
        store.finish_attempt(made.runner, of(&claimed), back, clock.now()).await.unwrap();
        let job = store.run(id).await.unwrap().unwrap().jobs.remove(0);
        assert_eq!(job.reason.unwrap().code, "handed_back");
    }
    let claimed = claim(store, clock, made.runner).await;
    store
        .finish_attempt(made.runner, of(&claimed), end(Conclusion::Success, clock), clock.now())
        .await
        .unwrap();
}

/// A runner that can run nothing is shown with its reason, and jobs that wait for it say so.
pub async fn a_runners_trouble_is_shown<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let id = one_job(store, clock, made.repo).await;
    let trouble = Some("Docker doesn't answer".to_owned());
    store.note_trouble(made.runner, trouble.clone(), clock.now()).await.unwrap();
    let shown = store.runners(clock.now()).await.unwrap().remove(0);
    assert_eq!((shown.state.as_str(), shown.trouble), ("unable", trouble));
    store.explain_waits(clock.now()).await.unwrap();
    let waits = store.run(id).await.unwrap().unwrap().jobs[0].reason.clone().unwrap();
    assert_eq!(waits.code, "runners_unable");
    store.note_trouble(made.runner, None, clock.now()).await.unwrap();
    store.explain_waits(clock.now()).await.unwrap();
    let waits = store.run(id).await.unwrap().unwrap().jobs[0].reason.clone().unwrap();
    assert_eq!(waits.code, "waiting_for_runner");
    let shown = store.runners(clock.now()).await.unwrap().remove(0);
    assert_eq!((shown.state.as_str(), shown.trouble), ("online", None));
}

/// Every write of an attempt that isn't the job's present one is refused and counted.
pub async fn a_stale_epoch_is_refused_and_recorded<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let id = one_job(store, clock, made.repo).await;
    let old = claim(store, clock, made.runner).await;
    clock.advance(A_LEASE);
    assert_eq!(store.expire_leases(clock.now()).await.unwrap(), [of(&old)]);
    let new = claim(store, clock, made.runner).await;
    assert_eq!((new.job, new.epoch), (old.job, Epoch(2)));
    let step = [StepReport { step: 1, started_at: clock.now(), finished: None }];
    is_conflict(store.check_attempt(made.runner, of(&old), clock.now()).await, "stale_epoch");
    is_conflict(store.report_steps(made.runner, of(&old), &step, clock.now()).await, "stale_epoch");
    let success = end(Conclusion::Success, clock);
    is_conflict(
        store.finish_attempt(made.runner, of(&old), success.clone(), clock.now()).await,
        "stale_epoch",
    );
    // Somebody else's present attempt is as closed.
    let other = runner(store, clock, "two", &[]).await;
    is_conflict(
        store.finish_attempt(other, of(&new), success.clone(), clock.now()).await,
        "stale_epoch",
    );
    assert_eq!(store.rejected_writes().await.unwrap(), 4);
    let news = store
        .heartbeat(made.runner, &[reference(&old), reference(&new)], clock.now())
        .await
        .unwrap();
    assert_eq!((news.stale, news.cancel), (vec![reference(&old)], vec![]));
    store.finish_attempt(made.runner, of(&new), success, clock.now()).await.unwrap();
    let run = store.run(id).await.unwrap().unwrap();
    assert_eq!(run.run.conclusion, Some(Conclusion::Success));
    assert_eq!(run.jobs[0].attempts.len(), 2);
}

/// A lost runner's job is offered again once, then it is an error. A heartbeat keeps the lease.
pub async fn a_lease_that_runs_out_offers_the_job_again_once<S: Store>(
    store: &S,
    clock: &ManualClock,
) {
    let made = setup(store, clock).await;
    let id = one_job(store, clock, made.repo).await;
    let first = claim(store, clock, made.runner).await;
    for _ in 0..3 {
        clock.advance(Duration::from_secs(20));
        store.heartbeat(made.runner, &[reference(&first)], clock.now()).await.unwrap();
        assert!(store.expire_leases(clock.now()).await.unwrap().is_empty());
    }
    clock.advance(A_LEASE);
    assert_eq!(store.expire_leases(clock.now()).await.unwrap().len(), 1);
    assert!(store.log_state(of(&first)).await.unwrap().unwrap().complete);
    let view = store.run(id).await.unwrap().unwrap();
    assert_eq!(view.jobs[0].status, Status::Queued);
    assert_eq!(view.jobs[0].reason.as_ref().unwrap().code, "offered_again");
    assert_eq!(view.jobs[0].attempts[0].reason.as_ref().unwrap().code, "runner_lost");
    let second = claim(store, clock, made.runner).await;
    clock.advance(A_LEASE);
    assert_eq!(store.expire_leases(clock.now()).await.unwrap(), [of(&second)]);
    let view = store.run(id).await.unwrap().unwrap();
    assert_eq!(view.run.conclusion, Some(Conclusion::Error));
    assert_eq!(view.jobs[0].reason.as_ref().unwrap().code, "runner_lost");
}

/// A runner that was away may still append to the log of the attempt that was ended without it, for
/// a while, and to nothing else.
pub async fn the_log_of_a_lost_attempt_is_taken_for_a_while<S: Store>(
    store: &S,
    clock: &ManualClock,
) {
    let made = setup(store, clock).await;
    let id = one_job(store, clock, made.repo).await;
    let old = claim(store, clock, made.runner).await;
    let may = async |runner, claimed| store.may_append(runner, of(claimed), clock.now()).await;
    assert_eq!(may(made.runner, &old).await.unwrap(), Appends::InWork);
    assert_eq!(store.log_state(of(&old)).await.unwrap().unwrap().late_until, None);
    clock.advance(A_LEASE);
    store.expire_leases(clock.now()).await.unwrap();
    assert_eq!(may(made.runner, &old).await.unwrap(), Appends::Late);
    let state = store.log_state(of(&old)).await.unwrap().unwrap();
    assert_eq!((state.complete, state.late_until), (true, Some(clock.now() + LATE_LOG)));
    let other = runner(store, clock, "two", &[]).await;
    is_conflict(may(other, &old).await, "stale_epoch");
    // The newer attempt is another's, and stays as it is.
    let new = claim(store, clock, other).await;
    assert_eq!(may(made.runner, &old).await.unwrap(), Appends::Late);
    is_conflict(may(made.runner, &new).await, "stale_epoch");
    store.report_log(of(&old), 700, &[(1, 2)], clock.now()).await.unwrap();
    let view = store.run(id).await.unwrap().unwrap();
    let bytes: Vec<_> = view.jobs[0].attempts.iter().map(|attempt| attempt.log_bytes).collect();
    assert_eq!((bytes, view.jobs[0].steps[0].first_line), (vec![700, 0], None));
    // What its own runner has ended is over at once.
    store
        .finish_attempt(other, of(&new), end(Conclusion::Success, clock), clock.now())
        .await
        .unwrap();
    is_conflict(may(other, &new).await, "stale_epoch");
    assert_eq!(store.log_state(of(&new)).await.unwrap().unwrap().late_until, None);
    clock.advance(LATE_LOG);
    is_conflict(may(made.runner, &old).await, "stale_epoch");
}

/// A job marked `once` is never offered again after a lost runner.
pub async fn a_once_job_is_never_offered_again<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let id = run(store, clock, made.repo, vec![job("ship", |spec| spec.once = true)]).await;
    claim(store, clock, made.runner).await;
    clock.advance(A_LEASE);
    store.expire_leases(clock.now()).await.unwrap();
    assert!(
        store.claim_jobs(made.runner, RequestId::new(), 1, clock.now()).await.unwrap().is_empty()
    );
    assert_eq!(store.run(id).await.unwrap().unwrap().run.conclusion, Some(Conclusion::Error));
}

/// After a start of the server nobody's lease runs out at once.
pub async fn a_restart_of_the_server_extends_every_lease<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    one_job(store, clock, made.repo).await;
    claim(store, clock, made.runner).await;
    clock.advance(A_LEASE);
    store.extend_all_leases(clock.now()).await.unwrap();
    assert!(store.expire_leases(clock.now()).await.unwrap().is_empty());
}

/// Steps are shown as reported; when the attempt ends none is left open.
pub async fn steps_end_with_their_attempt<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let three = |spec: &mut pipeyard_model::plan::JobSpec| {
        let step = spec.steps[0].clone();
        spec.steps = vec![step.clone(), step.clone(), step];
    };
    let id = run(store, clock, made.repo, vec![job("test", three)]).await;
    let claimed = claim(store, clock, made.runner).await;
    let done = StepEnd { at: clock.now(), conclusion: Conclusion::Success, exit_code: Some(0) };
    let steps = [
        StepReport { step: 1, started_at: clock.now(), finished: Some(done) },
        StepReport { step: 2, started_at: clock.now(), finished: None },
    ];
    for _ in 0..2 {
        store.report_steps(made.runner, of(&claimed), &steps, clock.now()).await.unwrap();
    }
    // A report of the end that knows the start no better doesn't move it.
    clock.advance(Duration::from_secs(5));
    let mut late = steps[0].clone();
    late.started_at = clock.now();
    store.report_steps(made.runner, of(&claimed), &[late], clock.now()).await.unwrap();
    let first = store.run(id).await.unwrap().unwrap().jobs[0].steps[0].started_at;
    assert_eq!(first, Some(steps[0].started_at));
    store.report_log(of(&claimed), 500, &[(1, 1), (2, 7)], clock.now()).await.unwrap();
    store.report_log(of(&claimed), 400, &[(2, 9)], clock.now()).await.unwrap();
    let view = store.run(id).await.unwrap().unwrap();
    let shown: Vec<_> = view.jobs[0].steps.iter().map(|s| (s.status, s.first_line)).collect();
    assert_eq!(
        shown,
        [(Status::Finished, Some(1)), (Status::Running, Some(7)), (Status::Queued, None)],
        "a first line is the first for ever"
    );
    assert_eq!(view.jobs[0].attempts[0].log_bytes, 500, "a length never shrinks");
    let bad = [StepReport { step: 4, started_at: clock.now(), finished: None }];
    is_conflict(
        store.report_steps(made.runner, of(&claimed), &bad, clock.now()).await,
        "no_such_step",
    );
    let failure = end(Conclusion::Failure, clock);
    store.finish_attempt(made.runner, of(&claimed), failure, clock.now()).await.unwrap();
    let view = store.run(id).await.unwrap().unwrap();
    let shown: Vec<_> = view.jobs[0].steps.iter().map(|s| s.conclusion.unwrap()).collect();
    assert_eq!(shown, [Conclusion::Success, Conclusion::Failure, Conclusion::Skipped]);
}
