//! What attempts say of their tests.

use pipeyard_api::{
    runner::{StepEnd, StepReport},
    test_report::{FailedTest, Failing, TestCounts, TestReport},
};
use pipeyard_model::{Actor, AttemptId, Clock as _, Conclusion, Epoch, ManualClock, UserId};

use super::{
    claims::{end, is_conflict, of},
    make::{claim, one_job, runner, setup},
};
use crate::Store;

fn report(passed: u32, failed: u32) -> TestReport {
    let counts = TestCounts { passed, failed, duration_ms: 1500, ..TestCounts::default() };
    let failure = |n| FailedTest {
        suite: "cart".into(),
        name: format!("test {n}"),
        class: None,
        file: Some("cart.rs".into()),
        line: Some(7),
        how: Failing::Failed,
        message: "80 is not 90".into(),
        details: "at cart.rs:7\nat main".into(),
        output: String::new(),
        cut: false,
        duration_ms: 3,
    };
    let failures = (0..failed).map(failure).collect();
    TestReport { counts, files: 1, failures, ..TestReport::default() }
}

/// Only the runner that holds the job tells its tests; the last word counts.
pub async fn the_present_attempt_tells_its_tests<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let other = runner(store, clock, "two", &[]).await;
    let run = one_job(store, clock, made.repo).await;
    let attempt = of(&claim(store, clock, made.runner).await);
    let now = clock.now();
    assert_eq!(store.test_report(attempt).await.unwrap(), None);
    for told in [report(1, 0), report(2, 1)] {
        store.report_tests(made.runner, attempt, told, now).await.unwrap();
    }
    let late = AttemptId { epoch: Epoch(attempt.epoch.0 + 1), ..attempt };
    for (runner, attempt) in [(other, attempt), (made.runner, late)] {
        let refused = store.report_tests(runner, attempt, report(9, 0), now).await;
        is_conflict(refused, "stale_epoch");
    }
    let success = end(Conclusion::Success, clock);
    store.finish_attempt(made.runner, attempt, success, now).await.unwrap();
    let refused = store.report_tests(made.runner, attempt, report(9, 0), now).await;
    is_conflict(refused, "stale_epoch");
    assert_eq!(store.test_report(attempt).await.unwrap(), Some(report(2, 1)));
    let run = store.run(run).await.unwrap().unwrap();
    let summary = run.jobs[0].tests.unwrap();
    assert_eq!((summary.counts, summary.problems), (report(2, 1).counts, 0));
}

/// A new attempt begins without tests and steps; those of the one before stay with it.
pub async fn every_attempt_keeps_its_tests_and_steps<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let run = one_job(store, clock, made.repo).await;
    let first = of(&claim(store, clock, made.runner).await);
    let now = clock.now();
    let finished = StepEnd { at: now, conclusion: Conclusion::Failure, exit_code: Some(3) };
    let step = StepReport { step: 1, started_at: now, finished: Some(finished) };
    store.report_steps(made.runner, first, &[step], now).await.unwrap();
    store.report_log(first, 100, &[(1, 4)], now).await.unwrap();
    store.report_tests(made.runner, first, report(1, 1), now).await.unwrap();
    let failure = end(Conclusion::Failure, clock);
    store.finish_attempt(made.runner, first, failure, now).await.unwrap();
    store.rerun(run, false, Actor::user(UserId::new()), now).await.unwrap();
    claim(store, clock, made.runner).await;
    let job = store.run(run).await.unwrap().unwrap().jobs.remove(0);
    assert_eq!((job.tests, job.steps[0].first_line, job.steps[0].exit_code), (None, None, None));
    let [before, present] = &job.attempts[..] else { panic!("{:?}", job.attempts) };
    assert_eq!(before.tests.map(|tests| tests.counts), Some(report(1, 1).counts));
    let step = &before.steps[0];
    assert_eq!((step.exit_code, step.first_line), (Some(3), Some(4)));
    assert_eq!(step.conclusion, Some(Conclusion::Failure));
    assert_eq!(present.tests, None);
    assert_eq!(present.steps[0].conclusion, None);
}
