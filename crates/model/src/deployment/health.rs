//! How a canary's limits and comparisons stand, as the judge says it and people see it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::plan::HealthLimit;

/// A limit or comparison, and how it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// The limit; absent for a comparison with the old release.
    pub limit: Option<HealthLimit>,
    /// `error_rate < 1 %`, `p95_ms < 300`, `error_rate against the old release`.
    pub text: String,
    /// In a word.
    pub state: HealthState,
    /// The new release's value: a share (0 to 1) or milliseconds.
    pub value: Option<f64>,
    /// The old release's value over the same time.
    pub baseline: Option<f64>,
    /// The value is at least this with 99 % confidence, however often it was looked at. For a
    /// latency limit it is the share of requests that took longer.
    pub lower_bound: Option<f64>,
    /// Requests that it rests on.
    pub requests: u64,
    /// Requests that are needed before it can count as holding.
    pub needed: u64,
    /// Evidence against "no worse", as a factor: 1 says nothing, at `evidence_limit` it is broken.
    pub evidence: f64,
    /// Where evidence is enough.
    pub evidence_limit: f64,
}

/// How a limit or comparison stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Nothing speaks against it, on enough data.
    Holding,
    /// It is broken.
    Broken,
    /// Too few requests to say.
    TooLittleData,
}

impl HealthState {
    /// What follows from the evidence and the number of requests.
    #[must_use]
    pub const fn of(broken: bool, requests: u64, needed: u64) -> Self {
        if broken {
            Self::Broken
        } else if requests < needed {
            Self::TooLittleData
        } else {
            Self::Holding
        }
    }
}
