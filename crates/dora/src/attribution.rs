//! Which deployment an incident is laid to when nobody says.

use std::time::Duration;

use crate::{
    Confidence, DeploymentFact, FailureLink, IncidentFact, Method, Role,
    contribution::production_start,
};

/// A deployment is suspected for this long after it.
pub const ATTRIBUTION_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// The latest success of the same service in the same environment within 24 hours before the impact.
///
/// `None` if there is none, if what served then was a rollback or a repetition, or if the incident
/// repeats another: then it counts in the time to restore alone. An explicit link goes before this.
#[must_use]
pub fn attribute<'f>(
    incident: &IncidentFact,
    deployments: impl IntoIterator<Item = &'f DeploymentFact>,
) -> Option<FailureLink> {
    if incident.duplicate_of.is_some() {
        return None;
    }
    let here = deployments.into_iter().filter(|fact| {
        fact.service == incident.service && fact.environment == incident.environment
    });
    let serving = here
        .filter(|fact| {
            matches!(Role::of(fact), Role::Deployed { .. } | Role::RolledBack | Role::Redeployed)
        })
        .filter_map(|fact| Some((production_start(fact)?, fact)))
        .filter(|(start, _)| *start <= incident.impact_at)
        .max_by_key(|(start, fact)| (*start, fact.id));
    let (start, fact) = serving?;
    if !Role::of(fact).is_deployment() || incident.impact_at.since(start) > ATTRIBUTION_WINDOW {
        return None;
    }
    Some(FailureLink {
        deployment: fact.id,
        incident: Some(incident.id),
        method: Method::Inferred,
        confidence: Confidence::Inferred,
    })
}
