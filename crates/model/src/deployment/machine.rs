//! How a deployment moves: state x event -> state, with what is to be told about it.

use std::time::Duration;

use super::{
    Answer, Approval, Deployment, Intent, Outcome, Reason, Replaced, Return, Shift, Started, State,
    Trouble, Verdict, short, strategy_text,
};
use crate::{
    DeploymentId, IntentId, Timestamp,
    environment::Given,
    plan::{Otherwise, Strategy},
};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A person approves.
    Approved {
        /// Who, and what they said.
        given: Given,
        /// What is still missing; nothing when it may start.
        missing: Option<Reason>,
    },
    /// The environment asks for approvals that aren't there, also of one that was approved.
    ApprovalMissing(Reason),
    /// The environment asks for no approval that isn't there.
    ApprovalMet,
    /// A person ends it: before its start for good, after it by going back.
    Aborted {
        /// Who.
        by: String,
        /// What they said.
        comment: Option<String>,
    },
    /// A person ends the judging: all traffic to the new release.
    Promoted {
        /// Who.
        by: String,
        /// What they said.
        comment: Option<String>,
    },
    /// A newer one takes its place.
    Superseded {
        /// The newer one.
        by: DeploymentId,
    },
    /// Nobody approved in time.
    Expired,
    /// It still waits, and why.
    Waits(Reason),
    /// Nothing is before it any more.
    TurnCame {
        /// The token that it gets.
        token: IntentId,
        /// What serves now.
        replaces: Option<Replaced>,
    },
    /// It can't be carried out.
    Refused(Reason),
    /// The provider has it: it answered, or its token was found.
    Created {
        /// The provider's id.
        provider: String,
        /// Found by its token, not answered.
        adopted: bool,
    },
    /// The provider's answer never came, or was not one.
    Lost {
        /// What was seen instead.
        problem: String,
    },
    /// The token is proven absent; the provider is asked again.
    Absent,
    /// The provider's only place is taken by something that isn't ours.
    Busy {
        /// The provider's id of it.
        provider: String,
    },
    /// The new release is healthy and waits for traffic.
    Ready,
    /// The proxy confirmed the weight.
    WeightSet,
    /// Users' requests may have reached the new release.
    TrafficBegan,
    /// The step was watched on fresh data for so long.
    Watched {
        /// Since the last time.
        by: Duration,
    },
    /// The step's time is over on enough data, and nothing spoke against it.
    StepPassed {
        /// What the judge says, for the last step.
        verdict: Verdict,
    },
    /// The judge decided against it.
    Judged(Verdict),
    /// The provider finished it.
    ProviderSucceeded,
    /// The provider ended it otherwise: failed, stopped, out of time.
    ProviderEnded {
        /// In the provider's words.
        problem: String,
        /// The provider's own deployment that restores the old release.
        successor: Option<String>,
    },
    /// The provider's own deployment that restores the old release was seen.
    SuccessorSeen {
        /// The provider's id.
        provider: String,
    },
    /// The old release has all traffic again.
    Restored,
    /// The return is complete.
    Returned,
    /// There is nothing to go back to, and the new release is gone.
    NothingBefore,
    /// The old release could not be brought back.
    ReturnFailed {
        /// Why.
        problem: String,
    },
    /// The provider or the proxy doesn't answer, or refuses; it is asked again.
    Troubled {
        /// What came of asking.
        problem: Reason,
        /// When it is asked no more.
        until: Timestamp,
    },
    /// The provider answers again; nothing when it always did.
    Answers,
    /// The provider didn't answer until the end of our patience.
    GaveUp {
        /// What came of asking, and for how long.
        problem: String,
    },
}

/// A deployment after an event, and what to tell about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The deployment; its version is raised.
    pub next: Deployment,
    /// For the timeline.
    pub entries: Vec<Entry>,
}

/// A line of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// A person's name, or `pipeyard`, `provider`, `judge`.
    pub who: String,
    /// Stable.
    pub code: &'static str,
    /// In words.
    pub message: String,
}

/// The event doesn't fit the state; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Stable: `deployment_finished`, `not_waiting_for_approval`, ...
    pub code: &'static str,
    /// What, why and the fix.
    pub message: String,
}

impl Deployment {
    /// The first line of its timeline.
    #[must_use]
    pub fn requested(&self) -> Entry {
        let release = &self.release;
        let commit = release.commit.get(..9).unwrap_or(&release.commit);
        let message = format!(
            "asked for {} of {} at {commit} to {}/{}",
            strategy_text(&self.strategy),
            release.repo_name,
            self.environment,
            self.service
        );
        Entry { who: self.requested_by.clone(), code: "requested", message }
    }

    /// What follows from `event`.
    ///
    /// # Errors
    /// When the event doesn't fit the state; the deployment is as it was.
    pub fn apply(&self, event: Event, now: Timestamp) -> Result<Applied, Refusal> {
        let mut step = Step { d: self.clone(), entries: Vec::new(), now };
        step.d.version += 1;
        step.take(event)?;
        Ok(Applied { next: step.d, entries: step.entries })
    }
}

struct Step {
    d: Deployment,
    entries: Vec<Entry>,
    now: Timestamp,
}

const US: &str = "pipeyard";

impl Step {
    #[expect(clippy::too_many_lines, reason = "the whole table in one place is the point")]
    fn take(&mut self, event: Event) -> Result<(), Refusal> {
        match (self.d.state.clone(), event) {
            // Before the start.
            (State::AwaitingApproval, Event::Approved { given, missing }) => {
                self.approved(given, missing);
            }
            (State::AwaitingApproval | State::Queued, Event::ApprovalMissing(reason)) => {
                if self.d.state == State::Queued {
                    self.say(US, "approval_missing", reason.message.clone());
                }
                self.d.approval = Approval::Needed;
                self.d.reason = Some(reason);
                self.d.state = State::AwaitingApproval;
            }
            (State::AwaitingApproval, Event::ApprovalMet) => {
                let text = "the environment asks for no further approval".to_owned();
                self.say(US, "approval_met", text);
                self.queue();
            }
            (State::AwaitingApproval, Event::Expired) => {
                let reason = Reason::new("not_approved_in_time", "nobody approved it in time");
                self.finish(Outcome::Expired, US, reason);
            }
            (State::AwaitingApproval | State::Queued, Event::Aborted { by, comment }) => {
                let text = format!("cancelled by {by} before it started{}", said(&comment));
                self.finish(Outcome::Cancelled, &by, Reason::new("cancelled", text));
            }
            (State::AwaitingApproval | State::Queued, Event::Superseded { by }) => {
                let reason = Reason::new("superseded", format!("deployment {by} took its place"));
                self.finish(Outcome::Superseded, US, reason);
            }
            (State::AwaitingApproval | State::Queued, Event::Refused(reason)) => {
                self.finish(Outcome::Rejected, US, reason);
            }
            (State::AwaitingApproval | State::Queued, Event::Waits(reason)) => {
                self.d.reason = Some(reason);
            }
            (State::Queued, Event::TurnCame { token, replaces }) => {
                self.d.replaces = replaces;
                self.d.reason = None;
                self.d.times.started = Some(self.now);
                self.d.state = State::Starting(Intent {
                    token,
                    since: self.now,
                    asked: self.now,
                    ended_by: None,
                });
                self.say(US, "started", "its turn came; the provider is asked to start".into());
            }

            // Asking the provider.
            (
                State::Starting(intent) | State::Ambiguous(intent),
                Event::Created { provider, adopted },
            ) => {
                let how = if adopted { "was found at the provider as" } else { "is" };
                self.say("provider", "created", format!("the deployment {how} {provider}"));
                let started = Started { token: intent.token, provider };
                if let Some(by) = intent.ended_by {
                    self.go_back(started, true, Reason::new("aborted", format!("ended by {by}")));
                } else if self.d.is_canary() {
                    self.d.reason = None;
                    self.d.state = State::Preparing(started);
                } else {
                    self.d.reason = None;
                    self.d.state = State::Working(started);
                }
            }
            (State::Starting(intent) | State::Ambiguous(intent), Event::Lost { problem }) => {
                let text = format!(
                    "whether the provider heard isn't known ({problem}); it is looked for by token {}",
                    intent.token
                );
                if self.d.reason.as_ref().is_none_or(|r| r.message != text) {
                    self.say(US, "answer_lost", text.clone());
                }
                self.d.reason = Some(Reason::new("answer_lost", text));
                self.d.state = State::Ambiguous(intent);
            }
            (State::Starting(intent) | State::Ambiguous(intent), Event::Absent) => {
                if let Some(by) = intent.ended_by {
                    let text = format!("ended by {by} before the provider had it");
                    self.finish(Outcome::Cancelled, &by, Reason::new("cancelled", text));
                } else {
                    let text = "the provider doesn't have it; it is asked again".to_owned();
                    self.say(US, "asked_again", text);
                    self.d.state = State::Starting(Intent { asked: self.now, ..intent });
                }
            }
            (
                State::Starting(Intent { ended_by: Some(by), .. })
                | State::Ambiguous(Intent { ended_by: Some(by), .. }),
                Event::Busy { .. } | Event::Refused(_),
            ) => {
                let text = format!("ended by {by} before the provider had it");
                self.finish(Outcome::Cancelled, &by, Reason::new("cancelled", text));
            }
            (State::Starting(_) | State::Ambiguous(_), Event::Busy { provider }) => {
                let text = format!(
                    "the provider is at work on {provider}, which Pipeyard didn't start; waits for its end"
                );
                self.say("provider", "provider_busy", text.clone());
                self.d.reason = Some(Reason::new("provider_busy", text));
                self.d.times.started = None;
                self.d.state = State::Queued;
            }
            (State::Starting(_) | State::Ambiguous(_), Event::Refused(reason)) => {
                self.finish(Outcome::Rejected, "provider", reason);
            }
            (
                State::Starting(intent) | State::Ambiguous(intent),
                Event::Aborted { by, comment },
            ) => {
                let text = format!("ended by {by}{}; taken back once it is found", said(&comment));
                self.say(&by, "aborted", text.clone());
                self.d.reason = Some(Reason::new("aborted", text));
                self.d.state = State::Ambiguous(Intent { ended_by: Some(by), ..intent });
            }

            // The provider works; users don't reach a canary yet.
            (State::Preparing(started), Event::Ready) => self.shift_to(started, 0),
            (State::Preparing(_), Event::ProviderEnded { problem, .. }) => {
                let reason = Reason::new("provider_failed", problem);
                self.finish(Outcome::Failed, "provider", reason);
            }
            (State::Working(_), Event::TrafficBegan) => self.traffic_begins(),
            (State::Working(started), Event::ProviderEnded { problem, successor }) => {
                let reason = Reason::new("provider_failed", problem);
                let reached = self.d.times.first_traffic.is_some() && self.d.replaces.is_some();
                if successor.is_some() || (reached && self.d.otherwise == Otherwise::Rollback) {
                    self.go_back(started, false, reason);
                    if let Some(provider) = successor {
                        self.successor(provider);
                    }
                } else {
                    self.finish(Outcome::Failed, "provider", reason);
                }
            }

            // Traffic shifts.
            (State::Shifting(started, shift), Event::WeightSet) => {
                let first = shift.set.is_none();
                if first {
                    let text = format!("{} % of the traffic goes to the new release", shift.weight);
                    self.say(US, "weight_set", text);
                }
                self.traffic_begins();
                let set = shift.set.or(Some(self.now));
                self.d.state = State::Shifting(started, Shift { set, ..shift });
            }
            (State::Shifting(started, shift), Event::Watched { by }) => {
                let by = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
                let watched_us = shift.watched_us.saturating_add(by);
                self.d.state = State::Shifting(started, Shift { watched_us, ..shift });
            }
            (State::Shifting(started, shift), Event::StepPassed { verdict }) => {
                let last = match &self.d.strategy {
                    Strategy::Canary { steps } => shift.step + 1 >= steps.len(),
                    Strategy::AllAtOnce | Strategy::Rolling { .. } => true,
                };
                self.d.verdict = Some(verdict.clone());
                if last {
                    self.say("judge", "verdict", verdict.message);
                    self.complete(started);
                } else {
                    self.say("judge", "step_passed", verdict.message);
                    self.shift_to(started, shift.step + 1);
                }
            }
            (State::Shifting(started, shift), Event::Judged(verdict)) => {
                self.say("judge", "verdict", verdict.message.clone());
                let reason = Reason::new(verdict.code.clone(), verdict.message.clone());
                let rolls_back = self.d.otherwise == Otherwise::Rollback;
                self.d.verdict = Some(verdict);
                if rolls_back {
                    self.go_back(started, false, reason);
                } else {
                    let text = format!(
                        "{}; stays at {} % until somebody promotes or aborts it",
                        reason.message, shift.weight
                    );
                    self.say(US, "holding", text.clone());
                    self.d.reason = Some(Reason::new(reason.code, text));
                    self.d.state = State::Holding(started, shift);
                }
            }
            (State::Holding(started, shift), Event::WeightSet) => {
                let set = shift.set.or(Some(self.now));
                self.d.state = State::Holding(started, Shift { set, ..shift });
            }
            (
                State::Shifting(started, _) | State::Holding(started, _),
                Event::Promoted { by, comment },
            ) => {
                self.say(&by, "promoted", format!("promoted by {by}{}", said(&comment)));
                self.complete(started);
            }
            (
                State::Shifting(started, _)
                | State::Holding(started, _)
                | State::Completing(started),
                Event::ProviderEnded { problem, successor },
            ) => {
                self.go_back(started, false, Reason::new("provider_failed", problem));
                if let Some(provider) = successor {
                    self.successor(provider);
                }
            }
            (
                State::Preparing(started)
                | State::Working(started)
                | State::Shifting(started, _)
                | State::Holding(started, _),
                Event::Aborted { by, comment },
            ) => {
                let text = format!("aborted by {by}{}", said(&comment));
                self.say(&by, "aborted", text.clone());
                self.go_back(started, true, Reason::new("aborted", text));
            }
            (
                State::Preparing(_)
                | State::Working(_)
                | State::Shifting(..)
                | State::Holding(..)
                | State::Completing(_),
                Event::ProviderSucceeded,
            ) => {
                self.traffic_begins();
                self.d.reason = None;
                let text = "all traffic goes to the new release".to_owned();
                self.end(Outcome::Succeeded, "provider", text);
            }

            // Going back.
            (State::RollingBack(..), Event::SuccessorSeen { provider }) => self.successor(provider),
            (State::RollingBack(..), Event::Restored) => self.restored(),
            (State::RollingBack(_, back), Event::Returned) => {
                self.restored();
                let outcome = if back.by_person { Outcome::Aborted } else { Outcome::RolledBack };
                self.end(outcome, US, "the old release is back; the new one is gone".into());
            }
            (State::RollingBack(_, back), Event::NothingBefore) => {
                let outcome = if back.by_person { Outcome::Aborted } else { Outcome::Failed };
                self.end(outcome, US, "there was no release before to go back to".into());
            }
            (State::RollingBack(..), Event::ReturnFailed { problem }) => {
                let before = self.d.reason.take().map(|r| r.message).unwrap_or_default();
                let text =
                    format!("{before}; the old release could not be brought back: {problem}");
                self.finish(Outcome::RollbackFailed, US, Reason::new("rollback_failed", text));
            }
            (State::RollingBack(..), Event::Aborted { .. } | Event::WeightSet) => {}

            // The provider doesn't answer.
            (state, Event::Troubled { problem, until }) if state.is_active() => {
                self.troubled(&state, problem, until);
            }
            (state, Event::Answers) if !matches!(state, State::Finished(_)) => self.answers(),
            (State::RollingBack(..), Event::GaveUp { problem }) => {
                let text = format!("{problem}; whether the old release is back isn't known");
                self.finish(Outcome::RollbackFailed, US, Reason::new("provider_lost", text));
            }
            (state, Event::GaveUp { problem }) if state.is_active() => {
                let reached = self.d.times.first_traffic.is_some();
                let known = if reached { "where its traffic goes" } else { "what became of it" };
                let text = format!("{problem}; {known} isn't known, look at the provider");
                self.finish(Outcome::Failed, US, Reason::new("provider_lost", text));
            }

            (state, event) => return Err(refusal(&self.d, &state, &event)),
        }
        Ok(())
    }

    fn approved(&mut self, given: Given, missing: Option<Reason>) {
        let Given { user: _, by, at, own, comment } = given.clone();
        let own = own == Some(true);
        let own_text = if own { ", whose own change it is" } else { "" };
        self.say(&by, "approved", format!("approved by {by}{own_text}{}", said(&comment)));
        self.d.approvals.push(given);
        match missing {
            Some(reason) => self.d.reason = Some(reason),
            None => {
                self.d.approval = Approval::Given { by, at, own, comment };
                self.queue();
            }
        }
    }

    fn queue(&mut self) {
        self.d.reason = Some(Reason::new("waits_for_turn", "waits for its turn"));
        self.d.state = State::Queued;
    }

    fn say(&mut self, who: &str, code: &'static str, message: String) {
        self.entries.push(Entry { who: who.to_owned(), code, message });
    }

    fn finish(&mut self, outcome: Outcome, who: &str, reason: Reason) {
        let message = reason.message.clone();
        self.d.reason = Some(reason);
        self.end(outcome, who, message);
    }

    /// Ends it and keeps the reason that it has.
    fn end(&mut self, outcome: Outcome, who: &str, message: String) {
        self.d.times.finished = Some(self.now);
        self.d.trouble = None;
        self.d.state = State::Finished(outcome);
        self.say(who, outcome.as_str(), message);
    }

    fn troubled(&mut self, state: &State, problem: Reason, until: Timestamp) {
        let before = self.d.trouble.take();
        let since = before.as_ref().map_or(self.now, |trouble| trouble.since);
        let trouble = Trouble::new(self.d.times.restored.is_some(), state, problem, since, until);
        self.d.troubles += u32::from(before.is_none());
        let new = before.is_none_or(|before| before.code != trouble.code);
        if new && self.d.troubles <= Trouble::TOLD {
            let text = format!("{}; {}", trouble.message, trouble.doing);
            self.say("provider", "provider_trouble", text);
        }
        self.d.trouble = Some(trouble);
    }

    fn answers(&mut self) {
        let Some(trouble) = self.d.trouble.take() else { return };
        if self.d.troubles <= Trouble::TOLD {
            let after = short(self.now.since(trouble.since));
            let text = format!("the provider answers again, after {after}");
            self.say("provider", "provider_answers", text);
        }
    }

    fn traffic_begins(&mut self) {
        self.d.times.first_traffic.get_or_insert(self.now);
    }

    fn shift_to(&mut self, started: Started, step: usize) {
        let weight = match &self.d.strategy {
            Strategy::Canary { steps } => steps.get(step).map(|s| s.weight),
            Strategy::AllAtOnce | Strategy::Rolling { .. } => None,
        };
        match weight {
            Some(weight) => {
                let shift = Shift { step, weight, set: None, watched_us: 0 };
                self.d.state = State::Shifting(started, shift);
            }
            None => self.complete(started),
        }
    }

    fn complete(&mut self, started: Started) {
        self.traffic_begins();
        self.d.reason = None;
        self.say(US, "completing", "all traffic goes to the new release now".into());
        self.d.state = State::Completing(started);
    }

    fn go_back(&mut self, started: Started, by_person: bool, reason: Reason) {
        let text = format!("goes back to the old release: {}", reason.message);
        self.say(US, "rolling_back", text);
        self.d.reason = Some(reason);
        self.d.state =
            State::RollingBack(started, Return { since: self.now, by_person, successor: None });
    }

    fn successor(&mut self, provider: String) {
        if let State::RollingBack(_, back) = &mut self.d.state
            && back.successor.as_ref() != Some(&provider)
        {
            let text = format!("the provider restores the old release by {provider}");
            back.successor = Some(provider);
            self.say("provider", "provider_rolls_back", text);
        }
    }

    fn restored(&mut self) {
        if self.d.times.restored.is_none() {
            self.d.times.restored = Some(self.now);
            self.say(US, "restored", "the old release has all traffic again".into());
        }
    }
}

fn said(comment: &Option<String>) -> String {
    comment.as_ref().map(|text| format!(": {text}")).unwrap_or_default()
}

fn refusal(d: &Deployment, state: &State, event: &Event) -> Refusal {
    let (id, word) = (d.id, state.as_str());
    let (code, message) = match event {
        _ if state.outcome().is_some() => {
            ("deployment_finished", format!("deployment {id} is over: {word}"))
        }
        Event::Approved { .. } => (
            "not_waiting_for_approval",
            format!("deployment {id} doesn't wait for an approval: it is {word}"),
        ),
        Event::Promoted { .. } => (
            "not_judging",
            format!("deployment {id} can't be promoted: it is {word}, and no traffic is judged"),
        ),
        Event::Aborted { .. } => (
            "too_late_to_abort",
            format!(
                "deployment {id} is {word}: all traffic goes to it. Use `pipectl deploy rollback`"
            ),
        ),
        Event::Superseded { .. }
        | Event::ApprovalMissing(_)
        | Event::ApprovalMet
        | Event::Expired
        | Event::Waits(_)
        | Event::TurnCame { .. }
        | Event::Refused(_)
        | Event::Created { .. }
        | Event::Lost { .. }
        | Event::Absent
        | Event::Busy { .. }
        | Event::Ready
        | Event::WeightSet
        | Event::TrafficBegan
        | Event::Watched { .. }
        | Event::StepPassed { .. }
        | Event::Judged(Verdict {
            answer: Answer::Healthy | Answer::Broken | Answer::Inconclusive,
            ..
        })
        | Event::ProviderSucceeded
        | Event::ProviderEnded { .. }
        | Event::SuccessorSeen { .. }
        | Event::Restored
        | Event::Returned
        | Event::NothingBefore
        | Event::ReturnFailed { .. }
        | Event::Troubled { .. }
        | Event::Answers
        | Event::GaveUp { .. } => {
            ("does_not_fit", format!("deployment {id} is {word}: the event doesn't fit"))
        }
    };
    Refusal { code, message }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
