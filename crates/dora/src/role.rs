//! What a deployment is in the metrics: decided once, from its kind and outcome.

use crate::{DeploymentFact, Kind, Outcome};

/// What a deployment is in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It isn't over: it counts nowhere yet.
    Unfinished,
    /// It was given up before it started.
    NeverStarted,
    /// It failed before users had reached it.
    FailedBeforeTraffic,
    /// It was taken back after users had reached it.
    Aborted {
        /// It was to repair another.
        hotfix: bool,
    },
    /// It serves.
    Deployed {
        /// It repairs another.
        hotfix: bool,
        /// Some targets didn't take it.
        partial: bool,
    },
    /// It brought an earlier version back.
    RolledBack,
    /// It was to bring an earlier version back and failed.
    RollbackFailed,
    /// The version that ran already.
    Redeployed,
}

impl Role {
    /// The role of a deployment.
    #[must_use]
    pub fn of(fact: &DeploymentFact) -> Self {
        let hotfix = fact.kind == Kind::Hotfix;
        match (fact.outcome, fact.kind) {
            (Outcome::Unfinished, _) => Self::Unfinished,
            (Outcome::NeverStarted, _) => Self::NeverStarted,
            _ if fact.finished_at.is_none() => Self::Unfinished,
            (Outcome::Succeeded | Outcome::Partial, Kind::Rollback) => Self::RolledBack,
            (_, Kind::Rollback) => Self::RollbackFailed,
            (_, Kind::Redeploy) => Self::Redeployed,
            (Outcome::FailedBeforeTraffic, _) => Self::FailedBeforeTraffic,
            (Outcome::AbortedAfterTraffic, _) => Self::Aborted { hotfix },
            (outcome, _) => Self::Deployed { hotfix, partial: outcome == Outcome::Partial },
        }
    }

    /// Whether it counts in the deployment frequency.
    #[must_use]
    pub const fn is_deployment(self) -> bool {
        matches!(self, Self::Deployed { .. })
    }

    /// Whether users had reached it, so that it can have failed them.
    #[must_use]
    pub const fn can_fail(self) -> bool {
        matches!(self, Self::Deployed { .. } | Self::Aborted { .. })
    }

    /// Whether it is in the rework rate, and whether against it.
    #[must_use]
    pub const fn rework(self) -> Option<bool> {
        match self {
            Self::Deployed { hotfix, .. } | Self::Aborted { hotfix } => Some(hotfix),
            Self::RolledBack => Some(true),
            Self::Unfinished
            | Self::NeverStarted
            | Self::FailedBeforeTraffic
            | Self::RollbackFailed
            | Self::Redeployed => None,
        }
    }
}
