//! The judge: is the new release worse than it may be, as far as the proxy's counters say?
//!
//! Three layers, strongest first:
//!
//! 1. **Hard limits**: at least half of the answers are errors, over at least 8 requests.
//! 2. **Limits** of the pipeline (`error_rate < 1 %`, `p95_ms < 300`): broken only when the lower
//!    confidence bound exceeds the limit.
//! 3. **Comparison** with a same-size sample of the old release over the same slice of time. It
//!    counts only when the difference also matters ([`MATTERS`]).
//!
//! The tests of 2 and 3 are e-processes over slices of time: they may be looked at after every
//! slice, for ever, and all of them together call a healthy release broken with a probability of at
//! most [`ALPHA`]. Errors that come in bursts are one slice, not many independent errors.
//!
//! The judge is pure: it reads [`TrafficReport`]s and is a value that can be stored and read back.
//! It never decides on missing data: [`Judge::enough`] says what is missing.

use std::time::Duration;

use pipeyard_model::{
    Timestamp,
    fleet::{ArmReport, TrafficReport},
    plan::HealthLimit,
};
use serde::{Deserialize, Serialize};

mod counts;
mod evidence;
mod limits;
mod ruling;
#[cfg(test)]
mod simulation;
mod standing;

pub use counts::Counts;

use counts::{as_bad, share};
use evidence::{MeanTest, SignTest, sample_marked};
use limits::{against, allowed, counted};

/// Probability to call a healthy release broken, over all tests and looks together.
pub const ALPHA: f64 = 0.01;
/// A slice is at least this long; a burst of errors should fit into it.
const SLICE: Duration = Duration::from_secs(5);
/// A slice holds at least so many requests of the new release.
const SLICE_REQUESTS: u64 = 10;
/// A difference matters when the new release's share is at least so many times the old one's, and
/// half a point more; for latency, when its p95 is so many times the old one's and 20 ms more.
pub const MATTERS: f64 = 1.5;
/// Hard limit: at least half of so many requests.
const HARD_REQUESTS: u64 = 8;
/// How long errors must have gone on before the hard limit counts them.
const HARD_FOR: Duration = Duration::from_secs(3);
/// While the evidence against a release is above this, a step doesn't pass.
const DOUBT: f64 = 10.0;

/// What the judge says after a reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// Nothing speaks against it so far.
    Goes,
    /// It is broken.
    Broken(Finding),
}

/// Why it is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `mostly_errors`, `limit_broken`, `worse_than_before`.
    pub code: &'static str,
    /// In words and numbers.
    pub message: String,
}

/// A closed slice, for the record.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// The new release.
    pub canary: Counts,
    /// The old release.
    pub stable: Counts,
}

/// Judges one canary from its first traffic to its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Judge {
    seed: u64,
    slices: u64,
    started: Option<Timestamp>,
    last: Option<Last>,
    open: Open,
    canary: Counts,
    stable: Counts,
    first_error: Option<Timestamp>,
    /// Slices in a row in which at least half of the answers were errors.
    mostly_errors: u32,
    limits: Vec<(HealthLimit, MeanTest)>,
    errors: SignTest,
    /// Only with a latency limit.
    latency: Option<SignTest>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Last {
    at: Timestamp,
    boot: String,
    canary: Counts,
    stable: Counts,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Open {
    since: Option<Timestamp>,
    canary: Counts,
    stable: Counts,
}

impl Judge {
    /// A judge that has seen nothing. `seed` decides which of the old release's requests are drawn.
    #[must_use]
    pub fn new(limits: &[HealthLimit], seed: u64) -> Self {
        let compares_latency = limits.iter().any(|l| matches!(l, HealthLimit::LatencyMs { .. }));
        let tests = limits.len() + 1 + usize::from(compares_latency);
        let enough = tests as f64 / ALPHA;
        let limits = limits.iter().map(|l| (*l, MeanTest::new(allowed(l), enough))).collect();
        Self {
            seed,
            slices: 0,
            started: None,
            last: None,
            open: Open::default(),
            canary: Counts::default(),
            stable: Counts::default(),
            first_error: None,
            mostly_errors: 0,
            limits,
            errors: SignTest::new(enough),
            latency: compares_latency.then(|| SignTest::new(enough)),
        }
    }

    /// Takes a reading of the proxy's counters. The first one only sets the start. Answers the
    /// ruling and, when a slice closed, that slice.
    ///
    /// A reading without one of the two releases is passed over: its counters would seem to begin
    /// anew when it is back.
    pub fn observe(&mut self, report: &TrafficReport) -> (Ruling, Option<Slice>) {
        if self.last.is_some() && (report.canary.is_none() || report.stable.is_none()) {
            return (Ruling::Goes, None);
        }
        let counts = |arm: &Option<ArmReport>| arm.as_ref().map(Counts::of).unwrap_or_default();
        let now = Last {
            at: report.at,
            boot: report.boot.clone(),
            canary: counts(&report.canary),
            stable: counts(&report.stable),
        };
        let Some(last) = self.last.replace(now.clone()) else {
            self.started = Some(report.at);
            self.open.since = Some(report.at);
            return (Ruling::Goes, None);
        };
        // A proxy that started anew counts from zero.
        let (canary, stable) = if last.boot == now.boot {
            (now.canary.since(&last.canary), now.stable.since(&last.stable))
        } else {
            (now.canary, now.stable)
        };
        if canary.errors > 0 && self.first_error.is_none() {
            // They came after the last reading.
            self.first_error = Some(last.at);
        }
        for (total, open, more) in [
            (&mut self.canary, &mut self.open.canary, &canary),
            (&mut self.stable, &mut self.open.stable, &stable),
        ] {
            total.add(more);
            open.add(more);
        }
        let since = *self.open.since.get_or_insert(last.at);
        let full = report.at.since(since) >= SLICE && self.open.canary.requests >= SLICE_REQUESTS;
        let slice = full.then(|| self.close(report.at));
        (self.rule(report.at), slice)
    }

    /// How long ago the first reading was.
    #[must_use]
    pub fn age(&self, now: Timestamp) -> Duration {
        self.started.map(|s| now.since(s)).unwrap_or_default()
    }

    /// When it last read the counters.
    #[must_use]
    pub fn last_reading(&self) -> Option<Timestamp> {
        self.last.as_ref().map(|last| last.at)
    }

    /// Requests of the new release so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.canary.requests
    }

    fn close(&mut self, now: Timestamp) -> Slice {
        let Open { canary, stable, .. } = std::mem::take(&mut self.open);
        self.open.since = Some(now);
        self.slices += 1;
        for (limit, test) in &mut self.limits {
            if let Some(share) = share(against(limit, &canary), counted(limit, &canary)) {
                test.add(share);
            }
        }
        let seed = self.seed ^ self.slices.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let difference = |marked: fn(&Counts, u64) -> u64, limit: u64| {
            let size = canary.requests.min(stable.requests).min(5_000);
            let new = sample_marked(marked(&canary, limit), canary.requests, size, seed);
            let old = sample_marked(marked(&stable, limit), stable.requests, size, !seed);
            new as f64 - old as f64
        };
        self.errors.add(difference(|c, _| c.errors, 0));
        if let Some(test) = &mut self.latency {
            // The line is drawn by what was known of the old release before this slice.
            let before = self.stable.since(&stable);
            if before.requests >= 100
                && let Some(p95) = before.latency.quantile_us(0.95)
            {
                test.add(difference(|c, us| c.slower_than_us(us).min(c.requests), p95));
            }
        }
        let bad = canary.errors * 2 >= canary.requests && !as_bad(&canary, &stable);
        self.mostly_errors = if bad { self.mostly_errors + 1 } else { 0 };
        Slice { canary, stable }
    }
}
