//! Contributions added up by time and place. Addition has no order, and what was added can be taken
//! away, to the byte.

use std::fmt;

use jiff::tz::TimeZone;
use pipeyard_model::{EnvironmentName, ServiceName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    Contribution, Counts, Histogram,
    histogram::{read_number, write_number},
};

/// Upper edges of the lead time bands, in seconds: an hour, a day, a week, 30 days, 180 days.
const BANDS: [u64; 5] = [3_600, 86_400, 604_800, 2_592_000, 15_552_000];

/// Sums over the deployments and incidents of one bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// How many there are of what.
    pub counts: Counts,
    /// Commits with a lead time of at most an hour, a day, a week, 30 days, 180 days.
    pub bands: [u64; 5],
    /// Lead times.
    pub leads: Histogram,
    /// Recovery times.
    pub recoveries: Histogram,
    /// Times to restore.
    pub restores: Histogram,
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
    fn numbers(&mut self) -> impl Iterator<Item = &mut u64> {
        self.counts.all().into_iter().chain(self.bands.iter_mut())
    }

    /// Adds a contribution.
    pub fn add(&mut self, contribution: &Contribution) {
        for (sum, part) in self.numbers().zip(parts(contribution)) {
            *sum += part;
        }
        contribution.leads.iter().for_each(|seconds| self.leads.add(*seconds));
        contribution.recovery.iter().for_each(|seconds| self.recoveries.add(*seconds));
        contribution.restore.iter().for_each(|seconds| self.restores.add(*seconds));
    }

    /// Takes a contribution away that was added before.
    ///
    /// # Errors
    /// When it can't have been added. The cell is then unchanged.
    pub fn remove(&mut self, contribution: &Contribution) -> Result<(), Drift> {
        let mut after = self.clone();
        for (sum, part) in after.numbers().zip(parts(contribution)) {
            *sum = sum.checked_sub(part).ok_or(Drift)?;
        }
        let leads = contribution.leads.iter().all(|seconds| after.leads.remove(*seconds));
        let recovery =
            contribution.recovery.iter().all(|seconds| after.recoveries.remove(*seconds));
        let restore = contribution.restore.iter().all(|seconds| after.restores.remove(*seconds));
        if !(leads && recovery && restore) {
            return Err(Drift);
        }
        *self = after;
        Ok(())
    }

    /// Adds everything of `other`.
    pub fn merge(&mut self, other: &Self) {
        let mut theirs = other.clone();
        for (sum, part) in self.numbers().zip(theirs.numbers()) {
            *sum += *part;
        }
        self.leads.merge(&other.leads);
        self.recoveries.merge(&other.recoveries);
        self.restores.merge(&other.restores);
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
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
        self.restores.write(&mut out);
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
        cell.restores = Histogram::read(bytes)?;
        bytes.is_empty().then_some(cell)
    }
}

fn parts(contribution: &Contribution) -> impl Iterator<Item = u64> {
    let mut counts = contribution.counts;
    let within = |edge: u64| contribution.leads.partition_point(|lead| *lead <= edge) as u64;
    let bands = BANDS.map(within);
    counts.all().map(|number| *number).into_iter().chain(bands)
}

/// How long a cell's bucket is. Buckets are of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// An hour; for whole environments only.
    Hour,
    /// A day.
    Day,
    /// A calendar month.
    Month,
}

impl Tier {
    /// The tiers of a service's cells, the longest first.
    pub const OF_SERVICES: &'static [Self] = &[Self::Month, Self::Day];
    /// The tiers of an environment's cells, the longest first.
    pub const OF_ENVIRONMENTS: &'static [Self] = &[Self::Month, Self::Day, Self::Hour];

    /// The word for it in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The start of the bucket that a moment is in.
    #[must_use]
    pub fn start(self, at: Timestamp) -> Timestamp {
        match self {
            Self::Hour => Timestamp(at.0 - at.0.rem_euclid(HOUR)),
            Self::Day => Timestamp(at.0 - at.0.rem_euclid(DAY)),
            Self::Month => {
                let day = i64::from(at.to_jiff().to_zoned(TimeZone::UTC).day()) - 1;
                Timestamp(Self::Day.start(at).0 - day * DAY)
            }
        }
    }

    /// The end of the bucket that a moment is in: the start of the next one.
    #[must_use]
    pub fn end(self, at: Timestamp) -> Timestamp {
        let start = self.start(at);
        match self {
            Self::Hour => Timestamp(start.0 + HOUR),
            Self::Day => Timestamp(start.0 + DAY),
            // No month has more than 31 days, and the next begins within 32.
            Self::Month => self.start(Timestamp(start.0 + 32 * DAY)),
        }
    }
}

/// In microseconds.
const HOUR: i64 = 3_600_000_000;
/// In microseconds; a day of UTC has no other length.
const DAY: i64 = 24 * HOUR;

/// Which cell.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CellKey {
    /// Whose environment.
    pub environment: EnvironmentName,
    /// Only this service; all of the environment's if absent.
    pub service: Option<ServiceName>,
    /// Its length.
    pub tier: Tier,
    /// Its start.
    pub start: Timestamp,
}

/// The cells of what counts at `at`: day and month for its service and its environment, and the hour
/// for its environment.
pub fn cell_keys<'k>(
    at: Timestamp,
    environment: &'k EnvironmentName,
    service: &'k ServiceName,
) -> impl Iterator<Item = CellKey> + 'k {
    let key = move |service: Option<&ServiceName>, tier: Tier| CellKey {
        environment: environment.clone(),
        service: service.cloned(),
        tier,
        start: tier.start(at),
    };
    let of_service = Tier::OF_SERVICES.iter().map(move |tier| key(Some(service), *tier));
    of_service.chain(Tier::OF_ENVIRONMENTS.iter().map(move |tier| key(None, *tier)))
}

/// A stretch of time that is read in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Cells of this length, or contributions themselves.
    pub tier: Option<Tier>,
    /// Inclusive.
    pub from: Timestamp,
    /// Exclusive.
    pub to: Timestamp,
}

/// Cuts the spans between `edges` into the longest cells that fit, with contributions where none
/// does. `tiers` are those that there are, the longest first. Pieces of a kind that follow each other
/// are one, also over an edge: each cell in them belongs to the span that its start is in.
#[must_use]
pub fn pieces(edges: &[Timestamp], tiers: &[Tier]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for span in edges.windows(2) {
        let mut from = span[0];
        while from < span[1] {
            let fits = |tier: &&Tier| tier.start(from) == from && tier.end(from) <= span[1];
            let tier = tiers.iter().find(fits).copied();
            let to = match (tier, tiers.last()) {
                (Some(tier), _) => tier.end(from),
                (None, Some(shortest)) => shortest.end(from).min(span[1]),
                (None, None) => span[1],
            };
            match pieces.last_mut() {
                Some(last) if last.tier == tier && last.to == from => last.to = to,
                Some(_) | None => pieces.push(Piece { tier, from, to }),
            }
            from = to;
        }
    }
    pieces
}
