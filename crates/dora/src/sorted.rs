//! The facts of a scope, put together: which deployment failed by which incidents, the rows of every
//! metric with their reasons, and their sums.

use std::collections::{BTreeMap, BTreeSet};

use pipeyard_model::{DeploymentId, EnvironmentName, IncidentId, ServiceName, Timestamp};

use crate::{
    DeploymentFact, Facts, Failure, FailureLink, IncidentFact, MetricName, RangeStatus, Role, Row,
    Scope, Standing, Sums, Totals, Window,
    contribution::{contribution, failure_of, incident_contribution, recovery},
    lead::lead_time,
    words,
};

/// The facts of a scope, each once, in the order of their ids.
pub(crate) struct Sorted<'f> {
    deployments: BTreeMap<DeploymentId, &'f DeploymentFact>,
    incidents: BTreeMap<IncidentId, &'f IncidentFact>,
    failures: BTreeMap<DeploymentId, Failure>,
}

impl<'f> Sorted<'f> {
    pub(crate) fn new(facts: &Facts<'f>, scope: &Scope) -> Self {
        let fits = |service: &ServiceName, environment: &EnvironmentName| {
            scope.service.as_ref().is_none_or(|only| only == service)
                && scope.environment.as_ref().is_none_or(|only| only == environment)
        };
        let all_incidents: BTreeMap<_, _> =
            facts.incidents.iter().map(|fact| (fact.id, fact)).collect();
        let mut links: BTreeMap<DeploymentId, Vec<&FailureLink>> = BTreeMap::new();
        for link in facts.links {
            links.entry(link.deployment).or_default().push(link);
        }
        let mut repairs: BTreeMap<DeploymentId, Vec<&DeploymentFact>> = BTreeMap::new();
        for fact in facts.deployments {
            if let Some(of) = fact.rollback_of {
                repairs.entry(of).or_default().push(fact);
            }
        }
        let mut deployments = BTreeMap::new();
        let mut failures = BTreeMap::new();
        for fact in facts.deployments {
            let team = scope.team.as_ref().is_none_or(|only| fact.team.as_ref() == Some(only));
            if !team || !fits(&fact.service, &fact.environment) {
                continue;
            }
            deployments.insert(fact.id, fact);
            let none = (Vec::new(), Vec::new());
            let links = links.get(&fact.id).unwrap_or(&none.0).iter().copied();
            let repairs = repairs.get(&fact.id).unwrap_or(&none.1).iter().copied();
            failures.extend(
                failure_of(fact, links, &all_incidents, repairs).map(|failure| (fact.id, failure)),
            );
        }
        // An incident names no team: it is the team's whose deployments go to its place.
        let places: BTreeSet<_> = deployments
            .values()
            .map(|fact: &&DeploymentFact| (&fact.service, &fact.environment))
            .collect();
        let mut incidents = all_incidents;
        incidents.retain(|_, fact| {
            fits(&fact.service, &fact.environment)
                && (scope.team.is_none() || places.contains(&(&fact.service, &fact.environment)))
        });
        Self { deployments, incidents, failures }
    }

    /// The rows of the window.
    pub(crate) fn rows(&self, window: &Window) -> [(MetricName, Vec<Row>); 6] {
        let inside = |at: Timestamp| window.contains(at);
        let mut frequency = Vec::new();
        let mut lead = Vec::new();
        let mut fails = Vec::new();
        let mut recoveries = Vec::new();
        let mut rework = Vec::new();
        for fact in self.deployments.values() {
            let role = Role::of(fact);
            let failure = self.failures.get(&fact.id);
            let at = fact.finished_at.unwrap_or(fact.created_at);
            if !inside(at) {
                continue;
            }
            let row = |value, standing, reason| Row {
                deployment: Some(fact.id),
                incident: None,
                commit: None,
                at,
                value,
                standing,
                reason,
            };
            let counted = role.is_deployment();
            let standing = if counted { Standing::Counted } else { Standing::Excluded };
            frequency.push(row(counted.then_some(1.0), standing, words::frequency(role).into()));
            let (value, standing) = share(role.can_fail().then_some(failure.is_some()));
            fails.push(row(value, standing, words::failing(role, failure)));
            let (value, standing) = share(role.rework());
            rework.push(row(value, standing, words::rework(role, fact.rollback_of)));
            if let Some(failure) = failure {
                recoveries.push(recovery_row(fact, failure, at));
            }
            if counted {
                lead_rows(fact, at, &mut lead);
            }
        }
        let recent = self.incidents.values().filter(|incident| inside(incident.impact_at));
        let restores = recent.map(|incident| restore_row(incident)).collect();
        [
            (MetricName::DeploymentFrequency, frequency),
            (MetricName::ChangeLeadTime, lead),
            (MetricName::ChangeFailRate, fails),
            (MetricName::FailedDeploymentRecoveryTime, recoveries),
            (MetricName::ReworkRate, rework),
            (MetricName::TimeToRestore, restores),
        ]
    }

    /// The sums of the window's buckets and of the window before.
    pub(crate) fn sums(&self, window: &Window) -> Sums {
        let (before, _) = window.previous();
        let mut sums = Sums {
            buckets: vec![Totals::exact(); window.len()],
            previous: Totals::exact(),
            places: 0,
        };
        let mut places = BTreeSet::new();
        let deployments = self.deployments.values().map(|fact| {
            if fact.finished_at.is_some_and(|at| window.contains(at)) {
                places.insert((&fact.environment, &fact.service));
            }
            contribution(fact, self.failures.get(&fact.id))
        });
        let incidents = self.incidents.values().map(|fact| incident_contribution(fact));
        for part in deployments.chain(incidents) {
            if let Some(bucket) = window.bucket_of(part.at) {
                sums.buckets[bucket].add(&part);
            } else if before <= part.at && part.at < window.since {
                sums.previous.add(&part);
            }
        }
        sums.places = places.len() as u64;
        sums
    }
}

fn share(in_ratio: Option<bool>) -> (Option<f64>, Standing) {
    match in_ratio {
        None => (None, Standing::Excluded),
        Some(false) => (Some(0.0), Standing::Counted),
        Some(true) => (Some(1.0), Standing::Numerator),
    }
}

fn recovery_row(fact: &DeploymentFact, failure: &Failure, at: Timestamp) -> Row {
    let seconds = recovery(fact, failure);
    let (standing, reason) = match seconds {
        Some(seconds) => {
            let from =
                if fact.first_traffic_at.is_some() { "its first traffic" } else { "its end" };
            let to = match (&failure.incidents[..], failure.repaired_by) {
                ([], Some(by)) if fact.restored_at.is_none() => format!("deployment {by} was done"),
                ([], _) => "the old version served all users again".into(),
                ([one], _) => format!("incident {one} was over"),
                (many, _) => format!("the last of its {} incidents was over", many.len()),
            };
            (Standing::Counted, format!("counts: {} from {from} until {to}", words::span(seconds)))
        }
        None => (Standing::Excluded, "does not count yet because it is not restored".to_owned()),
    };
    Row {
        deployment: Some(fact.id),
        incident: failure.incidents.first().copied(),
        commit: None,
        at,
        value: seconds.map(|seconds| seconds as f64),
        standing,
        reason,
    }
}

fn lead_rows(fact: &DeploymentFact, at: Timestamp, rows: &mut Vec<Row>) {
    let row = |commit: Option<&String>, value: Option<u64>, reason: String| Row {
        deployment: Some(fact.id),
        incident: None,
        commit: commit.cloned(),
        at,
        value: value.map(|seconds| seconds as f64),
        standing: if value.is_some() { Standing::Counted } else { Standing::Excluded },
        reason,
    };
    match fact.range_status {
        RangeStatus::First => {
            let reason = "no commit counts because it is the first deployment to this place: all of history would be new";
            rows.push(row(None, None, reason.into()));
        }
        RangeStatus::Unknown => {
            rows.push(row(
                None,
                None,
                "no commit counts because the commits that it brought could not be found".into(),
            ));
        }
        RangeStatus::Known => {
            let mut seen = BTreeSet::new();
            for commit in fact.commits.iter().filter(|commit| seen.insert(&commit.sha)) {
                let (value, reason) = match lead_time(commit, at) {
                    Ok((seconds, start)) => (Some(seconds), words::lead(seconds, start)),
                    Err(why) => (None, words::no_lead(why)),
                };
                rows.push(row(Some(&commit.sha), value, reason));
            }
        }
    }
}

fn restore_row(incident: &IncidentFact) -> Row {
    let seconds = incident.restored_at.map(|restored| restored.since(incident.impact_at).as_secs());
    let (value, standing, reason) = match (incident.duplicate_of, seconds) {
        (Some(other), _) => (
            None,
            Standing::Excluded,
            format!("does not count because it repeats incident {other}"),
        ),
        (None, Some(seconds)) => (
            Some(seconds as f64),
            Standing::Counted,
            format!("counts: {} from impact until restored", words::span(seconds)),
        ),
        (None, None) => {
            (None, Standing::Excluded, "does not count yet because it is open".to_owned())
        }
    };
    Row {
        deployment: None,
        incident: Some(incident.id),
        commit: None,
        at: incident.impact_at,
        value,
        standing,
        reason,
    }
}
