//! The DORA metrics with the rows behind them.

use std::collections::BTreeMap;

use pipeyard_model::{DeploymentId, EnvironmentName, IncidentId, ServiceName, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The five DORA metrics and the time to restore, for a window.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DoraView {
    /// `dora`.
    pub kind: String,
    /// Only this environment; every production environment if absent.
    pub environment: Option<EnvironmentName>,
    /// Only this service; all if absent. Blending services is the reader's own risk.
    pub service: Option<ServiceName>,
    /// Start of the window, inclusive.
    pub since: Timestamp,
    /// End of the window, exclusive.
    pub until: Timestamp,
    /// `day`, `week` (ISO, Monday) or `month`, in UTC.
    pub by: String,
    /// In this order: `deployment_frequency`, `change_lead_time`, `change_fail_rate`,
    /// `failed_deployment_recovery_time`, `rework_rate`, `time_to_restore`.
    pub metrics: Vec<MetricView>,
    /// What a reader should know: provisional days, excluded rows, blended services.
    pub notes: Vec<String>,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricView {
    /// Stable name.
    pub name: String,
    /// For people.
    pub title: String,
    /// The value over the window: deployments per day, a median in seconds, or a ratio. Absent
    /// when nothing was measured.
    pub value: Option<f64>,
    /// `per_day`, `seconds`, `ratio`.
    pub unit: String,
    /// What the value rests on: deployments, commits or incidents.
    pub n: u64,
    /// How many of `n` count against it, for a ratio.
    pub numerator: Option<u64>,
    /// The value of the window of the same length before this one.
    pub previous: Option<f64>,
    /// Its `n`.
    pub previous_n: u64,
    /// Further percentiles of a duration, lower rank: `p75`, `p90`, `p95`.
    pub percentiles: BTreeMap<String, f64>,
    /// Over time; an empty bucket of a duration or ratio has no value.
    pub buckets: Vec<BucketView>,
    /// The rows behind the value, newest first, with the reason why each counts or doesn't; at most
    /// 1,000.
    pub rows: Vec<DoraRow>,
    /// How many rows there are.
    pub rows_total: u64,
}

/// One bucket of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BucketView {
    /// Its start.
    pub start: Timestamp,
    /// Its value.
    pub value: Option<f64>,
    /// What the value rests on.
    pub n: u64,
    /// Late incidents may still change it.
    pub provisional: bool,
}

/// A row behind a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DoraRow {
    /// The deployment.
    pub deployment: Option<DeploymentId>,
    /// The incident.
    pub incident: Option<IncidentId>,
    /// The commit, for lead time.
    pub commit: Option<String>,
    /// The moment that puts it into a bucket.
    pub at: Timestamp,
    /// Its own value: seconds, or 1 and 0 for a ratio.
    pub value: Option<f64>,
    /// `counted`, `numerator` (counted, and against the metric), `excluded`.
    pub counts: String,
    /// Why, in words.
    pub reason: String,
}
