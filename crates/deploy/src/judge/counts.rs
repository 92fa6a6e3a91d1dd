//! What was counted, and what follows from counts alone.

use pipeyard_model::fleet::{ArmReport, LatencyHistogram};
use serde::{Deserialize, Serialize};

use super::HARD_REQUESTS;

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
    pub(super) fn of(arm: &ArmReport) -> Self {
        Self {
            requests: arm.requests.saturating_sub(arm.in_flight),
            errors: arm.errors,
            latency: arm.latency.clone(),
        }
    }

    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
            latency: self.latency.since(&earlier.latency),
        }
    }

    pub(super) fn add(&mut self, more: &Self) {
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
    pub(super) fn slower_than_us(&self, limit_us: u64) -> u64 {
        let above = |le_us: u64| {
            let index = LatencyHistogram::index(le_us);
            index > 0 && LatencyHistogram::upper_us(index - 1) >= limit_us
        };
        self.latency.buckets.iter().filter(|b| above(b.le_us)).map(|b| b.count).sum()
    }
}

/// None of nothing.
pub(super) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The old release fails about as much: then it isn't the new one's doing.
pub(super) fn as_bad(new: &Counts, old: &Counts) -> bool {
    old.requests >= HARD_REQUESTS
        && old.error_share().unwrap_or_default() * 2.0 >= new.error_share().unwrap_or_default()
}
