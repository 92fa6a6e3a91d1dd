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
    deployment::{limit_text, short, trimmed},
    fleet::{ArmReport, LatencyHistogram, TrafficReport},
    plan::HealthLimit,
};
use serde::{Deserialize, Serialize};

mod evidence;
#[cfg(test)]
mod simulation;

use evidence::{MeanTest, SignTest, sample_marked};

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

/// What was counted of one arm in a stretch of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that were answered, or given up.
    pub requests: u64,
    /// Of these: 5xx or no answer.
    pub errors: u64,
    /// Time to the answer's head.
    pub latency: LatencyHistogram,
}

impl Counts {
    fn of(arm: &ArmReport) -> Self {
        Self {
            requests: arm.requests.saturating_sub(arm.in_flight),
            errors: arm.errors,
            latency: arm.latency.clone(),
        }
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
            latency: self.latency.since(&earlier.latency),
        }
    }

    fn add(&mut self, more: &Self) {
        self.requests += more.requests;
        self.errors += more.errors;
        let buckets = &mut self.latency.buckets;
        for bucket in &more.latency.buckets {
            match buckets.binary_search_by_key(&bucket.le_us, |b| b.le_us) {
                Ok(i) => buckets[i].count += bucket.count,
                Err(i) => buckets.insert(i, *bucket),
            }
        }
        self.latency.sum_us += more.latency.sum_us;
    }

    /// Share of errors; none without a request.
    #[must_use]
    pub fn error_share(&self) -> Option<f64> {
        share(self.errors, self.requests)
    }

    /// A percentile of the latency, in milliseconds.
    #[must_use]
    pub fn percentile_ms(&self, percentile: u8) -> Option<f64> {
        let us = self.latency.quantile_us(f64::from(percentile) / 100.0)?;
        Some(us as f64 / 1000.0)
    }

    /// How many took longer than this for certain: buckets that lie above it as a whole.
    fn slower_than_us(&self, limit_us: u64) -> u64 {
        let above = |le_us: u64| {
            let index = LatencyHistogram::index(le_us);
            index > 0 && LatencyHistogram::upper_us(index - 1) >= limit_us
        };
        self.latency.buckets.iter().filter(|b| above(b.le_us)).map(|b| b.count).sum()
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

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

/// How a limit or comparison stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The limit; none for a comparison.
    pub limit: Option<HealthLimit>,
    /// In words.
    pub text: String,
    /// It is broken.
    pub broken: bool,
    /// The new release's value: a share, or milliseconds.
    pub value: Option<f64>,
    /// The old release's value over the same time.
    pub baseline: Option<f64>,
    /// Lower confidence bound of a share.
    pub lower_bound: Option<f64>,
    /// Requests that it rests on.
    pub requests: u64,
    /// Requests that it needs before it can count as held.
    pub needed: u64,
    /// Evidence against it, as a factor.
    pub evidence: f64,
    /// Where it is broken.
    pub evidence_limit: f64,
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
    pub fn observe(&mut self, report: &TrafficReport) -> (Ruling, Option<Slice>) {
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

    fn rule(&self, now: Timestamp) -> Ruling {
        let after = short(self.age(now));
        let all = &self.canary;
        let go_on = self.first_error.is_some_and(|first| now.since(first) >= HARD_FOR);
        let half = all.requests >= HARD_REQUESTS && all.errors * 2 >= all.requests;
        if (half && go_on && !as_bad(all, &self.stable)) || self.mostly_errors >= 2 {
            let message = format!(
                "{} of {} answers of the new release were errors, after {after}",
                all.errors, all.requests
            );
            return Ruling::Broken(Finding { code: "mostly_errors", message });
        }
        for (limit, test) in &self.limits {
            if test.broken() {
                let bad = against(limit, all);
                let total = counted(limit, all);
                let bound = percent(test.lower_bound().unwrap_or_default());
                let message = match limit {
                    HealthLimit::ErrorRate(share) => format!(
                        "error_rate {} ({bad} of {total}) exceeds {}: lower bound {bound}, after {after}",
                        percent(bad as f64 / total.max(1) as f64),
                        percent(*share),
                    ),
                    HealthLimit::LatencyMs { percentile, below } => format!(
                        "p{percentile}_ms {} exceeds {}: {} of requests ({bad} of {total}) took longer, \
                         where {} may; lower bound {bound}, after {after}",
                        all.percentile_ms(*percentile).map(trimmed).unwrap_or_default(),
                        trimmed(*below),
                        percent(bad as f64 / total.max(1) as f64),
                        percent(allowed(limit)),
                    ),
                };
                return Ruling::Broken(Finding { code: "limit_broken", message });
            }
        }
        if let Some(message) = self.worse(&after) {
            return Ruling::Broken(Finding { code: "worse_than_before", message });
        }
        Ruling::Goes
    }

    fn worse(&self, after: &str) -> Option<String> {
        if !self.errors.broken() && !self.latency.as_ref().is_some_and(SignTest::broken) {
            return None;
        }
        let (new, old) = (&self.canary, &self.stable);
        let (new_share, old_share) = (new.error_share()?, old.error_share()?);
        if self.errors.broken()
            && new_share >= old_share * MATTERS
            && new_share - old_share >= 0.005
        {
            return Some(format!(
                "error_rate {} ({} of {}) is worse than {} of the old release over the same time: \
                 evidence {}, where {} is enough, after {after}",
                percent(new_share),
                new.errors,
                new.requests,
                percent(old_share),
                factor(self.errors.evidence()),
                factor(self.errors.enough()),
            ));
        }
        let test = self.latency.as_ref()?;
        let (new_p95, old_p95) = (new.percentile_ms(95)?, old.percentile_ms(95)?);
        if test.broken() && new_p95 >= old_p95 * MATTERS && new_p95 - old_p95 >= 20.0 {
            return Some(format!(
                "p95_ms {} ({} requests) is worse than {} of the old release over the same time: \
                 evidence {}, where {} is enough, after {after}",
                trimmed(new_p95),
                new.requests,
                trimmed(old_p95),
                factor(test.evidence()),
                factor(test.enough()),
            ));
        }
        None
    }

    /// Whether there is enough data, and no doubt, to let a step pass; otherwise what is missing.
    ///
    /// # Errors
    /// In words: what is missing.
    pub fn enough(&self) -> Result<(), String> {
        for standing in self.standings() {
            if standing.requests < standing.needed {
                return Err(format!(
                    "too little data for {}: {} of {} requests",
                    standing.text, standing.requests, standing.needed
                ));
            }
            let matters = standing.limit.is_some()
                || standing.value.unwrap_or_default()
                    >= standing.baseline.unwrap_or_default() * MATTERS;
            if standing.evidence >= DOUBT && matters {
                return Err(format!(
                    "{} is in doubt: evidence {} against it, where {} is enough",
                    standing.text,
                    factor(standing.evidence),
                    factor(standing.evidence_limit)
                ));
            }
        }
        Ok(())
    }

    /// How every limit and comparison stands.
    #[must_use]
    pub fn standings(&self) -> Vec<Standing> {
        let (new, old) = (&self.canary, &self.stable);
        let mut all: Vec<Standing> = self
            .limits
            .iter()
            .map(|(limit, test)| {
                let value = |counts: &Counts| match limit {
                    HealthLimit::ErrorRate(_) => counts.error_share(),
                    HealthLimit::LatencyMs { percentile, .. } => counts.percentile_ms(*percentile),
                };
                Standing {
                    limit: Some(*limit),
                    text: limit_text(limit),
                    broken: test.broken(),
                    value: value(new),
                    baseline: value(old),
                    lower_bound: test.lower_bound(),
                    requests: counted(limit, new),
                    needed: needed(limit),
                    evidence: test.evidence(),
                    evidence_limit: test.enough(),
                }
            })
            .collect();
        let broken = self.worse("").is_some();
        let compared = |text: &str, test: &SignTest, value: fn(&Counts) -> Option<f64>| Standing {
            limit: None,
            text: text.to_owned(),
            broken: broken && test.broken(),
            value: value(new),
            baseline: value(old),
            lower_bound: None,
            requests: new.requests,
            needed: 100,
            evidence: test.evidence(),
            evidence_limit: test.enough(),
        };
        let errors = "error_rate against the old release";
        all.push(compared(errors, &self.errors, Counts::error_share));
        if let Some(test) = &self.latency {
            let p95 = |counts: &Counts| counts.percentile_ms(95);
            all.push(compared("p95_ms against the old release", test, p95));
        }
        all
    }

    /// Why it passes, in words and numbers.
    #[must_use]
    pub fn why_it_passes(&self, now: Timestamp) -> String {
        let new = &self.canary;
        let errors = percent(new.error_share().unwrap_or_default());
        let p95 = new.percentile_ms(95).map(trimmed).unwrap_or_else(|| "?".into());
        format!(
            "all limits held: error_rate {errors} ({} of {}), p95_ms {p95}, after {}",
            new.errors,
            new.requests,
            short(self.age(now))
        )
    }
}

/// The share of requests that may be against the limit.
fn allowed(limit: &HealthLimit) -> f64 {
    match limit {
        HealthLimit::ErrorRate(share) => *share,
        HealthLimit::LatencyMs { percentile, .. } => 1.0 - f64::from(*percentile) / 100.0,
    }
}

/// How many requests are against the limit.
fn against(limit: &HealthLimit, counts: &Counts) -> u64 {
    match limit {
        HealthLimit::ErrorRate(_) => counts.errors.min(counts.requests),
        HealthLimit::LatencyMs { below, .. } => counts.slower_than_us((below * 1000.0) as u64),
    }
}

/// How many requests the limit looks at.
fn counted(limit: &HealthLimit, counts: &Counts) -> u64 {
    match limit {
        HealthLimit::ErrorRate(_) => counts.requests,
        HealthLimit::LatencyMs { .. } => counts.latency.count(),
    }
}

/// How many requests are needed before a limit can count as held: so many that a gross breach
/// would have been seen.
fn needed(limit: &HealthLimit) -> u64 {
    let share = allowed(limit).max(1e-6);
    match limit {
        HealthLimit::ErrorRate(_) => (1.0 / share).ceil().clamp(100.0, 1_000.0) as u64,
        HealthLimit::LatencyMs { .. } => (5.0 / share).ceil().clamp(100.0, 500.0) as u64,
    }
}

/// The old release fails about as much: then it isn't the new one's doing.
fn as_bad(new: &Counts, old: &Counts) -> bool {
    old.requests >= HARD_REQUESTS
        && old.error_share().unwrap_or_default() * 2.0 >= new.error_share().unwrap_or_default()
}

fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

fn factor(evidence: f64) -> String {
    if evidence >= 1e6 { format!("{evidence:.0e}") } else { format!("{evidence:.0}") }
}
