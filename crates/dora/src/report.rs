//! The metrics over the facts of a window: exact, with every row.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pipeyard_model::{DeploymentId, EnvironmentName, IncidentId, ServiceName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    DeploymentFact, Failure, FailureLink, IncidentFact, Role, Row, Standing, Window,
    contribution::{failure_of, recovery},
    fact::RangeStatus,
    histogram::exact_percentile,
    lead::{NoLead, lead_time},
    words,
};

/// Buckets that end within this time may still change: incidents come late.
const PROVISIONAL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Everything that is known. May hold more than the window; the window before it is needed for the
/// comparison, and repairs and incidents of a deployment wherever they are.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'f> {
    /// In any order; one that is given twice counts once.
    pub deployments: &'f [DeploymentFact],
    /// Likewise.
    pub incidents: &'f [IncidentFact],
    /// Likewise.
    pub links: &'f [FailureLink],
}

/// Whose facts count. Nothing set: all that are given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Only this environment.
    pub environment: Option<EnvironmentName>,
    /// Only this service.
    pub service: Option<ServiceName>,
    /// Only deployments that this team owned at that time.
    pub team: Option<String>,
}

/// The metrics of a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Deployment frequency, change lead time, change fail rate, failed deployment recovery time,
    /// rework rate, time to restore; in this order.
    pub metrics: Vec<Metric>,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Median over calendar weeks of the number of days with a deployment.
    pub deploy_days_per_week: Option<u64>,
    /// Median of the seconds between deployments that follow each other.
    pub median_gap_seconds: Option<u64>,
}

/// Which metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricName {
    /// Deployments per calendar day.
    DeploymentFrequency,
    /// From a commit's start to the end of its deployment.
    ChangeLeadTime,
    /// Failed deployments of all that users had reached.
    ChangeFailRate,
    /// From a failed deployment's first traffic to restored.
    FailedDeploymentRecoveryTime,
    /// Rollbacks and hotfixes of all deployments and rollbacks.
    ReworkRate,
    /// From impact to restored, over all incidents.
    TimeToRestore,
}

impl MetricName {
    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeploymentFrequency => "deployment_frequency",
            Self::ChangeLeadTime => "change_lead_time",
            Self::ChangeFailRate => "change_fail_rate",
            Self::FailedDeploymentRecoveryTime => "failed_deployment_recovery_time",
            Self::ReworkRate => "rework_rate",
            Self::TimeToRestore => "time_to_restore",
        }
    }

    /// The name for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::DeploymentFrequency => "Deployment frequency",
            Self::ChangeLeadTime => "Change lead time",
            Self::ChangeFailRate => "Change fail rate",
            Self::FailedDeploymentRecoveryTime => "Failed deployment recovery time",
            Self::ReworkRate => "Rework rate",
            Self::TimeToRestore => "Time to restore (all incidents)",
        }
    }

    /// What its value is measured in.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::DeploymentFrequency => Unit::PerDay,
            Self::ChangeFailRate | Self::ReworkRate => Unit::Ratio,
            Self::ChangeLeadTime | Self::FailedDeploymentRecoveryTime | Self::TimeToRestore => {
                Unit::Seconds
            }
        }
    }
}

/// What a value is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A count per calendar day.
    PerDay,
    /// The median of a duration.
    Seconds,
    /// 0 to 1.
    Ratio,
}

impl Unit {
    /// The word for it in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PerDay => "per_day",
            Self::Seconds => "seconds",
            Self::Ratio => "ratio",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Which.
    pub name: MetricName,
    /// What `value` is measured in.
    pub unit: Unit,
    /// The value; absent when there was nothing to measure.
    pub value: Option<f64>,
    /// The deployments, commits or incidents that it rests on.
    pub n: u64,
    /// For a ratio: how many of `n` count against it.
    pub numerator: Option<u64>,
    /// The value of the window of the same length before this one.
    pub previous: Option<f64>,
    /// Its `n`.
    pub previous_n: u64,
    /// For a duration: `p75`, `p90`, `p95`, by lower rank.
    pub percentiles: BTreeMap<String, f64>,
    /// Over time.
    pub buckets: Vec<Bucket>,
    /// Everything in the window, the newest first.
    pub rows: Vec<Row>,
}

/// One bucket of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its start by the calendar; the window may begin later.
    pub start: Timestamp,
    /// Its value. Nothing to measure: 0 for the frequency, absent for the others.
    pub value: Option<f64>,
    /// What the value rests on.
    pub n: u64,
    /// It ended less than seven days ago, so a late incident may change it.
    pub provisional: bool,
}

impl Report {
    /// Computes the metrics. `now` decides what is provisional.
    #[must_use]
    pub fn new(facts: &Facts<'_>, window: &Window, scope: &Scope, now: Timestamp) -> Self {
        let sorted = Sorted::new(facts, scope);
        let rows = sorted.rows(window);
        let mut metrics = Vec::new();
        for (name, mut rows) in rows {
            rows.sort_by(|a, b| {
                let key = |row: &Row| (row.at, row.deployment, row.incident);
                key(b).cmp(&key(a)).then_with(|| a.commit.cmp(&b.commit))
            });
            metrics.push(Metric::new(name, rows, window, now));
        }
        let deployed: BTreeSet<(Timestamp, DeploymentId)> = metrics[0]
            .rows
            .iter()
            .filter(|row| row.standing != Standing::Excluded)
            .filter_map(|row| Some((row.at, row.deployment?)))
            .collect();
        let notes = sorted.notes(&metrics, window, now);
        Self {
            deploy_days_per_week: deploy_days_per_week(&deployed, window),
            median_gap_seconds: median_gap(&deployed),
            metrics,
            notes,
        }
    }

    /// One of the metrics.
    #[must_use]
    pub fn metric(&self, name: MetricName) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.name == name)
    }
}

impl Metric {
    fn new(name: MetricName, rows: Vec<Row>, window: &Window, now: Timestamp) -> Self {
        let (before, _) = window.previous();
        let earlier: Vec<&Row> =
            rows.iter().filter(|row| before <= row.at && row.at < window.since).collect();
        let (previous, previous_n) =
            value(name, &earlier, window.days_between(before, window.since));
        let rows: Vec<Row> = rows.into_iter().filter(|row| window.contains(row.at)).collect();
        let all: Vec<&Row> = rows.iter().collect();
        let (of_window, n) = value(name, &all, window.days_between(window.since, window.until));
        let mut by_bucket: Vec<Vec<&Row>> = vec![Vec::new(); window.len()];
        for row in &rows {
            if let Some(bucket) = window.bucket_of(row.at) {
                by_bucket[bucket].push(row);
            }
        }
        let buckets = by_bucket.iter().enumerate().map(|(at, rows)| {
            let (start, end) = window.bucket(at);
            let days = window.days_between(start.max(window.since), end.min(window.until));
            let (value, n) = value(name, rows, days);
            Bucket { start, value, n, provisional: end + PROVISIONAL > now }
        });
        let buckets = buckets.collect();
        let mut percentiles = BTreeMap::new();
        let mut numerator = None;
        match name.unit() {
            Unit::Seconds => {
                let seconds = sorted_seconds(&all);
                for percent in [75, 90, 95] {
                    let value = exact_percentile(&seconds, percent).map(|value| value as f64);
                    percentiles.extend(value.map(|value| (format!("p{percent}"), value)));
                }
            }
            Unit::Ratio => numerator = Some(against(&all)),
            Unit::PerDay => {}
        }
        let unit = name.unit();
        Self {
            name,
            unit,
            value: of_window,
            n,
            numerator,
            previous,
            previous_n,
            percentiles,
            buckets,
            rows,
        }
    }
}

/// The value and what it rests on.
fn value(name: MetricName, rows: &[&Row], days: f64) -> (Option<f64>, u64) {
    let n = rows.iter().filter(|row| row.standing != Standing::Excluded).count() as u64;
    let value = match name.unit() {
        Unit::PerDay => (days > 0.0).then(|| n as f64 / days),
        Unit::Ratio => (n > 0).then(|| against(rows) as f64 / n as f64),
        Unit::Seconds => exact_percentile(&sorted_seconds(rows), 50).map(|seconds| seconds as f64),
    };
    (value, n)
}

fn against(rows: &[&Row]) -> u64 {
    rows.iter().filter(|row| row.standing == Standing::Numerator).count() as u64
}

fn sorted_seconds(rows: &[&Row]) -> Vec<u64> {
    let counted = rows.iter().filter(|row| row.standing != Standing::Excluded);
    let mut seconds: Vec<u64> =
        counted.filter_map(|row| row.value).map(|value| value as u64).collect();
    seconds.sort_unstable();
    seconds
}

fn median_gap(deployed: &BTreeSet<(Timestamp, DeploymentId)>) -> Option<u64> {
    let times: Vec<Timestamp> = deployed.iter().map(|(at, _)| *at).collect();
    let mut gaps: Vec<u64> =
        times.windows(2).map(|pair| pair[1].since(pair[0]).as_secs()).collect();
    gaps.sort_unstable();
    exact_percentile(&gaps, 50)
}

/// Over the calendar weeks that are wholly inside; `None` if there is none.
fn deploy_days_per_week(
    deployed: &BTreeSet<(Timestamp, DeploymentId)>,
    window: &Window,
) -> Option<u64> {
    // Day 0 is a Thursday, so a week from Monday begins three days earlier.
    let week_of = |day: i64| (day + 3).div_euclid(7);
    let days: BTreeSet<i64> = deployed.iter().map(|(at, _)| window.day_of(*at)).collect();
    let first = week_of(window.day_of(Timestamp(window.since.0 - 1))) + 1;
    let last = week_of(window.day_of(window.until)) - 1;
    let mut by_week: BTreeMap<i64, u64> = (first..=last).map(|week| (week, 0)).collect();
    for day in days {
        if let Some(count) = by_week.get_mut(&week_of(day)) {
            *count += 1;
        }
    }
    let mut counts: Vec<u64> = by_week.into_values().collect();
    counts.sort_unstable();
    exact_percentile(&counts, 50)
}

/// The facts of a scope, each once, in the order of their ids.
struct Sorted<'f> {
    deployments: BTreeMap<DeploymentId, &'f DeploymentFact>,
    incidents: BTreeMap<IncidentId, &'f IncidentFact>,
    failures: BTreeMap<DeploymentId, Failure>,
}

impl<'f> Sorted<'f> {
    fn new(facts: &Facts<'f>, scope: &Scope) -> Self {
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

    /// The rows of the window and of the one before it.
    fn rows(&self, window: &Window) -> [(MetricName, Vec<Row>); 6] {
        let (before, _) = window.previous();
        let inside = |at: Timestamp| before <= at && at < window.until;
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

    fn notes(&self, metrics: &[Metric], window: &Window, now: Timestamp) -> Vec<String> {
        let mut notes = Vec::new();
        let inside: Vec<&DeploymentFact> = self
            .deployments
            .values()
            .filter(|fact| fact.finished_at.is_some_and(|at| window.contains(at)))
            .copied()
            .collect();
        let services: BTreeSet<_> =
            inside.iter().map(|fact| (&fact.environment, &fact.service)).collect();
        if services.len() > 1 {
            notes.push(format!(
                "These numbers blend {} services or environments. DORA advises to look at one at a time.",
                services.len()
            ));
        }
        let with = |status| {
            inside
                .iter()
                .filter(|f| f.range_status == status && Role::of(f).is_deployment())
                .count()
        };
        let (first, unknown) = (with(RangeStatus::First), with(RangeStatus::Unknown));
        if first > 0 {
            notes.push(format!(
                "{} no lead times because {} the first to {}: there is nothing to compare with.",
                count(first, "deployment has", "deployments have"),
                if first == 1 { "it is" } else { "they are" },
                if first == 1 { "its place" } else { "their places" },
            ));
        }
        if unknown > 0 {
            notes.push(format!(
                "{} no lead times because their commits could not be found.",
                count(unknown, "deployment has", "deployments have")
            ));
        }
        let skewed = metrics[1]
            .rows
            .iter()
            .filter(|row| row.reason == words::no_lead(NoLead::FromTheFuture))
            .count();
        if skewed > 0 {
            notes.push(format!(
                "{} left out because of a date in the future.",
                count(skewed, "commit is", "commits are")
            ));
        }
        let open = metrics[3].rows.iter().filter(|row| row.standing == Standing::Excluded).count();
        if open > 0 {
            notes.push(format!(
                "{} not restored yet and has no recovery time.",
                count(open, "failed deployment is", "failed deployments are")
            ));
        }
        if window.until + PROVISIONAL > now {
            notes.push("The last seven days are provisional: an incident that is reported late changes the day of the deployment that failed.".into());
        }
        notes
    }
}

fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
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
