//! One rollout of a release to an environment, as data.
//!
//! A [`Deployment`] is moved only by [`Deployment::apply`]: pure, with the present as an argument.
//! What the server must do next follows from the state alone ([`State::duty`]), so that a server
//! that starts anew goes on where the row says. Every duty may be done twice.
//!
//! Invariants: an intent is stored before the provider is asked; a finished deployment never
//! changes; only one deployment of a service in an environment is between `starting` and its end.
//!
//! Absent: the order of the queue and the choice of a rollback's release (they need other rows).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Conclusion, DeploymentId, EnvironmentName, IntentId, JobId, NodeName, ReleaseId, RepoId,
    RepoName, RunId, ServiceName, Status, Timestamp,
    environment::Given,
    plan::{Batch, HealthLimit, Otherwise, Strategy},
};

mod health;
mod machine;
mod trouble;
pub use health::{Health, HealthState};
pub use machine::{Applied, Entry, Event, Refusal};
pub use trouble::Trouble;

/// What a deployment ships; immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its id.
    pub id: ReleaseId,
    /// The repository that it was built from.
    pub repo: RepoId,
    /// That repository's name.
    pub repo_name: RepoName,
    /// Full SHA of the commit.
    pub commit: String,
    /// The run that built it.
    pub run: RunId,
    /// The job that kept the bundle.
    pub job: NodeName,
    /// The bundle's path, as the job named it.
    pub artifact: String,
    /// Of the bundle's bytes, in hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// One rollout of a release to a service in an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// The number that people use.
    pub id: DeploymentId,
    /// Raised by every change; a change of an older version is refused.
    pub version: i64,
    /// Where to.
    pub environment: EnvironmentName,
    /// What.
    pub service: ServiceName,
    /// Its place in the order of this environment and service.
    pub sequence: i64,
    /// Why there is one.
    pub purpose: Purpose,
    /// What it ships.
    pub release: Release,
    /// What served when it started; none for the first.
    pub replaces: Option<Replaced>,
    /// How.
    pub strategy: Strategy,
    /// What must hold while traffic shifts.
    pub limits: Vec<HealthLimit>,
    /// What follows when it doesn't.
    pub otherwise: Otherwise,
    /// The deploy in a run that asked for it; none when a person did.
    pub job: Option<JobId>,
    /// Who or what asked for it.
    pub requested_by: String,
    /// Whether it needs an approval, and who gave the last one.
    pub approval: Approval,
    /// The approvals, in their order; a person gives one at most.
    #[serde(default)]
    pub approvals: Vec<Given>,
    /// The pipeline asks for an approval, whatever the environment says; not known of one that an
    /// earlier version stored.
    #[serde(default)]
    pub asks_approval: Option<bool>,
    /// Where it stands.
    pub state: State,
    /// Why it waits, holds or ended so.
    pub reason: Option<Reason>,
    /// What the judge said.
    pub verdict: Option<Verdict>,
    /// The provider doesn't answer, or refuses, while this is under way.
    #[serde(default)]
    pub trouble: Option<Trouble>,
    /// How often that began; the timeline tells the first times only.
    #[serde(default)]
    pub troubles: u32,
    /// When what happened.
    pub times: Times,
}

/// Why there is a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Ships a release.
    Ship,
    /// A person takes a deployment back. It goes before the queue and is not judged.
    Rollback {
        /// The deployment that is taken back.
        of: DeploymentId,
        /// The deployment whose release serves again.
        to: DeploymentId,
    },
}

/// What served before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// The deployment that brought it.
    pub deployment: DeploymentId,
    /// The release.
    pub release: Release,
}

/// Whether an approval is needed, and who gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// None is needed.
    NotNeeded,
    /// At least one is missing.
    Needed,
    /// Approved, by this person last.
    Given {
        /// Who.
        by: String,
        /// When.
        at: Timestamp,
        /// The commit's author approved their own change.
        own: bool,
        /// What they said.
        comment: Option<String>,
    },
}

/// A stable code with a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// `waits_for_turn`, `limit_broken`, `aborted`, ...
    pub code: String,
    /// What, where, why and the fix.
    pub message: String,
}

impl Reason {
    /// A reason.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

/// What the judge said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its answer.
    pub answer: Answer,
    /// Stable: `limit_broken`, `worse_than_before`, `mostly_errors`, `too_little_data`, ...
    pub code: String,
    /// In words and numbers.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// The judge's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing spoke against it, on enough data.
    Healthy,
    /// A limit is broken, or it is worse than before.
    Broken,
    /// Too little data until the deadline: neither.
    Inconclusive,
}

impl Answer {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Broken => "broken",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// When what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// It was asked for.
    pub created: Timestamp,
    /// The intent was stored: the provider was asked right after.
    pub started: Option<Timestamp>,
    /// Users' requests may have reached the new release from here on.
    pub first_traffic: Option<Timestamp>,
    /// The old release had all traffic again.
    pub restored: Option<Timestamp>,
    /// It ended.
    pub finished: Option<Timestamp>,
}

/// Where a deployment stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A person must approve.
    AwaitingApproval,
    /// It waits for its turn.
    Queued,
    /// The intent is stored; the provider is being asked. Whoever finds this without having asked
    /// must look first.
    Starting(Intent),
    /// The provider was asked, and whether it heard isn't known: it is looked for by its token.
    Ambiguous(Intent),
    /// The provider has it, and sets up the new release without users' requests. Only a canary.
    Preparing(Started),
    /// The provider does the whole of it.
    Working(Started),
    /// A share of the traffic goes to the new release, and is judged.
    Shifting(Started, Shift),
    /// The share stays as it is until a person decides.
    Holding(Started, Shift),
    /// All traffic goes to the new release; the provider finishes.
    Completing(Started),
    /// All traffic goes back to the old release.
    RollingBack(Started, Return),
    /// Over.
    Finished(Outcome),
}

/// What is stored before the provider is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The token that the provider's record begins with.
    pub token: IntentId,
    /// When it was stored.
    pub since: Timestamp,
    /// When the provider was last asked; looking for it begins here.
    pub asked: Timestamp,
    /// Who ended it meanwhile: it is taken back as soon as it is found.
    pub ended_by: Option<String>,
}

/// The provider's side of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The token.
    pub token: IntentId,
    /// The provider's id.
    pub provider: String,
}

/// A weight of a canary in work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    /// Which step, from 0.
    pub step: usize,
    /// Its weight in percent.
    pub weight: u8,
    /// When the proxy was told; none until it has confirmed.
    pub set: Option<Timestamp>,
    /// How long it was watched on fresh data, in seconds and below.
    pub watched_us: u64,
}

impl Shift {
    /// How long it was watched on fresh data.
    #[must_use]
    pub fn watched(&self) -> Duration {
        Duration::from_micros(self.watched_us)
    }
}

/// A return to the old release in work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    /// When it began.
    pub since: Timestamp,
    /// A person asked for it.
    pub by_person: bool,
    /// The provider's own deployment that restores the old release.
    pub successor: Option<String>,
}

/// How a deployment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All traffic goes to the new release.
    Succeeded,
    /// It failed; nothing was taken back, because users never reached it, or nothing was there
    /// before, or the pipeline says so.
    Failed,
    /// The old release has all traffic again.
    RolledBack,
    /// A person took it back; the old release has all traffic again.
    Aborted,
    /// The old release could not be brought back: a person must look.
    RollbackFailed,
    /// A person ended it before it started.
    Cancelled,
    /// A newer one took its place before it started.
    Superseded,
    /// Nobody approved in time.
    Expired,
    /// It can't be carried out: the target doesn't honour the strategy, the provider refuses it.
    Rejected,
}

impl Outcome {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
            Self::Aborted => "aborted",
            Self::RollbackFailed => "rollback_failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
        }
    }

    /// What it means for the run.
    #[must_use]
    pub const fn conclusion(self) -> Conclusion {
        match self {
            Self::Succeeded => Conclusion::Success,
            Self::Failed | Self::RolledBack | Self::RollbackFailed => Conclusion::Failure,
            Self::Aborted | Self::Cancelled | Self::Superseded => Conclusion::Cancelled,
            Self::Expired => Conclusion::TimedOut,
            Self::Rejected => Conclusion::Error,
        }
    }
}

/// What the server must do, as far as the state alone says it. Each may be done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duty<'a> {
    /// Wait for a person.
    AwaitApproval,
    /// Start it when its turn comes.
    AwaitTurn,
    /// Look for the token; ask again only when it is proven absent.
    Find(&'a Intent),
    /// Watch the provider until it is ready or over.
    Watch(&'a Started),
    /// Keep this weight set, and judge it.
    Judge(&'a Started, &'a Shift),
    /// Keep this weight set, and watch the provider.
    Hold(&'a Started, &'a Shift),
    /// Let the provider finish.
    Complete(&'a Started),
    /// Give the old release all traffic, and see that the provider ends.
    Return(&'a Started, &'a Return),
    /// Nothing.
    Nothing,
}

impl State {
    /// The word for it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::AwaitingApproval => "awaiting_approval",
            Self::Queued => "queued",
            Self::Starting(_) | Self::Ambiguous(_) => "starting",
            Self::Preparing(_) => "preparing",
            Self::Working(_) => "working",
            Self::Shifting(..) => "shifting",
            Self::Holding(..) => "holding",
            Self::Completing(_) => "completing",
            Self::RollingBack(..) => "rolling_back",
            Self::Finished(outcome) => outcome.as_str(),
        }
    }

    /// What the server must do.
    #[must_use]
    pub const fn duty(&self) -> Duty<'_> {
        match self {
            Self::AwaitingApproval => Duty::AwaitApproval,
            Self::Queued => Duty::AwaitTurn,
            Self::Starting(intent) | Self::Ambiguous(intent) => Duty::Find(intent),
            Self::Preparing(started) | Self::Working(started) => Duty::Watch(started),
            Self::Shifting(started, shift) => Duty::Judge(started, shift),
            Self::Holding(started, shift) => Duty::Hold(started, shift),
            Self::Completing(started) => Duty::Complete(started),
            Self::RollingBack(started, back) => Duty::Return(started, back),
            Self::Finished(_) => Duty::Nothing,
        }
    }

    /// Whether it may hold the provider's only place.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        !matches!(self, Self::AwaitingApproval | Self::Queued | Self::Finished(_))
    }

    /// How it ended.
    #[must_use]
    pub const fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Finished(outcome) => Some(*outcome),
            Self::AwaitingApproval
            | Self::Queued
            | Self::Starting(_)
            | Self::Ambiguous(_)
            | Self::Preparing(_)
            | Self::Working(_)
            | Self::Shifting(..)
            | Self::Holding(..)
            | Self::Completing(_)
            | Self::RollingBack(..) => None,
        }
    }

    /// Status in the words of runs.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::AwaitingApproval | Self::Queued => Status::Queued,
            Self::Finished(_) => Status::Finished,
            Self::Starting(_)
            | Self::Ambiguous(_)
            | Self::Preparing(_)
            | Self::Working(_)
            | Self::Shifting(..)
            | Self::Holding(..)
            | Self::Completing(_)
            | Self::RollingBack(..) => Status::Running,
        }
    }

    /// The provider's side, while there is one.
    #[must_use]
    pub const fn started(&self) -> Option<&Started> {
        match self {
            Self::Preparing(started)
            | Self::Working(started)
            | Self::Shifting(started, _)
            | Self::Holding(started, _)
            | Self::Completing(started)
            | Self::RollingBack(started, _) => Some(started),
            Self::AwaitingApproval
            | Self::Queued
            | Self::Starting(_)
            | Self::Ambiguous(_)
            | Self::Finished(_) => None,
        }
    }

    /// The new release's share of the traffic as it should be, while the server decides it.
    #[must_use]
    pub const fn weight(&self) -> Option<u8> {
        match self {
            Self::Preparing(_) | Self::RollingBack(..) => Some(0),
            Self::Shifting(_, shift) | Self::Holding(_, shift) => Some(shift.weight),
            Self::Completing(_) => Some(100),
            Self::AwaitingApproval
            | Self::Queued
            | Self::Starting(_)
            | Self::Ambiguous(_)
            | Self::Working(_)
            | Self::Finished(_) => None,
        }
    }
}

impl Deployment {
    /// Whether it is over.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.state.outcome().is_some()
    }

    /// Whether the pipeline asks for an approval. An earlier version asked for nothing else.
    #[must_use]
    pub fn asks_approval(&self) -> bool {
        self.asks_approval.unwrap_or(self.approval != Approval::NotNeeded)
    }

    /// The approvals, also the one that an earlier version stored.
    #[must_use]
    pub fn given(&self) -> Vec<Given> {
        match &self.approval {
            Approval::Given { by, at, own, comment } if self.approvals.is_empty() => vec![Given {
                user: None,
                by: by.clone(),
                at: *at,
                own: Some(*own),
                comment: comment.clone(),
            }],
            Approval::NotNeeded | Approval::Needed | Approval::Given { .. } => {
                self.approvals.clone()
            }
        }
    }

    /// Whether traffic is shifted and judged step by step. A first release has nothing to be
    /// compared with and takes all traffic once it is healthy; so does a rollback.
    #[must_use]
    pub fn is_canary(&self) -> bool {
        matches!(self.strategy, Strategy::Canary { .. }) && self.replaces.is_some()
    }
}

/// How a strategy is said to people: `canary 10 % for 5m, 50 % for 10m`.
#[must_use]
pub fn strategy_text(strategy: &Strategy) -> String {
    match strategy {
        Strategy::AllAtOnce => "all at once".into(),
        Strategy::Canary { steps } => {
            let steps = steps.iter().map(|s| format!("{} % for {}", s.weight, short(s.hold)));
            format!("canary {}", steps.collect::<Vec<_>>().join(", "))
        }
        Strategy::Rolling { batch: Batch::Percent(percent) } => {
            format!("rolling {percent} % at a time")
        }
        Strategy::Rolling { batch: Batch::Count(count) } => format!("rolling {count} at a time"),
    }
}

/// A duration as people write it: `90 s` is `1m30s`.
#[must_use]
pub fn short(duration: Duration) -> String {
    let total = duration.as_secs();
    let parts = [(total / 3600, "h"), (total / 60 % 60, "m"), (total % 60, "s")];
    let text: String =
        parts.into_iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".into() } else { text }
}

/// How a limit is said to people: `error_rate < 1 %`.
#[must_use]
pub fn limit_text(limit: &HealthLimit) -> String {
    match limit {
        HealthLimit::ErrorRate(share) => format!("error_rate < {} %", trimmed(share * 100.0)),
        HealthLimit::LatencyMs { percentile, below } => {
            format!("p{percentile}_ms < {}", trimmed(*below))
        }
    }
}

/// A number with at most three decimals and no zeros behind.
#[must_use]
pub fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
