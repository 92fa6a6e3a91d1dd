//! The sums that the DORA metrics are read from, and the facts behind them.
//!
//! Every verb that changes a deployment, its commits or an incident updates what it contributes, in
//! the same transaction; so sums are never older than what they are of. The arithmetic is
//! `pipeyard_dora`'s alone: a store adds up and takes away.

use async_trait::async_trait;
use pipeyard_api::deploys::IncidentView;
use pipeyard_dora::{
    CellKey, CommitFact, Confidence, DeploymentFact, FailureLink, IncidentFact, Kind, Method,
    Outcome as Ended, RangeStatus, Sums,
};
use pipeyard_model::{
    DeploymentId, EnvironmentName, IncidentId, ServiceName, Timestamp,
    deployment::{Deployment, Outcome, Purpose},
};

use crate::{StoreResult, deployments::DeployedCommit};

/// Up to so many durations in the window and the one before are read one by one, so that their
/// medians and percentiles are exact.
pub const MAX_SAMPLES: u64 = 50_000;

/// Whose metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whose {
    /// Only this environment; every production environment if absent.
    pub environment: Option<EnvironmentName>,
    /// Only this service; every service if absent.
    pub service: Option<ServiceName>,
}

/// What happened, as the metrics see it.
#[derive(Debug, Clone, Default)]
pub struct DoraFacts {
    /// Deployments.
    pub deployments: Vec<DeploymentFact>,
    /// Incidents.
    pub incidents: Vec<IncidentFact>,
    /// Which incident is laid to which deployment.
    pub links: Vec<FailureLink>,
}

/// Where a check goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckFrom {
    /// With the deployments behind this one; 0 is the begin of a check.
    Deployments(DeploymentId),
    /// With the incidents behind this one.
    Incidents(IncidentId),
    /// With the cells behind this one.
    Cells(Option<CellKey>),
}

impl CheckFrom {
    /// The begin of a check.
    pub const START: Self = Self::Deployments(DeploymentId(0));
}

/// What a piece of a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Where to go on; absent when all is checked.
    pub next: Option<CheckFrom>,
    /// Deployments and incidents that had no contribution: they are older than contributions.
    pub added: u64,
    /// Contributions and cells that weren't what their facts say, and are now.
    pub corrected: u64,
}

/// The metrics' sums.
#[async_trait]
pub trait Dora {
    /// The sums of the spans between `edges`, which rise, and of the span from `before` to the first
    /// edge.
    async fn dora_sums(
        &self,
        whose: &Whose,
        before: Timestamp,
        edges: &[Timestamp],
    ) -> StoreResult<Sums>;
    /// The facts behind the newest rows from `from` to before `to`: enough for `limit` rows of each
    /// metric, with the incidents and rollbacks that they need, wherever those are.
    async fn dora_facts(
        &self,
        whose: &Whose,
        from: Timestamp,
        to: Timestamp,
        limit: u32,
    ) -> StoreResult<DoraFacts>;
    /// Compares the next `limit` contributions or cells with what they are made of, and corrects
    /// them. Bulk work: other writes get their turn between two pieces.
    async fn check_dora(&self, from: CheckFrom, limit: u32) -> StoreResult<Checked>;
}

/// What a deployment is for. `served` is the commit that served before it ended, `again` whether its
/// own commit had served here before.
#[must_use]
pub fn kind_of(deployment: &Deployment, served: Option<&str>, again: bool) -> Kind {
    let own = deployment.release.commit.as_str();
    let before: Vec<&str> = again.then_some(own).into_iter().chain(served).collect();
    match deployment.purpose {
        Purpose::Rollback { .. } => Kind::Rollback,
        Purpose::Ship if deployment.is_finished() => Kind::detect(own, &before),
        Purpose::Ship => Kind::Normal,
    }
}

/// A deployment as the metrics see it. `commits_state` is the store's word for what is known of its
/// commits.
#[must_use]
pub fn deployment_fact(
    d: &Deployment,
    kind: Kind,
    commits_state: &str,
    commits: Vec<CommitFact>,
) -> DeploymentFact {
    DeploymentFact {
        id: d.id,
        service: d.service.clone(),
        environment: d.environment.clone(),
        team: None,
        sha: d.release.commit.clone(),
        kind,
        outcome: ended(d),
        created_at: d.times.created,
        started_at: d.times.started,
        first_traffic_at: d.times.first_traffic,
        finished_at: d.times.finished,
        restored_at: d.times.restored,
        rollback_of: match d.purpose {
            Purpose::Rollback { of, .. } => Some(of),
            Purpose::Ship => None,
        },
        range_status: match commits_state {
            "known" => RangeStatus::Known,
            "first_deployment" => RangeStatus::First,
            _ => RangeStatus::Unknown,
        },
        commits,
    }
}

fn ended(d: &Deployment) -> Ended {
    let reached = d.times.first_traffic.is_some();
    match d.state.outcome() {
        None => Ended::Unfinished,
        Some(Outcome::Succeeded) => Ended::Succeeded,
        Some(Outcome::Cancelled | Outcome::Superseded | Outcome::Expired | Outcome::Rejected) => {
            Ended::NeverStarted
        }
        Some(Outcome::Aborted) if !reached => Ended::NeverStarted,
        Some(
            Outcome::Failed | Outcome::RolledBack | Outcome::RollbackFailed | Outcome::Aborted,
        ) => {
            if reached {
                Ended::AbortedAfterTraffic
            } else {
                Ended::FailedBeforeTraffic
            }
        }
    }
}

/// A commit as the metrics see it.
#[must_use]
pub fn commit_fact(commit: &DeployedCommit) -> CommitFact {
    CommitFact {
        sha: commit.sha.clone(),
        authored_at: commit.authored_at,
        committed_at: commit.committed_at,
        first_seen: commit.first_seen,
        is_merge: commit.is_merge,
        is_cherry_pick: commit.is_cherry_pick,
    }
}

/// An incident as the metrics see it.
#[must_use]
pub fn incident_fact(incident: &IncidentView) -> IncidentFact {
    IncidentFact {
        id: incident.id,
        service: incident.service.clone(),
        environment: incident.environment.clone(),
        impact_at: incident.impact_at,
        detected_at: incident.detected_at,
        restored_at: incident.restored_at,
        duplicate_of: None,
    }
}

/// The deployment that an incident is laid to.
#[must_use]
pub fn failure_link(incident: &IncidentView) -> Option<FailureLink> {
    let inferred = incident.link.as_deref() == Some("inferred");
    Some(FailureLink {
        deployment: incident.deployment?,
        incident: Some(incident.id),
        method: if inferred { Method::Inferred } else { Method::Manual },
        confidence: if inferred { Confidence::Inferred } else { Confidence::Certain },
    })
}
