//! Contributions added up by time and owner. Addition has no order, and what was added can be taken
//! away, to the byte.

use std::fmt;

use jiff::{ToSpan, tz::TimeZone};
use pipeyard_model::{ServiceName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    Contribution, Histogram,
    histogram::{read_number, write_number},
};

/// Upper edges of the lead time bands, in seconds: an hour, a day, a week, 30 days, 180 days.
const BANDS: [u64; 5] = [3_600, 86_400, 604_800, 2_592_000, 15_552_000];

/// Sums over the deployments of one bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// Deployments that reached production.
    pub deployed: u64,
    /// Deployments that users had reached.
    pub could_fail: u64,
    /// Of these: failed.
    pub failed: u64,
    /// Deployments and rollbacks in the rework rate.
    pub worked: u64,
    /// Of these: rework.
    pub reworked: u64,
    /// Deployments that failed before users had reached them.
    pub failed_before_traffic: u64,
    /// Rollbacks.
    pub rollbacks: u64,
    /// Commits with a lead time of at most an hour, a day, a week, 30 days, 180 days.
    pub bands: [u64; 5],
    /// Lead times.
    pub leads: Histogram,
    /// Recovery times.
    pub recoveries: Histogram,
}

/// A cell doesn't hold what was to be taken away: it has to be built again from the facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drift;

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the cell does not hold this contribution; build it again from the facts")
    }
}

impl std::error::Error for Drift {}

impl Cell {
    fn numbers(&mut self) -> [&mut u64; 12] {
        let [hour, day, week, month, half_year] = &mut self.bands;
        [
            &mut self.deployed,
            &mut self.could_fail,
            &mut self.failed,
            &mut self.worked,
            &mut self.reworked,
            &mut self.failed_before_traffic,
            &mut self.rollbacks,
            hour,
            day,
            week,
            month,
            half_year,
        ]
    }

    /// Adds a contribution.
    pub fn add(&mut self, contribution: &Contribution) {
        for (sum, part) in self.numbers().into_iter().zip(parts(contribution)) {
            *sum += part;
        }
        contribution.leads.iter().for_each(|lead| self.leads.add(*lead));
        contribution.recovery.iter().for_each(|recovery| self.recoveries.add(*recovery));
    }

    /// Takes a contribution away that was added before.
    ///
    /// # Errors
    /// When it can't have been added. The cell is then unchanged.
    pub fn remove(&mut self, contribution: &Contribution) -> Result<(), Drift> {
        let mut after = self.clone();
        for (sum, part) in after.numbers().into_iter().zip(parts(contribution)) {
            *sum = sum.checked_sub(part).ok_or(Drift)?;
        }
        let leads = contribution.leads.iter().all(|lead| after.leads.remove(*lead));
        let recovery =
            contribution.recovery.iter().all(|recovery| after.recoveries.remove(*recovery));
        if !(leads && recovery) {
            return Err(Drift);
        }
        *self = after;
        Ok(())
    }

    /// Adds everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        let mut theirs = other.clone();
        for (sum, part) in self.numbers().into_iter().zip(theirs.numbers()) {
            *sum += *part;
        }
        self.leads.merge(&other.leads);
        self.recoveries.merge(&other.recoveries);
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The share of failed deployments; `None` when there were none that could fail.
    #[must_use]
    pub fn fail_rate(&self) -> Option<f64> {
        (self.could_fail > 0).then(|| self.failed as f64 / self.could_fail as f64)
    }

    /// The share of rework; `None` without deployments.
    #[must_use]
    pub fn rework_rate(&self) -> Option<f64> {
        (self.worked > 0).then(|| self.reworked as f64 / self.worked as f64)
    }

    /// The cell as bytes. Equal cells give equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![1];
        for number in self.clone().numbers() {
            write_number(&mut out, *number);
        }
        self.leads.write(&mut out);
        self.recoveries.write(&mut out);
        out
    }

    /// Reads what [`Self::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        if read_number(bytes)? != 1 {
            return None;
        }
        let mut cell = Self::default();
        for number in cell.numbers() {
            *number = read_number(bytes)?;
        }
        cell.leads = Histogram::read(bytes)?;
        cell.recoveries = Histogram::read(bytes)?;
        bytes.is_empty().then_some(cell)
    }
}

fn parts(contribution: &Contribution) -> [u64; 12] {
    let one = u64::from;
    let within = |edge: u64| contribution.leads.partition_point(|lead| *lead <= edge) as u64;
    let [hour, day, week, month, half_year] = BANDS.map(within);
    [
        one(contribution.deployed),
        one(contribution.failed.is_some()),
        one(contribution.failed == Some(true)),
        one(contribution.rework.is_some()),
        one(contribution.rework == Some(true)),
        one(contribution.failed_before_traffic),
        one(contribution.rollback),
        hour,
        day,
        week,
        month,
        half_year,
    ]
}

/// How long a cell's bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// An hour of UTC; for the whole organization only.
    Hour,
    /// A calendar day of the reporting zone.
    Day,
    /// A calendar month of the reporting zone.
    Month,
}

/// Whose deployments a cell adds up.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everybody's.
    Organization,
    /// A team's, as it owned them at that time.
    Team(String),
    /// A service's.
    Service(ServiceName),
}

/// Which cell.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CellKey {
    /// Its length.
    pub tier: Tier,
    /// Its owner.
    pub scope: Scope,
    /// Its start.
    pub start: Timestamp,
}

/// The cells of a deployment that counts at `at`: day and month for the organization, the team and the
/// service, and the hour for the organization.
#[must_use]
pub fn cell_keys(
    at: Timestamp,
    service: &ServiceName,
    team: Option<&str>,
    zone: &TimeZone,
) -> Vec<CellKey> {
    let local = at.to_jiff().to_zoned(zone.clone());
    let day = local.start_of_day().unwrap_or_else(|_| local.clone());
    let back = i64::from(local.day()) - 1;
    let month = local
        .checked_sub(back.days())
        .and_then(|first| first.start_of_day())
        .unwrap_or_else(|_| day.clone());
    let hour = Timestamp(at.0 - at.0.rem_euclid(3_600_000_000));
    let mut scopes = vec![Scope::Organization, Scope::Service(service.clone())];
    scopes.extend(team.map(|team| Scope::Team(team.to_owned())));
    let mut keys = vec![CellKey { tier: Tier::Hour, scope: Scope::Organization, start: hour }];
    for scope in scopes {
        let start = |zoned: &jiff::Zoned| Timestamp::from(zoned.timestamp());
        keys.push(CellKey { tier: Tier::Day, scope: scope.clone(), start: start(&day) });
        keys.push(CellKey { tier: Tier::Month, scope, start: start(&month) });
    }
    keys
}
