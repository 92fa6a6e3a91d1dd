//! What happened, as the metrics see it.

use pipeyard_model::{DeploymentId, EnvironmentName, IncidentId, ServiceName, Timestamp};
use serde::{Deserialize, Serialize};

/// One deployment of one service to one environment, with all attempts of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentFact {
    /// Counted once, however often it is given.
    pub id: DeploymentId,
    /// What was shipped.
    pub service: ServiceName,
    /// Where to.
    pub environment: EnvironmentName,
    /// Who owned the service at that time.
    pub team: Option<String>,
    /// The commit that was shipped, in full.
    pub sha: String,
    /// Planned work, or something else.
    pub kind: Kind,
    /// How it ended.
    pub outcome: Outcome,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When the provider began.
    pub started_at: Option<Timestamp>,
    /// When the first users could reach it.
    pub first_traffic_at: Option<Timestamp>,
    /// When it ended. It decides the bucket.
    pub finished_at: Option<Timestamp>,
    /// For one that was taken back: when the old version served everybody again.
    pub restored_at: Option<Timestamp>,
    /// For a rollback or hotfix: the deployment that it takes back or repairs.
    pub rollback_of: Option<DeploymentId>,
    /// Whether `commits` is known.
    pub range_status: RangeStatus,
    /// The commits that it brought to this place first: reachable from `sha`, and from nothing that
    /// was ever deployed here before.
    pub commits: Vec<CommitFact>,
}

/// What a deployment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Planned work.
    Normal,
    /// Unplanned work that repairs what a deployment broke, by a new version.
    Hotfix,
    /// Back to an earlier version, by a deployment of its own.
    Rollback,
    /// The version that was already running.
    Redeploy,
}

impl Kind {
    /// Tells a rollback and a repetition from new work by the commits that were deployed here before,
    /// successes only, the oldest first.
    #[must_use]
    pub fn detect(sha: &str, deployed: &[&str]) -> Self {
        match deployed.last() {
            Some(last) if *last == sha => Self::Redeploy,
            Some(_) if deployed.contains(&sha) => Self::Rollback,
            Some(_) | None => Self::Normal,
        }
    }
}

/// How a deployment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is still under way or waits.
    Unfinished,
    /// It was cancelled, rejected or replaced by a newer one before it started.
    NeverStarted,
    /// It serves everybody.
    Succeeded,
    /// A rolling deployment that some targets didn't take.
    Partial,
    /// It failed and no user had reached it.
    FailedBeforeTraffic,
    /// It was taken back, or failed, after users had reached it.
    AbortedAfterTraffic,
}

/// Whether it is known which commits a deployment brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RangeStatus {
    /// They are in `commits`.
    Known,
    /// The first deployment to this place: everything would be new, so nothing counts.
    First,
    /// Objects are missing, or history was rewritten.
    Unknown,
}

/// A commit that a deployment brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitFact {
    /// In full.
    pub sha: String,
    /// The author date. For a squashed commit: the earliest among the originals.
    pub authored_at: Timestamp,
    /// The committer date.
    pub committed_at: Timestamp,
    /// When Pipeyard first saw it in a push.
    pub first_seen: Option<Timestamp>,
    /// It has several parents.
    pub is_merge: bool,
    /// It was picked from another branch, so its author date may be months old.
    pub is_cherry_pick: bool,
}

/// A production failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentFact {
    /// Counted once, however often it is given.
    pub id: IncidentId,
    /// What failed.
    pub service: ServiceName,
    /// Where.
    pub environment: EnvironmentName,
    /// When users began to suffer. It decides the bucket.
    pub impact_at: Timestamp,
    /// When it was noticed.
    pub detected_at: Timestamp,
    /// When users stopped suffering; absent while it is open.
    pub restored_at: Option<Timestamp>,
    /// The incident that this one repeats.
    pub duplicate_of: Option<IncidentId>,
}

/// Says that a deployment failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureLink {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The incident that shows it, if there is one.
    pub incident: Option<IncidentId>,
    /// How it is known.
    pub method: Method,
    /// How sure it is.
    pub confidence: Confidence,
}

/// How a failure is known to be a deployment's. Earlier ones go before later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// A person said so.
    Manual,
    /// It was rolled back.
    Rollback,
    /// The incident named the deployment or its commit.
    Explicit,
    /// A revert or hotfix named it.
    Hotfix,
    /// The latest success of the service within 24 hours before the impact.
    Inferred,
}

impl Method {
    /// The word for it in rows and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Rollback => "rollback",
            Self::Explicit => "explicit",
            Self::Hotfix => "hotfix",
            Self::Inferred => "inferred",
        }
    }
}

/// How sure a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Somebody or something said so.
    Certain,
    /// A rule concluded it.
    Inferred,
}
