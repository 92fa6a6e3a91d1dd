//! How a deployment goes on: weights, health, targets, samples, and what happened.

use pipeyard_model::{Status, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One weight of a canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepProgress {
    /// Share of the traffic in percent; 100 is the last.
    pub weight: u8,
    /// How long to stay and judge, in seconds.
    pub hold_seconds: u64,
    /// How long it was judged on fresh data, in seconds.
    pub judged_seconds: u64,
    /// Where it stands.
    pub status: Status,
    /// Share that the proxy counted at this weight, in percent.
    pub measured_weight: Option<f64>,
    /// When the weight was set.
    pub started_at: Option<Timestamp>,
}

/// The judge's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerdictView {
    /// `healthy`, `broken`, `inconclusive`.
    pub verdict: String,
    /// Stable: `limit_broken`, `worse_than_before`, `mostly_errors`, `unhealthy`,
    /// `too_little_data`, `all_limits_held`.
    pub code: String,
    /// In words and numbers: `error_rate 8.2 % (41 of 500) exceeds 1 %: lower bound 5.4 %, after
    /// 23 s`.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// A host or container set in a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TargetView {
    /// Its name at the provider.
    pub id: String,
    /// `pending`, `in_progress`, `succeeded`, `failed`, `skipped`, `unknown`, `ready`.
    pub state: String,
    /// Lifecycle events in the order in which they ran.
    pub events: Vec<TargetEventView>,
}

/// One lifecycle event on a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TargetEventView {
    /// `BeforeInstall`, `AllowTraffic`, ...
    pub name: String,
    /// Like the target's state.
    pub state: String,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What failed: error code, script, message.
    pub problem: Option<String>,
    /// The end of its output.
    pub log_tail: Option<String>,
}

/// What was measured at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SampleView {
    /// When.
    pub at: Timestamp,
    /// The share that was asked for, in percent.
    pub intended_weight: u8,
    /// The share that the proxy counted, in percent.
    pub measured_weight: Option<f64>,
    /// The new release.
    pub canary: ArmView,
    /// The old release over the same time.
    pub stable: Option<ArmView>,
}

/// One side of a sample, since the sample before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ArmView {
    /// Requests that were answered, or given up.
    pub requests: u64,
    /// Of these: 5xx or no answer.
    pub errors: u64,
    /// Median latency in milliseconds.
    pub p50_ms: Option<f64>,
    /// 95th percentile in milliseconds.
    pub p95_ms: Option<f64>,
    /// 99th percentile in milliseconds.
    pub p99_ms: Option<f64>,
}

/// Something that happened to a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimelineView {
    /// From 1.
    pub n: i64,
    /// When.
    pub at: Timestamp,
    /// Who: a person's name, or `pipeyard`, `provider`, `judge`.
    pub who: String,
    /// Stable: `requested`, `approved`, `started`, `weight_set`, `verdict`, ...
    pub code: String,
    /// In words.
    pub message: String,
}

/// Commits that a deployment brought to its environment first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommitsView {
    /// `known`, `first_deployment` (no baseline, so none are counted), `unknown` (the objects are
    /// missing), `pending` (it hasn't started).
    pub state: String,
    /// How many.
    pub count: u64,
    /// The newest, at most 100.
    pub items: Vec<CommitView>,
}

/// A commit in a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommitView {
    /// Full SHA.
    pub sha: String,
    /// First line of its message.
    pub title: String,
    /// Its author's name.
    pub author: String,
    /// When its lead time begins.
    pub since: Timestamp,
}
