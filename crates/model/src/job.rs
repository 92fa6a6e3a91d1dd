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

mod machine;

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
    /// The runner could begin nothing of it and gives it back, such as while its Docker is away.
    HandedBack {
        /// Why.
        reason: Reason,
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
            Self::HandedBack { .. } => "handed back",
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
