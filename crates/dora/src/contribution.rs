//! What one deployment adds to the metrics: a pure function of its fact and of its failure.

use std::collections::{BTreeMap, BTreeSet};

use pipeyard_model::{DeploymentId, IncidentId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    DeploymentFact, FailureLink, IncidentFact, Kind, Method, Outcome, RangeStatus, Role, lead_time,
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

/// What one deployment adds to its cells. To change it, take the old one away and add the new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contribution {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The moment that decides the buckets; absent when it adds nothing.
    pub at: Option<Timestamp>,
    /// It counts in the frequency.
    pub deployed: bool,
    /// It is in the fail rate; `true` when it failed.
    pub failed: Option<bool>,
    /// It is in the rework rate; `true` when it is rework.
    pub rework: Option<bool>,
    /// It failed before users had reached it.
    pub failed_before_traffic: bool,
    /// It brought an earlier version back.
    pub rollback: bool,
    /// Lead times of the commits that count, in seconds, sorted.
    pub leads: Vec<u64>,
    /// Seconds to recovery, for a failure that is over.
    pub recovery: Option<u64>,
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
    let counts = role != Role::Unfinished && role != Role::NeverStarted;
    let mut leads = Vec::new();
    if let (Role::Deployed { .. }, RangeStatus::Known, Some(end)) =
        (role, fact.range_status, fact.finished_at)
    {
        let mut seen = BTreeSet::new();
        let fresh = fact.commits.iter().filter(|commit| seen.insert(&commit.sha));
        leads = fresh
            .filter_map(|commit| lead_time(commit, end).ok())
            .map(|(seconds, _)| seconds)
            .collect();
        leads.sort_unstable();
    }
    Contribution {
        deployment: fact.id,
        at: fact.finished_at.filter(|_| counts),
        deployed: role.is_deployment(),
        failed: role.can_fail().then_some(failure.is_some()),
        rework: role.rework(),
        failed_before_traffic: role == Role::FailedBeforeTraffic,
        rollback: role == Role::RolledBack,
        leads,
        recovery: failure.and_then(|failure| recovery(fact, failure)),
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
