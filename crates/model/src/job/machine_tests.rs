//! Every state and event of a node, as a reviewer reads it.

use std::fmt::Write as _;

use super::*;
use crate::{NodeName, RunnerId, UserId};

const NOW: Timestamp = Timestamp(100);
const LATER: Timestamp = Timestamp(200);
const RUNNER: RunnerId = RunnerId(uuid::Uuid::nil());
const USER: UserId = UserId(uuid::Uuid::nil());

fn job(retry: u32, once: bool) -> Job {
    Job::new(Kind::Job { retry, once }, false)
}

fn why(code: &str) -> Reason {
    Reason::new(code, code)
}

fn after(job: &Job, events: &[JobEvent]) -> (Job, Vec<Effect>) {
    events.iter().fold((job.clone(), vec![]), |(job, _), event| job.apply(event, NOW).unwrap())
}

fn claimed() -> JobEvent {
    JobEvent::Claimed { runner: RUNNER, lease_until: LATER }
}

fn ended(conclusion: Conclusion) -> JobEvent {
    JobEvent::Ended { conclusion, reason: (!conclusion.is_success()).then(|| why("step_failed")) }
}

fn states() -> Vec<JobState> {
    let cancel = Some(Cancel { by: USER, at: NOW });
    vec![
        JobState::Held,
        JobState::Waiting,
        JobState::Ready { reason: why("waiting_for_runner") },
        JobState::Running { runner: RUNNER, lease_until: LATER, cancel: None },
        JobState::Running { runner: RUNNER, lease_until: LATER, cancel },
        JobState::Deploying { deployment: 7, progress: None, cancel: None },
        JobState::Deploying { deployment: 7, progress: None, cancel },
        JobState::Finished { conclusion: Conclusion::Failure, reason: None, at: NOW },
    ]
}

fn events() -> Vec<JobEvent> {
    vec![
        JobEvent::Approved,
        JobEvent::NeedsMet,
        JobEvent::NeedFailed { need: NodeName::new("test").unwrap() },
        claimed(),
        JobEvent::Renewed { lease_until: LATER },
        ended(Conclusion::Success),
        ended(Conclusion::Failure),
        JobEvent::HandedBack { reason: why("handed_back") },
        JobEvent::RunnerLost,
        JobEvent::Cancelled { by: USER },
        JobEvent::WaitExplained { reason: why("no_runner") },
        JobEvent::DeployStarted { deployment: 7 },
        JobEvent::DeployProgress { reason: why("waiting_for_approval") },
        JobEvent::DeployEnded { conclusion: Conclusion::Success, reason: None },
        JobEvent::Rerun,
    ]
}

fn short(effect: &Effect) -> String {
    match effect {
        Effect::AttemptOpened { epoch, .. } => format!("open {epoch}"),
        Effect::AttemptClosed { epoch, conclusion, .. } => {
            format!("close {epoch} {conclusion}")
        }
        Effect::Offered => "offer".into(),
        Effect::CancelAsked => "ask to end".into(),
        Effect::Settled { conclusion } => format!("settle {conclusion}"),
    }
}

#[test]
fn the_matrix_of_states_and_events() {
    let mut matrix = String::new();
    for kind in [Kind::Job { retry: 0, once: false }, Kind::Deploy] {
        let _ = writeln!(matrix, "{kind:?}");
        for state in states() {
            let cancel = matches!(
                state,
                JobState::Running { cancel: Some(_), .. }
                    | JobState::Deploying { cancel: Some(_), .. }
            );
            let possible = match (&state, kind) {
                (JobState::Running { .. }, Kind::Deploy)
                | (JobState::Deploying { .. }, Kind::Job { .. }) => false,
                (
                    JobState::Held
                    | JobState::Waiting
                    | JobState::Ready { .. }
                    | JobState::Running { .. }
                    | JobState::Deploying { .. }
                    | JobState::Finished { .. },
                    _,
                ) => true,
            };
            if !possible {
                continue;
            }
            let _ = writeln!(matrix, "  {state}{}", if cancel { " (cancel asked)" } else { "" });
            for event in events() {
                let before =
                    Job { kind, epoch: Epoch(1), failures: 0, losses: 0, state: state.clone() };
                let name = match &event {
                    JobEvent::Ended { conclusion, .. } => format!("ended {conclusion}"),
                    other => {
                        format!("{other:?}").split([' ', '{']).next().unwrap_or_default().to_owned()
                    }
                };
                let answer = match before.apply(&event, NOW) {
                    Ok((next, effects)) => {
                        let effects: Vec<_> = effects.iter().map(short).collect();
                        format!("{} [{}]", next.state, effects.join(", "))
                    }
                    Err(_) => "-".into(),
                };
                let _ = writeln!(matrix, "    {name:<16} {answer}");
            }
        }
    }
    insta::assert_snapshot!(matrix);
}

#[test]
fn a_lost_runner_is_forgiven_once() {
    let (again, effects) =
        after(&job(0, false), &[JobEvent::NeedsMet, claimed(), JobEvent::RunnerLost]);
    assert_eq!(again.state.word(), "ready");
    assert!(effects.contains(&Effect::Offered));
    let (over, _) = after(&again, &[claimed(), JobEvent::RunnerLost]);
    assert!(matches!(over.state, JobState::Finished { conclusion: Conclusion::Error, .. }));
    assert_eq!(over.epoch, Epoch(2));
}

#[test]
fn a_job_marked_once_is_never_offered_again_after_a_lost_runner() {
    let (over, _) = after(&job(3, true), &[JobEvent::NeedsMet, claimed(), JobEvent::RunnerLost]);
    assert!(matches!(over.state, JobState::Finished { conclusion: Conclusion::Error, .. }));
}

#[test]
fn a_failed_job_is_tried_again_as_often_as_it_asks() {
    let failed = ended(Conclusion::Failure);
    let (mut job, _) = after(&job(2, false), &[JobEvent::NeedsMet]);
    for _ in 0..2 {
        job = after(&job, &[claimed(), failed.clone()]).0;
        assert_eq!(job.state.word(), "ready");
    }
    let (over, _) = after(&job, &[claimed(), failed]);
    assert!(matches!(over.state, JobState::Finished { conclusion: Conclusion::Failure, .. }));
    assert_eq!(over.epoch, Epoch(3));
}

#[test]
fn a_success_that_comes_after_the_cancel_is_cancelled() {
    let cancel = JobEvent::Cancelled { by: USER };
    for end in [ended(Conclusion::Success), ended(Conclusion::Failure), JobEvent::RunnerLost] {
        let (over, effects) =
            after(&job(5, false), &[JobEvent::NeedsMet, claimed(), cancel.clone(), end]);
        assert!(matches!(over.state, JobState::Finished { conclusion: Conclusion::Cancelled, .. }));
        assert!(effects.contains(&Effect::Settled { conclusion: Conclusion::Cancelled }));
    }
}

#[test]
fn a_rerun_keeps_the_epoch_and_forgets_failures() {
    let (over, _) =
        after(&job(0, false), &[JobEvent::NeedsMet, claimed(), ended(Conclusion::Failure)]);
    let (again, _) = after(&over, &[JobEvent::Rerun, JobEvent::NeedsMet, claimed()]);
    assert_eq!((again.epoch, again.failures, again.losses), (Epoch(2), 0, 0));
}

#[test]
fn an_attempt_that_was_handed_back_costs_nothing() {
    let running = after(&job(1, true), &[JobEvent::NeedsMet, claimed()]);
    let mut node = running.0;
    for _ in 0..5 {
        let back = JobEvent::HandedBack { reason: why("handed_back") };
        node = after(&node, &[back, claimed()]).0;
    }
    assert_eq!((node.failures, node.losses, node.epoch), (0, 0, Epoch(6)));
    // Its one retry is still there.
    let (again, _) = after(&node, &[ended(Conclusion::Failure)]);
    assert!(matches!(again.state, JobState::Ready { .. }), "{:?}", again.state);
}
