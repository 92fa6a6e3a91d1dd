//! What a limit of the pipeline says about counts.

use pipeyard_model::plan::HealthLimit;

use super::Counts;

/// The share of requests that may be against the limit.
pub(super) fn allowed(limit: &HealthLimit) -> f64 {
    match limit {
        HealthLimit::ErrorRate(share) => *share,
        HealthLimit::LatencyMs { percentile, .. } => 1.0 - f64::from(*percentile) / 100.0,
    }
}

/// How many requests are against the limit.
pub(super) fn against(limit: &HealthLimit, counts: &Counts) -> u64 {
    match limit {
        HealthLimit::ErrorRate(_) => counts.errors.min(counts.requests),
        HealthLimit::LatencyMs { below, .. } => counts.slower_than_us((below * 1000.0) as u64),
    }
}

/// How many requests the limit looks at.
pub(super) fn counted(limit: &HealthLimit, counts: &Counts) -> u64 {
    match limit {
        HealthLimit::ErrorRate(_) => counts.requests,
        HealthLimit::LatencyMs { .. } => counts.latency.count(),
    }
}

/// How many requests are needed before a limit can count as held: so many that a gross breach
/// would have been seen.
pub(super) fn needed(limit: &HealthLimit) -> u64 {
    let share = allowed(limit).max(1e-6);
    match limit {
        HealthLimit::ErrorRate(_) => (1.0 / share).ceil().clamp(100.0, 1_000.0) as u64,
        HealthLimit::LatencyMs { .. } => (5.0 / share).ceil().clamp(100.0, 500.0) as u64,
    }
}
