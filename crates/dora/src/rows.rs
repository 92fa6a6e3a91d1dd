//! The rows behind a number.

use pipeyard_model::{DeploymentId, IncidentId, Timestamp};
use serde::{Deserialize, Serialize};

/// How a row counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is in the metric.
    Counted,
    /// It is in the metric, and against it.
    Numerator,
    /// It isn't in the metric.
    Excluded,
}

impl Standing {
    /// The word for it in rows and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Numerator => "numerator",
            Self::Excluded => "excluded",
        }
    }
}

/// A deployment, commit or incident in the window, and why it counts or doesn't.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The deployment.
    pub deployment: Option<DeploymentId>,
    /// The incident.
    pub incident: Option<IncidentId>,
    /// The commit, for lead time.
    pub commit: Option<String>,
    /// The moment that puts it into a bucket.
    pub at: Timestamp,
    /// Its own value: seconds; for a count or ratio 1, or 0 when it is in the ratio but not against
    /// it. Absent when it has none.
    pub value: Option<f64>,
    /// How it counts.
    pub standing: Standing,
    /// Why, in a sentence.
    pub reason: String,
}
