//! The metrics of a window: from facts, or from sums of them that were kept.

use std::{collections::BTreeMap, time::Duration};

use pipeyard_model::{EnvironmentName, ServiceName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    DeploymentFact, FailureLink, IncidentFact, MAX_RELATIVE_ERROR, Row, Totals, Window,
    sorted::Sorted,
};

/// Buckets that end within this time may still change: incidents come late.
pub(crate) const PROVISIONAL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

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
    /// Everything in the window that the facts had, the newest first.
    pub rows: Vec<Row>,
    /// How many rows there are in the window.
    pub rows_total: u64,
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

/// What a report's numbers are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// The window's buckets, in order; only what is inside the window.
    pub buckets: Vec<Totals>,
    /// The window of the same length before this one.
    pub previous: Totals,
    /// Services of environments to which a deployment ended in the window.
    pub places: u64,
}

impl Report {
    /// Computes the metrics from facts. `now` decides what is provisional.
    #[must_use]
    pub fn new(facts: &Facts<'_>, window: &Window, scope: &Scope, now: Timestamp) -> Self {
        let sorted = Sorted::new(facts, scope);
        Self::of(&sorted.sums(window), &sorted, window, now)
    }

    /// Takes the numbers from sums that were kept, and from `facts` only the rows: it may be those
    /// of the newest rows alone.
    #[must_use]
    pub fn of_sums(
        sums: &Sums,
        facts: &Facts<'_>,
        window: &Window,
        scope: &Scope,
        now: Timestamp,
    ) -> Self {
        Self::of(sums, &Sorted::new(facts, scope), window, now)
    }

    fn of(sums: &Sums, sorted: &Sorted<'_>, window: &Window, now: Timestamp) -> Self {
        let mut whole = Totals::exact();
        sums.buckets.iter().for_each(|bucket| whole.merge(bucket));
        let metrics = sorted.rows(window).map(|(name, mut rows)| {
            rows.sort_by(|a, b| {
                let key = |row: &Row| (row.at, row.deployment, row.incident);
                key(b).cmp(&key(a)).then_with(|| a.commit.cmp(&b.commit))
            });
            Metric::new(name, rows, sums, &whole, window, now)
        });
        let notes = notes(&whole, sums.places, window, now);
        Self { metrics: metrics.into(), notes }
    }

    /// One of the metrics.
    #[must_use]
    pub fn metric(&self, name: MetricName) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.name == name)
    }
}

impl Metric {
    fn new(
        name: MetricName,
        rows: Vec<Row>,
        sums: &Sums,
        whole: &Totals,
        window: &Window,
        now: Timestamp,
    ) -> Self {
        let (before, _) = window.previous();
        let (previous, previous_n) =
            sums.previous.value(name, window.days_between(before, window.since));
        let (value, n) = whole.value(name, window.days_between(window.since, window.until));
        let buckets = sums.buckets.iter().enumerate().map(|(at, totals)| {
            let (start, end) = window.bucket(at);
            let days = window.days_between(start.max(window.since), end.min(window.until));
            let (value, n) = totals.value(name, days);
            Bucket { start, value, n, provisional: end + PROVISIONAL > now }
        });
        Self {
            name,
            unit: name.unit(),
            value,
            n,
            numerator: whole.numerator(name),
            previous,
            previous_n,
            percentiles: whole.high(name),
            buckets: buckets.collect(),
            rows,
            rows_total: whole.rows(name),
        }
    }
}

/// What a reader should know.
fn notes(whole: &Totals, places: u64, window: &Window, now: Timestamp) -> Vec<String> {
    let counts = &whole.cell.counts;
    let mut notes = Vec::new();
    if places > 1 {
        notes.push(format!(
            "These numbers blend {places} services or environments. DORA advises to look at one at a time."
        ));
    }
    if counts.first > 0 {
        notes.push(format!(
            "{} no lead times because {} the first to {}: there is nothing to compare with.",
            count(counts.first, "deployment has", "deployments have"),
            if counts.first == 1 { "it is" } else { "they are" },
            if counts.first == 1 { "its place" } else { "their places" },
        ));
    }
    if counts.unknown > 0 {
        notes.push(format!(
            "{} no lead times because their commits could not be found.",
            count(counts.unknown, "deployment has", "deployments have")
        ));
    }
    if counts.skewed > 0 {
        notes.push(format!(
            "{} left out because of a date in the future.",
            count(counts.skewed, "commit is", "commits are")
        ));
    }
    let open = counts.failed.saturating_sub(whole.cell.recoveries.len());
    if open > 0 {
        notes.push(format!(
            "{} not restored yet and has no recovery time.",
            count(open, "failed deployment is", "failed deployments are")
        ));
    }
    if whole.samples.is_none() {
        notes.push(format!(
            "There are many durations: their medians and percentiles are exact to {} %.",
            MAX_RELATIVE_ERROR * 100.0
        ));
    }
    if window.until + PROVISIONAL > now {
        notes.push("The last seven days are provisional: an incident that is reported late changes the day of the deployment that failed.".into());
    }
    notes
}

fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}
