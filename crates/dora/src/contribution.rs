//! What one deployment or incident adds to the metrics: a pure function of its fact and of its
//! failure.

use std::collections::{BTreeMap, BTreeSet};

use pipeyard_model::{DeploymentId, IncidentId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    DeploymentFact, FailureLink, IncidentFact, Kind, Method, NoLead, Outcome, RangeStatus, Role,
    lead_time,
};

/// How a deployment that had reached users failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its incidents, each once, without repetitions of each other.
    pub incidents: Vec<IncidentId>,
    /// The strongest way in which it is known; absent when it was aborted.
    pub method: Option<Method>,
    /// The rollback or hotfix that ended it.
    pub repaired_by: Option<DeploymentId>,
    /// When it was over: the last of its incidents restored; without incidents, the old version back
    /// or the repair done. Absent while it is open.
    pub restored_at: Option<Timestamp>,
}

/// Whose contribution it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A deployment's.
    Deployment(DeploymentId),
    /// An incident's.
    Incident(IncidentId),
}

/// Numbers that add up over deployments and incidents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Deployments that are listed: all of them.
    #[serde(skip_serializing_if = "zero")]
    pub listed: u64,
    /// Deployments that are over, however they ended.
    #[serde(skip_serializing_if = "zero")]
    pub over: u64,
    /// Deployments that reached production.
    #[serde(skip_serializing_if = "zero")]
    pub deployed: u64,
    /// Deployments that users had reached.
    #[serde(skip_serializing_if = "zero")]
    pub could_fail: u64,
    /// Of these: failed.
    #[serde(skip_serializing_if = "zero")]
    pub failed: u64,
    /// Deployments and rollbacks in the rework rate.
    #[serde(skip_serializing_if = "zero")]
    pub worked: u64,
    /// Of these: rework.
    #[serde(skip_serializing_if = "zero")]
    pub reworked: u64,
    /// Deployments that failed before users had reached them.
    #[serde(skip_serializing_if = "zero")]
    pub failed_before_traffic: u64,
    /// Rollbacks.
    #[serde(skip_serializing_if = "zero")]
    pub rollbacks: u64,
    /// Deployments that were the first to their place, so that no commit counts.
    #[serde(skip_serializing_if = "zero")]
    pub first: u64,
    /// Deployments whose commits could not be found.
    #[serde(skip_serializing_if = "zero")]
    pub unknown: u64,
    /// Rows in the list behind the lead time: commits that count or don't, and reasons for none.
    #[serde(skip_serializing_if = "zero")]
    pub lead_rows: u64,
    /// Commits that are left out because of a date in the future.
    #[serde(skip_serializing_if = "zero")]
    pub skewed: u64,
    /// Incidents that are listed: all of them.
    #[serde(skip_serializing_if = "zero")]
    pub incidents: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn zero(number: &u64) -> bool {
    *number == 0
}

impl Counts {
    pub(crate) fn all(&mut self) -> [&mut u64; 14] {
        [
            &mut self.listed,
            &mut self.over,
            &mut self.deployed,
            &mut self.could_fail,
            &mut self.failed,
            &mut self.worked,
            &mut self.reworked,
            &mut self.failed_before_traffic,
            &mut self.rollbacks,
            &mut self.first,
            &mut self.unknown,
            &mut self.lead_rows,
            &mut self.skewed,
            &mut self.incidents,
        ]
    }
}

/// What one deployment or incident adds to its cells. To change it, take the old one away and add the
/// new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contribution {
    /// Whose it is.
    pub source: Source,
    /// The moment that decides its buckets: a deployment's end, or its request while it isn't over;
    /// an incident's impact.
    pub at: Timestamp,
    /// What it counts as.
    pub counts: Counts,
    /// Lead times of the commits that count, in seconds, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leads: Vec<u64>,
    /// Seconds to recovery, for a failure that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<u64>,
    /// Seconds to restore, for an incident that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<u64>,
}

/// The failure of a deployment, from everything that is known; `None` if it didn't fail.
///
/// `links`, `incidents` and `repairs` may hold more than this deployment's own. `repairs` are other
/// deployments; those that took this one back or repaired it count.
#[must_use]
pub fn failure_of<'f>(
    fact: &DeploymentFact,
    links: impl IntoIterator<Item = &'f FailureLink>,
    incidents: &BTreeMap<IncidentId, &IncidentFact>,
    repairs: impl IntoIterator<Item = &'f DeploymentFact>,
) -> Option<Failure> {
    if !Role::of(fact).can_fail() {
        return None;
    }
    let mut own = BTreeSet::new();
    let mut method = None;
    for link in links.into_iter().filter(|link| link.deployment == fact.id) {
        method = Some(method.map_or(link.method, |known: Method| known.min(link.method)));
        own.extend(link.incident.map(|id| original(id, incidents)));
    }
    let mut repaired: Option<(Timestamp, DeploymentId)> = None;
    for repair in repairs
        .into_iter()
        .filter(|repair| repair.rollback_of == Some(fact.id) && repair.id != fact.id)
    {
        let how = match (repair.kind, Role::of(repair)) {
            (_, Role::RolledBack) => Method::Rollback,
            (Kind::Hotfix, Role::Deployed { .. }) => Method::Hotfix,
            _ => continue,
        };
        method = Some(method.map_or(how, |known| known.min(how)));
        if let Some(done) = repair.finished_at {
            let this = (done, repair.id);
            repaired = Some(repaired.map_or(this, |first| first.min(this)));
        }
    }
    if method.is_none() && fact.outcome != Outcome::AbortedAfterTraffic {
        return None;
    }
    let known: Vec<&&IncidentFact> = own.iter().filter_map(|id| incidents.get(id)).collect();
    let restored_at = if known.is_empty() {
        fact.restored_at.or(repaired.map(|(at, _)| at))
    } else {
        known.iter().map(|incident| incident.restored_at).reduce(|a, b| Some(a?.max(b?))).flatten()
    };
    let incidents = own.into_iter().collect();
    Some(Failure { incidents, method, repaired_by: repaired.map(|(_, id)| id), restored_at })
}

/// The incident that `id` repeats, at the end of the chain. A circle of repetitions is its smallest.
fn original(id: IncidentId, incidents: &BTreeMap<IncidentId, &IncidentFact>) -> IncidentId {
    let mut seen = BTreeSet::new();
    let mut at = id;
    while seen.insert(at) {
        match incidents.get(&at).and_then(|incident| incident.duplicate_of) {
            Some(next) => at = next,
            None => return at,
        }
    }
    seen.first().copied().unwrap_or(id)
}

/// What a deployment adds to the metrics. `failure` is what [`failure_of`] says about it.
#[must_use]
pub fn contribution(fact: &DeploymentFact, failure: Option<&Failure>) -> Contribution {
    let role = Role::of(fact);
    let one = u64::from;
    let deployed = role.is_deployment();
    let mut counts = Counts {
        listed: 1,
        over: one(fact.finished_at.is_some()),
        deployed: one(deployed),
        could_fail: one(role.can_fail()),
        failed: one(failure.is_some()),
        worked: one(role.rework().is_some()),
        reworked: one(role.rework() == Some(true)),
        failed_before_traffic: one(role == Role::FailedBeforeTraffic),
        rollbacks: one(role == Role::RolledBack),
        ..Counts::default()
    };
    let at = fact.finished_at.unwrap_or(fact.created_at);
    let mut leads = Vec::new();
    if deployed {
        match fact.range_status {
            RangeStatus::First => (counts.first, counts.lead_rows) = (1, 1),
            RangeStatus::Unknown => (counts.unknown, counts.lead_rows) = (1, 1),
            RangeStatus::Known => {
                let mut seen = BTreeSet::new();
                for commit in fact.commits.iter().filter(|commit| seen.insert(&commit.sha)) {
                    counts.lead_rows += 1;
                    match lead_time(commit, at) {
                        Ok((seconds, _)) => leads.push(seconds),
                        Err(NoLead::FromTheFuture) => counts.skewed += 1,
                        Err(NoLead::Merge) => {}
                    }
                }
                leads.sort_unstable();
            }
        }
    }
    Contribution {
        source: Source::Deployment(fact.id),
        at,
        counts,
        leads,
        recovery: failure.and_then(|failure| recovery(fact, failure)),
        restore: None,
    }
}

/// What an incident adds to the metrics: its time to restore, unless it repeats another.
#[must_use]
pub fn incident_contribution(fact: &IncidentFact) -> Contribution {
    let over = fact.restored_at.filter(|_| fact.duplicate_of.is_none());
    Contribution {
        source: Source::Incident(fact.id),
        at: fact.impact_at,
        counts: Counts { incidents: 1, ..Counts::default() },
        leads: Vec::new(),
        recovery: None,
        restore: over.map(|restored| restored.since(fact.impact_at).as_secs()),
    }
}

/// Seconds from the first traffic of a failed deployment to restored; absent while it is open.
pub(crate) fn recovery(fact: &DeploymentFact, failure: &Failure) -> Option<u64> {
    Some(failure.restored_at?.since(production_start(fact)?).as_secs())
}

/// When users could first reach a deployment.
pub(crate) fn production_start(fact: &DeploymentFact) -> Option<Timestamp> {
    fact.first_traffic_at.or(fact.finished_at)
}
