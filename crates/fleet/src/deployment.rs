//! What the fleet knows of one deployment and its targets. Data only; kept as JSON in a row.

use std::fmt;

use pipeyard_model::Timestamp;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// CodeDeploy's word for where a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeploymentStatus {
    /// Accepted, not begun.
    Created,
    /// At work.
    InProgress,
    /// The new set is healthy and waits for `ContinueDeployment`.
    Ready,
    /// Over and served.
    Succeeded,
    /// Over and not served.
    Failed,
    /// Ended by somebody, or by the end of the waiting time.
    Stopped,
}

impl DeploymentStatus {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Created,
        Self::InProgress,
        Self::Ready,
        Self::Succeeded,
        Self::Failed,
        Self::Stopped,
    ];

    /// Whether it still holds its group.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Created | Self::InProgress | Self::Ready)
    }

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::InProgress => "InProgress",
            Self::Ready => "Ready",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Stopped => "Stopped",
        }
    }
}

/// One deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deployment {
    pub(crate) id: String,
    pub(crate) application: String,
    pub(crate) group: String,
    pub(crate) platform: Platform,
    pub(crate) status: DeploymentStatus,
    pub(crate) created: Timestamp,
    pub(crate) started: Option<Timestamp>,
    pub(crate) completed: Option<Timestamp>,
    pub(crate) description: Option<String>,
    pub(crate) creator: Creator,
    /// The name of the deployment configuration.
    pub(crate) config: String,
    pub(crate) revision: Value,
    pub(crate) previous_revision: Option<Value>,
    /// The group as it was when the deployment was created; later changes don't touch it.
    pub(crate) settings: Settings,
    pub(crate) phase: Phase,
    pub(crate) stop: Option<Stop>,
    pub(crate) proceed: Proceed,
    pub(crate) error: Option<ErrorInformation>,
    pub(crate) rollback: Option<RollbackInfo>,
    /// The new set's intended weight, and since when.
    pub(crate) weight: u8,
    pub(crate) weight_since: Timestamp,
    /// The last epoch of a caller that moved the weight.
    pub(crate) weight_epoch: u64,
}

/// What a deployment takes from its group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Auto-rollback events, empty if it isn't enabled.
    pub(crate) rollback_on: Vec<String>,
    /// Minutes to wait in `Ready`; none shifts traffic at once.
    pub(crate) ready_minutes: Option<u32>,
    /// Minutes that the old set stays after the new one has all traffic.
    pub(crate) termination_minutes: u32,
    /// Groups of tag filters: one of each group must match a host.
    pub(crate) tags: Vec<Vec<TagFilter>>,
    /// The service's definition.
    pub(crate) service: pipeyard_model::fleet::ServiceDefinition,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TagFilter {
    #[serde(rename = "Key")]
    pub(crate) key: Option<String>,
    #[serde(rename = "Value")]
    pub(crate) value: Option<String>,
    #[serde(rename = "Type", default = "key_and_value")]
    pub(crate) kind: String,
}

fn key_and_value() -> String {
    "KEY_AND_VALUE".into()
}

impl TagFilter {
    pub(crate) fn matches(&self, tags: &[(String, String)]) -> bool {
        tags.iter().any(|(key, value)| {
            let (same_key, same_value) =
                (self.key.as_ref() == Some(key), self.value.as_ref() == Some(value));
            match self.kind.as_str() {
                "KEY_ONLY" => same_key,
                "VALUE_ONLY" => same_value,
                _ => same_key && same_value,
            }
        })
    }
}

/// The kinds of targets that this fleet has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Platform {
    #[serde(rename = "ECS")]
    Ecs,
    Server,
}

impl Platform {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ecs => "ECS",
            Self::Server => "Server",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Creator {
    User,
    CodeDeployRollback,
}

/// What the engine is doing: where it goes on after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Nothing happened yet.
    New,
    /// Blue/green: the new set is made and must become healthy.
    Starting,
    /// Blue/green: waiting for somebody's word until then.
    Ready { until: Timestamp },
    /// Blue/green: step `step` of the configuration's shift is served until then.
    Shifting { step: u32, until: Timestamp },
    /// Blue/green: the new set has all traffic; the old one stays until then.
    Keeping { until: Timestamp },
    /// Blue/green: requests in flight at the old set end, then it is removed.
    Retiring,
    /// Blue/green: the old set gets all traffic back and the new one is removed.
    Reverting { end: DeploymentStatus },
    /// In place: batch after batch.
    Rolling,
    /// Over.
    Done,
}

/// Somebody asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stop {
    pub(crate) at: Timestamp,
    /// Whether the version before is to come back.
    pub(crate) rollback: bool,
}

/// Somebody said go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proceed {
    pub(crate) ready: bool,
    pub(crate) termination: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErrorInformation {
    pub(crate) code: String,
    pub(crate) message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RollbackInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rollback_deployment_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rollback_triggering_deployment_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rollback_message: Option<String>,
}

/// A host or a set of containers in a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) id: String,
    pub(crate) status: TargetStatus,
    pub(crate) updated: Timestamp,
    pub(crate) events: Vec<Event>,
    /// Which batch it was in, from 1.
    #[serde(default)]
    pub(crate) batch: Option<u32>,
    /// Container sets, old and new.
    #[serde(default)]
    pub(crate) sets: Vec<TaskSet>,
}

impl Target {
    pub(crate) fn new(id: &str, now: Timestamp) -> Self {
        Self {
            id: id.to_owned(),
            status: TargetStatus::Pending,
            updated: now,
            events: Vec::new(),
            batch: None,
            sets: Vec::new(),
        }
    }

    /// The last try of this event, made if there is none.
    pub(crate) fn event(&mut self, name: &str) -> &mut Event {
        let found = self.events.iter().position(|event| event.name == name);
        let index = found.unwrap_or_else(|| {
            self.events.push(Event {
                name: name.to_owned(),
                status: EventStatus::Pending,
                started: None,
                ended: None,
                diagnostics: None,
            });
            self.events.len() - 1
        });
        &mut self.events[index]
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskSet {
    /// The deployment that made it.
    pub(crate) id: String,
    pub(crate) green: bool,
    pub(crate) desired: u32,
    pub(crate) running: u32,
    pub(crate) weight: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TargetStatus {
    Pending,
    InProgress,
    Succeeded,
    Failed,
    Skipped,
    Ready,
}

impl TargetStatus {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::InProgress => "InProgress",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Skipped => "Skipped",
            Self::Ready => "Ready",
        }
    }
}

/// One lifecycle event of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) status: EventStatus,
    pub(crate) started: Option<Timestamp>,
    pub(crate) ended: Option<Timestamp>,
    pub(crate) diagnostics: Option<Diagnostics>,
}

impl Event {
    pub(crate) fn begin(&mut self, now: Timestamp) {
        self.status = EventStatus::InProgress;
        self.started = Some(now);
    }

    pub(crate) fn finish(&mut self, now: Timestamp, diagnostics: Diagnostics) {
        let good = diagnostics.error_code == LifecycleErrorCode::Success;
        self.status = if good { EventStatus::Succeeded } else { EventStatus::Failed };
        self.ended = Some(now);
        self.diagnostics = Some(diagnostics);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EventStatus {
    Pending,
    InProgress,
    Succeeded,
    Failed,
    Skipped,
}

/// How a lifecycle event ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostics {
    /// Which kind of end.
    pub error_code: LifecycleErrorCode,
    /// The hook's script, if one was at fault or ran last.
    #[serde(default)]
    pub script_name: String,
    /// What happened, in words.
    #[serde(default)]
    pub message: String,
    /// The last 2048 bytes that it wrote.
    #[serde(default)]
    pub log_tail: String,
}

impl Diagnostics {
    /// A good end.
    #[must_use]
    pub fn success(message: impl Into<String>) -> Self {
        Self::new(LifecycleErrorCode::Success, message)
    }

    /// An end without a script.
    #[must_use]
    pub fn new(error_code: LifecycleErrorCode, message: impl Into<String>) -> Self {
        let (script_name, log_tail) = (String::new(), String::new());
        Self { error_code, script_name, message: message.into(), log_tail }
    }
}

/// CodeDeploy's kinds of ends of a lifecycle event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LifecycleErrorCode {
    /// Good.
    Success,
    /// The AppSpec names a script that the bundle hasn't.
    ScriptMissing,
    /// The script can't be executed.
    ScriptNotExecutable,
    /// The script took longer than its timeout and was killed.
    ScriptTimedOut,
    /// The script exited with another code than 0.
    ScriptFailed,
    /// Anything else; the message says what.
    UnknownError,
}

/// A new deployment id: `d-` and nine letters or digits.
pub(crate) fn mint_id() -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let mut rng = rand::rng();
    let text: String =
        (0..9).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect();
    format!("d-{text}")
}

impl fmt::Display for DeploymentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
