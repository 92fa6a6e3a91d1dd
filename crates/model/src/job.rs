//! The life of a node of a run: a job that runners execute, or a deploy that the server drives.
//!
//! [`Job::apply`] is the only way to change a node. It is pure: it takes the event and the present,
//! and answers the next state and what has to be written beside it. Invariants:
//! - the epoch only rises, and only a claim or the start of a deployment raises it;
//! - a finished node changes only by [`JobEvent::Rerun`];
//! - an attempt that somebody cancelled never counts as a success.
//!
//! Absent: needs (the caller looks at the graph and sends `NeedsMet` or `NeedFailed`), labels,
//! steps and logs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Conclusion, Epoch, NodeName, RunnerId, Status, Timestamp, UserId};

/// How often a job is offered again after a runner was lost.
pub const LOSSES: u32 = 1;

/// A stable code with a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// For programs: `runner_lost`, `step_failed`, `waiting_for_runner`, ...
    pub code: String,
    /// What, why and the fix.
    pub message: String,
}

impl Reason {
    /// A reason of this code and sentence.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }
}

/// Who executes a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A runner that claims it.
    Job {
        /// How often a failed attempt is tried again by itself.
        retry: u32,
        /// Never offered again after a lost runner.
        once: bool,
    },
    /// The server, as a deployment.
    Deploy,
}

/// A node of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Who executes it.
    pub kind: Kind,
    /// The present or last attempt, 0 before the first.
    pub epoch: Epoch,
    /// Attempts that failed by themselves since the node was last (re)started by a person.
    pub failures: u32,
    /// Attempts whose runner was lost, likewise.
    pub losses: u32,
    /// Where it stands.
    pub state: JobState,
}

/// Where a node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// Its run waits for a person's approval.
    Held,
    /// It waits for what it needs.
    Waiting,
    /// It may be claimed, or its deployment started.
    Ready {
        /// Why it is still here.
        reason: Reason,
    },
    /// A runner works on it.
    Running {
        /// Which one.
        runner: RunnerId,
        /// The runner is lost if it hasn't spoken by then.
        lease_until: Timestamp,
        /// Somebody wants it to end.
        cancel: Option<Cancel>,
    },
    /// Its deployment is on its way.
    Deploying {
        /// Number of the deployment.
        deployment: i64,
        /// Where the deployment stands.
        progress: Option<Reason>,
        /// Somebody wants it to end.
        cancel: Option<Cancel>,
    },
    /// Over.
    Finished {
        /// How.
        conclusion: Conclusion,
        /// Why, unless it is a success.
        reason: Option<Reason>,
        /// When.
        at: Timestamp,
    },
}

/// Somebody's wish that it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancel {
    /// Whose.
    pub by: UserId,
    /// Since when.
    pub at: Timestamp,
}

/// What can happen to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// A person approved its run.
    Approved,
    /// Everything that it needs succeeded.
    NeedsMet,
    /// Something that it needs ended otherwise.
    NeedFailed {
        /// What.
        need: NodeName,
    },
    /// A runner claimed it.
    Claimed {
        /// Which one.
        runner: RunnerId,
        /// End of the lease.
        lease_until: Timestamp,
    },
    /// The runner spoke.
    Renewed {
        /// New end of the lease.
        lease_until: Timestamp,
    },
    /// The runner says that the attempt ended.
    Ended {
        /// How.
        conclusion: Conclusion,
        /// Why, unless it is a success.
        reason: Option<Reason>,
    },
    /// The lease ran out, the runner restarted, or it was removed.
    RunnerLost,
    /// A person wants it to end.
    Cancelled {
        /// Who.
        by: UserId,
    },
    /// Why it is still queued, for people.
    WaitExplained {
        /// Why.
        reason: Reason,
    },
    /// The deploy's deployment was stored.
    DeployStarted {
        /// Its number.
        deployment: i64,
    },
    /// Where the deployment stands, for people.
    DeployProgress {
        /// Where.
        reason: Reason,
    },
    /// The deployment is over.
    DeployEnded {
        /// How.
        conclusion: Conclusion,
        /// Why, unless it is a success.
        reason: Option<Reason>,
    },
    /// A person wants it run again.
    Rerun,
}

/// What has to be written besides the node's own state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A new attempt began.
    AttemptOpened {
        /// Which.
        epoch: Epoch,
        /// Whose.
        runner: RunnerId,
    },
    /// An attempt is over.
    AttemptClosed {
        /// Which.
        epoch: Epoch,
        /// How it ended.
        conclusion: Conclusion,
        /// Why.
        reason: Option<Reason>,
    },
    /// Runners, or the deploy task, should look.
    Offered,
    /// Heartbeats, or the deploy task, should tell whoever works on it to end.
    CancelAsked,
    /// The node is over: look at what needs it.
    Settled {
        /// How it ended.
        conclusion: Conclusion,
    },
}

/// The event can't happen in this state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {from} can't be {event}")]
pub struct InvalidTransition {
    /// The state's word.
    pub from: &'static str,
    /// The event's word.
    pub event: &'static str,
}

impl JobState {
    /// The word for it in rows.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Waiting => "waiting",
            Self::Ready { .. } => "ready",
            Self::Running { .. } => "running",
            Self::Deploying { .. } => "deploying",
            Self::Finished { .. } => "finished",
        }
    }

    /// The status that people see.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Held | Self::Waiting | Self::Ready { .. } => Status::Queued,
            Self::Running { .. } | Self::Deploying { .. } => Status::Running,
            Self::Finished { .. } => Status::Finished,
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl JobEvent {
    /// The word for it in messages.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::NeedsMet => "offered",
            Self::NeedFailed { .. } => "skipped",
            Self::Claimed { .. } => "claimed",
            Self::Renewed { .. } => "renewed",
            Self::Ended { .. } => "ended by a runner",
            Self::RunnerLost => "lost",
            Self::Cancelled { .. } => "cancelled",
            Self::WaitExplained { .. } => "explained",
            Self::DeployStarted { .. } => "started as a deployment",
            Self::DeployProgress { .. } => "moved on as a deployment",
            Self::DeployEnded { .. } => "ended as a deployment",
            Self::Rerun => "run again",
        }
    }
}

impl Job {
    /// A node that was just created.
    #[must_use]
    pub fn new(kind: Kind, held: bool) -> Self {
        let state = if held { JobState::Held } else { JobState::Waiting };
        Self { kind, epoch: Epoch(0), failures: 0, losses: 0, state }
    }

    /// The state after `event`, and what has to be written beside it.
    ///
    /// # Errors
    /// When the event can't happen in this state; the node is then as it was.
    pub fn apply(
        &self,
        event: &JobEvent,
        now: Timestamp,
    ) -> Result<(Self, Vec<Effect>), InvalidTransition> {
        use JobEvent as E;
        use JobState as S;
        let mut next = self.clone();
        let effects = match (&self.state, event) {
            (S::Held, E::Approved) => {
                next.state = S::Waiting;
                vec![]
            }
            (S::Waiting, E::NeedsMet) => next.offer(self.first_wait()),
            (S::Held | S::Waiting, E::NeedFailed { need }) => {
                let why =
                    Reason::new("need_failed", format!("{need}, which this needs, didn't succeed"));
                next.settle(Conclusion::Skipped, Some(why), now)
            }
            (S::Ready { .. }, E::Claimed { runner, lease_until }) if self.is_job() => {
                next.epoch = Epoch(self.epoch.0 + 1);
                next.state =
                    S::Running { runner: *runner, lease_until: *lease_until, cancel: None };
                vec![Effect::AttemptOpened { epoch: next.epoch, runner: *runner }]
            }
            (S::Ready { .. }, E::WaitExplained { reason }) => {
                next.state = S::Ready { reason: reason.clone() };
                vec![]
            }
            (S::Running { runner, cancel, .. }, E::Renewed { lease_until }) => {
                next.state =
                    S::Running { runner: *runner, lease_until: *lease_until, cancel: *cancel };
                vec![]
            }
            (S::Running { cancel, .. }, E::Ended { conclusion, reason }) => {
                next.end_attempt(cancel.is_some(), *conclusion, reason.clone(), now)
            }
            (S::Running { cancel, .. }, E::RunnerLost) => next.lose_attempt(cancel.is_some(), now),
            (S::Held | S::Waiting | S::Ready { .. }, E::Cancelled { .. }) => {
                next.settle(Conclusion::Cancelled, Some(cancelled()), now)
            }
            (S::Running { runner, lease_until, cancel: None }, E::Cancelled { by }) => {
                let cancel = Some(Cancel { by: *by, at: now });
                next.state = S::Running { runner: *runner, lease_until: *lease_until, cancel };
                vec![Effect::CancelAsked]
            }
            (S::Deploying { deployment, progress, cancel: None }, E::Cancelled { by }) => {
                let cancel = Some(Cancel { by: *by, at: now });
                next.state =
                    S::Deploying { deployment: *deployment, progress: progress.clone(), cancel };
                vec![Effect::CancelAsked]
            }
            // Asked before: nothing new.
            (
                S::Running { cancel: Some(_), .. } | S::Deploying { cancel: Some(_), .. },
                E::Cancelled { .. },
            ) => {
                vec![]
            }
            (S::Ready { .. }, E::DeployStarted { deployment }) if !self.is_job() => {
                next.epoch = Epoch(self.epoch.0 + 1);
                next.state = S::Deploying { deployment: *deployment, progress: None, cancel: None };
                vec![]
            }
            (S::Deploying { deployment, cancel, .. }, E::DeployProgress { reason }) => {
                let progress = Some(reason.clone());
                next.state = S::Deploying { deployment: *deployment, progress, cancel: *cancel };
                vec![]
            }
            // A deploy may also end before it starts: what it should ship isn't there.
            (S::Deploying { .. }, E::DeployEnded { conclusion, reason }) => {
                next.settle(*conclusion, reason.clone(), now)
            }
            (S::Ready { .. }, E::DeployEnded { conclusion, reason }) if !self.is_job() => {
                next.settle(*conclusion, reason.clone(), now)
            }
            (S::Ready { .. }, E::DeployProgress { reason }) if !self.is_job() => {
                next.state = S::Ready { reason: reason.clone() };
                vec![]
            }
            (S::Finished { .. }, E::Rerun) => {
                next.state = S::Waiting;
                next.failures = 0;
                next.losses = 0;
                vec![]
            }
            (
                S::Held
                | S::Waiting
                | S::Ready { .. }
                | S::Running { .. }
                | S::Deploying { .. }
                | S::Finished { .. },
                _, // the matrix in the tests shows every pair
            ) => return Err(InvalidTransition { from: self.state.word(), event: event.word() }),
        };
        Ok((next, effects))
    }

    const fn is_job(&self) -> bool {
        matches!(self.kind, Kind::Job { .. })
    }

    fn first_wait(&self) -> Reason {
        if self.is_job() {
            Reason::new("waiting_for_runner", "waits for a free runner")
        } else {
            Reason::new("waiting_for_deployment", "waits for its deployment to be started")
        }
    }

    fn offer(&mut self, reason: Reason) -> Vec<Effect> {
        self.state = JobState::Ready { reason };
        vec![Effect::Offered]
    }

    fn settle(
        &mut self,
        conclusion: Conclusion,
        reason: Option<Reason>,
        at: Timestamp,
    ) -> Vec<Effect> {
        self.state = JobState::Finished { conclusion, reason, at };
        vec![Effect::Settled { conclusion }]
    }

    fn end_attempt(
        &mut self,
        cancelled_before: bool,
        conclusion: Conclusion,
        reason: Option<Reason>,
        now: Timestamp,
    ) -> Vec<Effect> {
        let (conclusion, reason) = match conclusion {
            _ if cancelled_before => (Conclusion::Cancelled, Some(cancelled())),
            Conclusion::Success => (conclusion, None),
            other => (other, reason),
        };
        let mut effects =
            vec![Effect::AttemptClosed { epoch: self.epoch, conclusion, reason: reason.clone() }];
        let retry = match self.kind {
            Kind::Job { retry, .. } => retry,
            Kind::Deploy => 0,
        };
        let failed =
            matches!(conclusion, Conclusion::Failure | Conclusion::Error | Conclusion::TimedOut);
        if failed && self.failures < retry {
            self.failures += 1;
            let left = retry - self.failures;
            let why = format!("attempt {} failed; tried again, {left} more after this", self.epoch);
            effects.extend(self.offer(Reason::new("retrying", why)));
        } else {
            effects.extend(self.settle(conclusion, reason, now));
        }
        effects
    }

    fn lose_attempt(&mut self, cancelled_before: bool, now: Timestamp) -> Vec<Effect> {
        if cancelled_before {
            let reason = Some(cancelled());
            let conclusion = Conclusion::Cancelled;
            let closed =
                Effect::AttemptClosed { epoch: self.epoch, conclusion, reason: reason.clone() };
            let mut effects = vec![closed];
            effects.extend(self.settle(conclusion, reason, now));
            return effects;
        }
        let lost = Reason::new(
            "runner_lost",
            format!(
                "the runner of attempt {} was not heard of for the length of its lease",
                self.epoch
            ),
        );
        let mut effects = vec![Effect::AttemptClosed {
            epoch: self.epoch,
            conclusion: Conclusion::Error,
            reason: Some(lost.clone()),
        }];
        let once = matches!(self.kind, Kind::Job { once: true, .. } | Kind::Deploy);
        if once || self.losses >= LOSSES {
            effects.extend(self.settle(Conclusion::Error, Some(lost), now));
        } else {
            self.losses += 1;
            let why = format!("the runner of attempt {} was lost; offered again", self.epoch);
            effects.extend(self.offer(Reason::new("offered_again", why)));
        }
        effects
    }
}

fn cancelled() -> Reason {
    Reason::new("cancelled", "a person cancelled it")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

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
        JobEvent::Ended {
            conclusion,
            reason: (!conclusion.is_success()).then(|| why("step_failed")),
        }
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
                let _ =
                    writeln!(matrix, "  {state}{}", if cancel { " (cancel asked)" } else { "" });
                for event in events() {
                    let before =
                        Job { kind, epoch: Epoch(1), failures: 0, losses: 0, state: state.clone() };
                    let name = match &event {
                        JobEvent::Ended { conclusion, .. } => format!("ended {conclusion}"),
                        other => format!("{other:?}")
                            .split([' ', '{'])
                            .next()
                            .unwrap_or_default()
                            .to_owned(),
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
        let (over, _) =
            after(&job(3, true), &[JobEvent::NeedsMet, claimed(), JobEvent::RunnerLost]);
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
            assert!(matches!(
                over.state,
                JobState::Finished { conclusion: Conclusion::Cancelled, .. }
            ));
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
}
