//! From rows to the facts that the metrics are computed from.

use std::collections::{BTreeMap, HashMap};

use pipeyard_dora::{
    CommitFact, Confidence, DeploymentFact, FailureLink, IncidentFact, Kind, Method,
    Outcome as Fact, RangeStatus,
};
use pipeyard_model::{
    DeploymentId, EnvironmentName, ServiceName,
    deployment::{Deployment, Outcome, Purpose},
};
use pipeyard_store::deployments::DoraRows;

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) deployments: Vec<DeploymentFact>,
    pub(super) incidents: Vec<IncidentFact>,
    pub(super) links: Vec<FailureLink>,
}

/// Reads rows, oldest first.
pub(super) fn read(rows: &DoraRows) -> Read {
    let mut commits: HashMap<DeploymentId, Vec<CommitFact>> = HashMap::new();
    for (deployment, commit) in &rows.commits {
        commits.entry(*deployment).or_default().push(CommitFact {
            sha: commit.sha.clone(),
            authored_at: commit.authored_at,
            committed_at: commit.committed_at,
            first_seen: commit.first_seen,
            is_merge: commit.is_merge,
            is_cherry_pick: commit.is_cherry_pick,
        });
    }
    let mut shipped: BTreeMap<(&EnvironmentName, &ServiceName), Vec<&str>> = BTreeMap::new();
    let deployments = rows
        .deployments
        .iter()
        .map(|(d, commits_state)| {
            let before = shipped.entry((&d.environment, &d.service)).or_default();
            let (kind, rollback_of) = match &d.purpose {
                Purpose::Ship => (Kind::detect(&d.release.commit, before), None),
                Purpose::Rollback { of, .. } => (Kind::Rollback, Some(*of)),
            };
            if d.state.outcome() == Some(Outcome::Succeeded) {
                before.push(&d.release.commit);
            }
            DeploymentFact {
                id: d.id,
                service: d.service.clone(),
                environment: d.environment.clone(),
                team: None,
                sha: d.release.commit.clone(),
                kind,
                outcome: outcome(d),
                created_at: d.times.created,
                started_at: d.times.started,
                first_traffic_at: d.times.first_traffic,
                finished_at: d.times.finished,
                restored_at: d.times.restored,
                rollback_of,
                range_status: match commits_state.as_str() {
                    "known" => RangeStatus::Known,
                    "first_deployment" => RangeStatus::First,
                    _ => RangeStatus::Unknown,
                },
                commits: commits.remove(&d.id).unwrap_or_default(),
            }
        })
        .collect();
    let incidents = rows.incidents.iter().map(|i| IncidentFact {
        id: i.id,
        service: i.service.clone(),
        environment: i.environment.clone(),
        impact_at: i.impact_at,
        detected_at: i.detected_at,
        restored_at: i.restored_at,
        duplicate_of: None,
    });
    let links = rows.incidents.iter().filter_map(|i| {
        let inferred = i.link.as_deref() == Some("inferred");
        Some(FailureLink {
            deployment: i.deployment?,
            incident: Some(i.id),
            method: if inferred { Method::Inferred } else { Method::Manual },
            confidence: if inferred { Confidence::Inferred } else { Confidence::Certain },
        })
    });
    Read { deployments, incidents: incidents.collect(), links: links.collect() }
}

fn outcome(d: &Deployment) -> Fact {
    let reached = d.times.first_traffic.is_some();
    match d.state.outcome() {
        None => Fact::Unfinished,
        Some(Outcome::Succeeded) => Fact::Succeeded,
        Some(Outcome::Cancelled | Outcome::Superseded | Outcome::Expired | Outcome::Rejected) => {
            Fact::NeverStarted
        }
        Some(Outcome::Aborted) if !reached => Fact::NeverStarted,
        Some(
            Outcome::Failed | Outcome::RolledBack | Outcome::RollbackFailed | Outcome::Aborted,
        ) => {
            if reached {
                Fact::AbortedAfterTraffic
            } else {
                Fact::FailedBeforeTraffic
            }
        }
    }
}
