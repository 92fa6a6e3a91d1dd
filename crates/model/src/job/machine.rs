//! How a node moves: state x event -> state, with what has to be written beside it.

use super::{Cancel, Effect, InvalidTransition, Job, JobEvent, JobState, Kind, LOSSES, Reason};
use crate::{Conclusion, Epoch, Timestamp};

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
            (S::Running { cancel, .. }, E::HandedBack { reason }) => {
                next.return_attempt(cancel.is_some(), reason, now)
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

    /// Nothing of the job was begun, so the attempt counts neither as failed nor as lost.
    fn return_attempt(
        &mut self,
        cancelled_before: bool,
        reason: &Reason,
        now: Timestamp,
    ) -> Vec<Effect> {
        let (conclusion, why) = if cancelled_before {
            (Conclusion::Cancelled, cancelled())
        } else {
            (Conclusion::Skipped, reason.clone())
        };
        let mut effects = vec![Effect::AttemptClosed {
            epoch: self.epoch,
            conclusion,
            reason: Some(why.clone()),
        }];
        effects.extend(if cancelled_before {
            self.settle(conclusion, Some(why), now)
        } else {
            self.offer(why)
        });
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
#[path = "machine_tests.rs"]
mod tests;
