//! One span of time added up, and what the metrics read from it.

use std::collections::BTreeMap;

use crate::{Cell, Contribution, Histogram, MetricName, histogram::exact_percentile};

/// Every duration of a span, in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Samples {
    /// Lead times.
    pub leads: Vec<u64>,
    /// Recovery times.
    pub recoveries: Vec<u64>,
    /// Times to restore.
    pub restores: Vec<u64>,
}

/// One span added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// The sums.
    pub cell: Cell,
    /// Every duration behind them. Absent when there are too many to read: then percentiles come
    /// from the cell, wrong by [`MAX_RELATIVE_ERROR`](crate::MAX_RELATIVE_ERROR) at most.
    pub samples: Option<Samples>,
}

impl Totals {
    /// Nothing yet, with every duration to come.
    #[must_use]
    pub fn exact() -> Self {
        Self { cell: Cell::default(), samples: Some(Samples::default()) }
    }

    /// Adds a contribution.
    pub fn add(&mut self, contribution: &Contribution) {
        self.cell.add(contribution);
        self.sample(contribution);
    }

    /// Notes a contribution's durations; the cell has it already.
    pub fn sample(&mut self, contribution: &Contribution) {
        if let Some(samples) = &mut self.samples {
            samples.leads.extend(&contribution.leads);
            samples.recoveries.extend(contribution.recovery);
            samples.restores.extend(contribution.restore);
        }
    }

    /// Adds everything of `other`. Exact only if both are.
    pub fn merge(&mut self, other: &Self) {
        self.cell.merge(&other.cell);
        self.samples = match (self.samples.take(), &other.samples) {
            (Some(mut ours), Some(theirs)) => {
                ours.leads.extend(&theirs.leads);
                ours.recoveries.extend(&theirs.recoveries);
                ours.restores.extend(&theirs.restores);
                Some(ours)
            }
            (_, _) => None,
        };
    }

    /// How many durations there are.
    #[must_use]
    pub fn durations(&self) -> u64 {
        self.cell.leads.len() + self.cell.recoveries.len() + self.cell.restores.len()
    }

    /// The value of a metric and what it rests on; `days` is the span's length.
    pub(crate) fn value(&self, name: MetricName, days: f64) -> (Option<f64>, u64) {
        let counts = &self.cell.counts;
        let share = |part: u64, of: u64| ((of > 0).then(|| part as f64 / of as f64), of);
        match name {
            MetricName::DeploymentFrequency => {
                ((days > 0.0).then(|| counts.deployed as f64 / days), counts.deployed)
            }
            MetricName::ChangeFailRate => share(counts.failed, counts.could_fail),
            MetricName::ReworkRate => share(counts.reworked, counts.worked),
            MetricName::ChangeLeadTime
            | MetricName::FailedDeploymentRecoveryTime
            | MetricName::TimeToRestore => {
                let n = self.series(name).map_or(0, |(counted, _)| counted.len());
                (self.percentiles(name, [50])[0], n)
            }
        }
    }

    /// For a ratio: how many count against it.
    pub(crate) fn numerator(&self, name: MetricName) -> Option<u64> {
        match name {
            MetricName::ChangeFailRate => Some(self.cell.counts.failed),
            MetricName::ReworkRate => Some(self.cell.counts.reworked),
            MetricName::DeploymentFrequency
            | MetricName::ChangeLeadTime
            | MetricName::FailedDeploymentRecoveryTime
            | MetricName::TimeToRestore => None,
        }
    }

    /// For a duration: the higher percentiles by their names.
    pub(crate) fn high(&self, name: MetricName) -> BTreeMap<String, f64> {
        let percents = [75, 90, 95];
        let values = percents.into_iter().zip(self.percentiles(name, percents));
        values.filter_map(|(percent, value)| Some((format!("p{percent}"), value?))).collect()
    }

    /// How many rows there are behind a metric, counted or not.
    pub(crate) fn rows(&self, name: MetricName) -> u64 {
        let counts = &self.cell.counts;
        match name {
            MetricName::DeploymentFrequency
            | MetricName::ChangeFailRate
            | MetricName::ReworkRate => counts.listed,
            MetricName::ChangeLeadTime => counts.lead_rows,
            MetricName::FailedDeploymentRecoveryTime => counts.failed,
            MetricName::TimeToRestore => counts.incidents,
        }
    }

    /// A duration's histogram, and each of its values if they are known.
    fn series(&self, name: MetricName) -> Option<(&Histogram, Option<&Vec<u64>>)> {
        let (cell, samples) = (&self.cell, self.samples.as_ref());
        match name {
            MetricName::ChangeLeadTime => Some((&cell.leads, samples.map(|s| &s.leads))),
            MetricName::FailedDeploymentRecoveryTime => {
                Some((&cell.recoveries, samples.map(|s| &s.recoveries)))
            }
            MetricName::TimeToRestore => Some((&cell.restores, samples.map(|s| &s.restores))),
            MetricName::DeploymentFrequency
            | MetricName::ChangeFailRate
            | MetricName::ReworkRate => None,
        }
    }

    fn percentiles<const N: usize>(&self, name: MetricName, percents: [u8; N]) -> [Option<f64>; N] {
        match self.series(name) {
            None => [None; N],
            Some((counted, None)) => {
                percents.map(|percent| counted.percentile(percent).map(|s| s as f64))
            }
            Some((_, Some(each))) => {
                let mut sorted = each.clone();
                sorted.sort_unstable();
                percents.map(|percent| exact_percentile(&sorted, percent).map(|s| s as f64))
            }
        }
    }
}
