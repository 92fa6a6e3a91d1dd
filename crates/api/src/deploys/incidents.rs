//! Production failures.

use pipeyard_model::{DeploymentId, EnvironmentName, IncidentId, ServiceName, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A production failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IncidentView {
    /// `incident` for every incident.
    pub kind: String,
    /// The number that people use.
    pub id: IncidentId,
    /// Where.
    pub environment: EnvironmentName,
    /// What.
    pub service: ServiceName,
    /// One line.
    pub title: String,
    /// When users began to suffer.
    pub impact_at: Timestamp,
    /// When somebody or something noticed.
    pub detected_at: Timestamp,
    /// When users stopped suffering; absent while it is open.
    pub restored_at: Option<Timestamp>,
    /// The deployment that caused it, as far as it is known.
    pub deployment: Option<DeploymentId>,
    /// How that is known: `manual`, `rollback`, `inferred` (the last success within 24 hours).
    pub link: Option<String>,
    /// Who opened it.
    pub opened_by: String,
    /// Who closed it.
    pub closed_by: Option<String>,
}

/// Opens an incident. The same `key` a second time answers the first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenIncident {
    /// Where.
    pub environment: EnvironmentName,
    /// What.
    pub service: ServiceName,
    /// One line, at most 200 characters.
    pub title: String,
    /// Identifies it for whoever opens it, so that a repeat changes nothing.
    #[serde(default)]
    pub key: Option<String>,
    /// When users began to suffer; now if absent. Not in the future.
    #[serde(default)]
    pub impact_at: Option<Timestamp>,
    /// When it was noticed; now if absent.
    #[serde(default)]
    pub detected_at: Option<Timestamp>,
    /// The deployment that caused it. Absent: the last success of this service within 24 hours
    /// before the impact, marked as inferred; if there is none, none.
    #[serde(default)]
    pub deployment: Option<DeploymentId>,
}

/// Closes an incident.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloseIncident {
    /// When users stopped suffering; now if absent. Not before the impact, not in the future.
    #[serde(default)]
    pub restored_at: Option<Timestamp>,
}
