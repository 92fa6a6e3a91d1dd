//! Windows and their buckets: calendar days, ISO weeks and months of one reporting zone, with the days
//! of 23 and 25 hours that a zone really has.

use std::fmt;

use jiff::{ToSpan, Zoned, civil::Weekday, tz::TimeZone};
use pipeyard_model::Timestamp;
use serde::{Deserialize, Serialize};

/// More buckets than this are not a chart.
const MAX_BUCKETS: usize = 4_000;

/// How long a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A calendar day.
    Day,
    /// An ISO week, from Monday.
    Week,
    /// A calendar month.
    Month,
}

/// A span of time, `since` inclusive, `until` exclusive, with its buckets.
#[derive(Debug, Clone)]
pub struct Window {
    /// Inclusive.
    pub since: Timestamp,
    /// Exclusive.
    pub until: Timestamp,
    /// The size of its buckets.
    pub by: By,
    zone: TimeZone,
    /// Starts of the buckets, and the end of the last.
    edges: Vec<Timestamp>,
}

/// A window that can't be reported on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadWindow {
    /// It ends before it begins, or holds nothing.
    Empty,
    /// It has more than 4,000 buckets.
    TooManyBuckets,
}

impl fmt::Display for BadWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the window ends before it begins",
            Self::TooManyBuckets => "the window has over 4,000 buckets; choose longer buckets",
        })
    }
}

impl std::error::Error for BadWindow {}

impl Window {
    /// A window in a reporting zone.
    ///
    /// # Errors
    /// When it holds no time, or too many buckets.
    pub fn new(
        since: Timestamp,
        until: Timestamp,
        by: By,
        zone: TimeZone,
    ) -> Result<Self, BadWindow> {
        if since >= until {
            return Err(BadWindow::Empty);
        }
        let mut edges = Vec::new();
        let mut at = bucket_start(since, by, &zone).ok_or(BadWindow::TooManyBuckets)?;
        loop {
            let start = Timestamp::from(at.timestamp());
            edges.push(start);
            if start >= until {
                break;
            }
            if edges.len() > MAX_BUCKETS {
                return Err(BadWindow::TooManyBuckets);
            }
            at = next(&at, by).ok_or(BadWindow::TooManyBuckets)?;
        }
        Ok(Self { since, until, by, zone, edges })
    }

    /// A window with buckets of UTC.
    ///
    /// # Errors
    /// See [`Self::new`].
    pub fn utc(since: Timestamp, until: Timestamp, by: By) -> Result<Self, BadWindow> {
        Self::new(since, until, by, TimeZone::UTC)
    }

    /// The window of the same length right before this one.
    #[must_use]
    pub fn previous(&self) -> (Timestamp, Timestamp) {
        (Timestamp(self.since.0.saturating_sub(self.until.0 - self.since.0)), self.since)
    }

    /// Whether a moment is inside.
    #[must_use]
    pub fn contains(&self, at: Timestamp) -> bool {
        self.since <= at && at < self.until
    }

    /// How many buckets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.edges.len() - 1
    }

    /// Never: a window has at least one bucket.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Which bucket a moment of the window belongs to.
    #[must_use]
    pub fn bucket_of(&self, at: Timestamp) -> Option<usize> {
        self.contains(at).then(|| self.edges.partition_point(|edge| *edge <= at) - 1)
    }

    /// Start and end of a bucket, by the calendar; the window may begin later and end earlier.
    #[must_use]
    pub fn bucket(&self, n: usize) -> (Timestamp, Timestamp) {
        (self.edges[n], self.edges[n + 1])
    }

    /// Where its buckets begin and end inside the window: `since`, the buckets' starts, `until`.
    #[must_use]
    pub fn edges(&self) -> Vec<Timestamp> {
        let mut edges = self.edges.clone();
        edges[0] = self.since;
        let last = edges.len() - 1;
        edges[last] = self.until;
        edges
    }

    /// How many calendar days the part of the window between two moments has. A day that is only
    /// partly inside counts by its share; a day of 23 hours is one day.
    #[must_use]
    pub fn days_between(&self, from: Timestamp, to: Timestamp) -> f64 {
        let (from, to) =
            (from.to_jiff().to_zoned(self.zone.clone()), to.to_jiff().to_zoned(self.zone.clone()));
        let whole = from.date().until(to.date()).map_or(0, |span| span.get_days());
        f64::from(whole) + day_fraction(&to) - day_fraction(&from)
    }

    /// The calendar day of a moment, as a number that grows by one each day.
    pub(crate) fn day_of(&self, at: Timestamp) -> i64 {
        let date = at.to_jiff().to_zoned(self.zone.clone()).date();
        i64::from(jiff::civil::date(1970, 1, 1).until(date).map_or(0, |span| span.get_days()))
    }
}

fn day_fraction(at: &Zoned) -> f64 {
    let Ok(start) = at.start_of_day() else { return 0.0 };
    let Some(end) = start.tomorrow().ok().and_then(|next| next.start_of_day().ok()) else {
        return 0.0;
    };
    let micros = |zoned: &Zoned| zoned.timestamp().as_microsecond();
    let length = micros(&end) - micros(&start);
    (micros(at) - micros(&start)) as f64 / length.max(1) as f64
}

fn bucket_start(at: Timestamp, by: By, zone: &TimeZone) -> Option<Zoned> {
    let local = at.to_jiff().to_zoned(zone.clone());
    let back = match by {
        By::Day => 0,
        By::Week => i64::from(local.weekday().since(Weekday::Monday)),
        By::Month => i64::from(local.day()) - 1,
    };
    local.checked_sub(back.days()).ok()?.start_of_day().ok()
}

fn next(at: &Zoned, by: By) -> Option<Zoned> {
    let step = match by {
        By::Day => 1.day(),
        By::Week => 1.week(),
        By::Month => 1.month(),
    };
    // Midnight may not exist on the day that daylight saving begins.
    at.date().checked_add(step).ok()?.to_zoned(at.time_zone().clone()).ok()?.start_of_day().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn weeks_begin_on_monday() {
        // 2026-03-01 is a Sunday.
        let window =
            Window::utc(at("2026-03-01T12:00:00Z"), at("2026-03-10T00:00:00Z"), By::Week).unwrap();
        assert_eq!(window.bucket(0).0, at("2026-02-23T00:00:00Z"));
        assert_eq!(window.bucket(1).0, at("2026-03-02T00:00:00Z"));
        assert_eq!(window.len(), 3);
    }

    #[test]
    fn a_day_of_23_hours_is_one_day() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let (from, to) = (at("2026-03-28T23:00:00Z"), at("2026-03-29T22:00:00Z"));
        let window = Window::new(from, to, By::Day, zone).unwrap();
        assert_eq!(window.len(), 1);
        assert!((window.days_between(from, to) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_moment_belongs_to_the_day_of_the_reporting_zone() {
        let seoul = TimeZone::fixed(jiff::tz::offset(9));
        let window =
            Window::new(at("2026-03-01T00:00:00Z"), at("2026-03-03T00:00:00Z"), By::Day, seoul)
                .unwrap();
        assert_eq!(window.bucket_of(at("2026-03-01T14:59:59Z")), Some(0));
        assert_eq!(window.bucket_of(at("2026-03-01T15:00:00Z")), Some(1));
        assert_eq!(window.bucket_of(at("2026-03-03T00:00:00Z")), None);
    }

    #[test]
    fn a_window_is_refused_when_it_has_no_time_or_no_end_of_buckets() {
        let (a, b) = (at("2026-03-01T00:00:00Z"), at("2046-03-01T00:00:00Z"));
        assert_eq!(Window::utc(a, a, By::Day).unwrap_err(), BadWindow::Empty);
        assert_eq!(Window::utc(a, b, By::Day).unwrap_err(), BadWindow::TooManyBuckets);
        assert!(Window::utc(a, b, By::Month).is_ok());
    }
}
