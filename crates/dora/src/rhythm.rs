//! How regularly deployments come: in days of a week, and apart from each other.

use std::collections::{BTreeMap, BTreeSet};

use pipeyard_model::{DeploymentId, Timestamp};

use crate::{MetricName, Report, Standing, Window, histogram::exact_percentile};

/// How regularly deployments come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    /// Median over calendar weeks of the number of days with a deployment.
    pub deploy_days_per_week: Option<u64>,
    /// Median of the seconds between deployments that follow each other.
    pub median_gap_seconds: Option<u64>,
}

impl Rhythm {
    /// The rhythm of a report that has all of its rows.
    #[must_use]
    pub fn of(report: &Report, window: &Window) -> Self {
        let rows = report.metric(MetricName::DeploymentFrequency).map(|metric| &metric.rows);
        let deployed: BTreeSet<(Timestamp, DeploymentId)> = rows
            .into_iter()
            .flatten()
            .filter(|row| row.standing != Standing::Excluded)
            .filter_map(|row| Some((row.at, row.deployment?)))
            .collect();
        Self {
            deploy_days_per_week: deploy_days_per_week(&deployed, window),
            median_gap_seconds: median_gap(&deployed),
        }
    }
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
