//! The metrics over the facts of a window: exact, with every row.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pipeyard_model::{DeploymentId, EnvironmentName, ServiceName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    DeploymentFact, FailureLink, IncidentFact, Row, Standing, Window, histogram::exact_percentile,
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
