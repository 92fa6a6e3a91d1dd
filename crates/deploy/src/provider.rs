//! Who carries a deployment out, seen from the orchestrator.
//!
//! Two traits, because CodeDeploy has no word for a traffic weight of one's own: [`Provider`] is
//! CodeDeploy, [`TrafficControl`] is what the embedded fleet has beside it. Every verb but
//! [`Provider::create`] may be repeated; `create` is called once for each time that the intent's
//! token was proven absent.

use std::{collections::BTreeMap, fmt, path::Path, time::Duration};

use async_trait::async_trait;
use pipeyard_model::{
    EnvironmentName, IntentId, ServiceName, Timestamp,
    fleet::{ServiceDefinition, ServiceHealth, TrafficReport},
};

/// A service in an environment, in the provider's words: the application is the service, its group
/// is the environment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupName {
    /// The application.
    pub application: String,
    /// The deployment group.
    pub group: String,
}

impl GroupName {
    /// The group of this service in this environment.
    #[must_use]
    pub fn new(environment: &EnvironmentName, service: &ServiceName) -> Self {
        Self { application: service.to_string(), group: environment.to_string() }
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.application, self.group)
    }
}

/// Tags that CodeDeploy can ask for together.
pub const TAGS: usize = 3;

/// What must be there before a deployment can start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: GroupName,
    /// What runs there.
    pub definition: ServiceDefinition,
    /// Tags that a host must all have; empty for containers. CodeDeploy takes at most [`TAGS`].
    pub tags: BTreeMap<String, String>,
}

/// How a deployment is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A new set beside the old one; all traffic moves once it is healthy.
    BlueGreen,
    /// The same, but it waits for our word, at most so long; then it is stopped.
    Canary {
        /// In minutes, 1 to 2,880.
        wait_minutes: u32,
    },
    /// Hosts in place, so that at least so many stay healthy.
    InPlace {
        /// Hosts that stay healthy; 0 is all at once.
        minimum_healthy: u32,
    },
}

/// A bundle in the provider's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Of its bytes, in hex.
    pub sha256: String,
}

/// The bucket that bundles are kept in.
pub const BUCKET: &str = "pipeyard";

impl Bundle {
    /// Its key in [`BUCKET`].
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}.tar.gz", self.sha256)
    }
}

/// Asks for a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRequest {
    /// Where.
    pub group: GroupName,
    /// Leads the description, so that it can be found again.
    pub token: IntentId,
    /// For people who look at the provider's own console.
    pub note: String,
    /// What.
    pub bundle: Bundle,
    /// How.
    pub style: Style,
    /// The provider restores the release before by itself when it fails or is stopped.
    pub roll_back: bool,
}

impl CreateRequest {
    /// At most 256 characters, the token first.
    #[must_use]
    pub fn description(&self) -> String {
        format!("{} {}", marker(self.token), self.note).chars().take(256).collect()
    }
}

/// How the description of a deployment of ours begins.
#[must_use]
pub fn marker(token: IntentId) -> String {
    format!("pipeyard:{token}")
}

/// What came of asking for a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateAnswer {
    /// It has this id.
    Created(String),
    /// Another one is active in the group.
    Busy,
    /// The answer never came, or was not one.
    Lost(String),
    /// It was refused, and would be again.
    Refused {
        /// The provider's code.
        code: String,
        /// Its words.
        message: String,
    },
}

/// What was found by a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// The deployment that has it.
    pub ours: Option<String>,
    /// The deployment that is active in the group, whoever started it.
    pub active: Option<String>,
}

/// A deployment as the provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it stands.
    pub status: ProviderStatus,
    /// The provider's own word.
    pub word: String,
    /// Why it failed or was stopped.
    pub problem: Option<String>,
    /// The provider's own deployment that restores the release before.
    pub successor: Option<String>,
}

/// Where a deployment stands at the provider. A word that we don't know counts as working.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderStatus {
    /// Under way.
    Working,
    /// Waits for our word.
    Ready,
    /// Done.
    Succeeded,
    /// Failed.
    Failed,
    /// Stopped: by us, by a person, or because nobody said go.
    Stopped,
}

/// A host or a container set in a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub id: String,
    /// `pending`, `in_progress`, `succeeded`, `failed`, `skipped`, `unknown`, `ready`.
    pub state: String,
    /// In the order in which they ran.
    pub events: Vec<TargetEvent>,
}

/// One lifecycle event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetEvent {
    /// Its name.
    pub name: String,
    /// Like the target's state.
    pub state: String,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// What failed.
    pub problem: Option<String>,
    /// The end of its output.
    pub log_tail: Option<String>,
}

/// The code of a refusal because a release's bytes aren't those that were built.
pub const RELEASE_DAMAGED: &str = "release_damaged";

/// Why a verb had no effect, or none that we know of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It can't be reached, throttles, or failed by itself. May be tried again.
    #[error("the provider can't be reached: {0}")]
    Unreachable(String),
    /// It said no, and would again.
    #[error("the provider refused: {code}: {message}")]
    Refused {
        /// Its code.
        code: String,
        /// Its words.
        message: String,
    },
}

/// CodeDeploy, wherever it runs.
#[async_trait]
pub trait Provider: Send + Sync + fmt::Debug {
    /// Makes or updates the application, the group and what they need. No deployment may be active.
    async fn prepare(&self, group: &Group, style: Style) -> Result<(), ProviderError>;
    /// Puts a bundle where the provider takes it from.
    async fn upload(&self, bundle: &Bundle, file: &Path) -> Result<(), ProviderError>;
    /// Asks for a deployment, exactly once.
    async fn create(&self, request: &CreateRequest) -> CreateAnswer;
    /// Looks for a deployment by its token among those made since `since`.
    async fn find(
        &self,
        group: &GroupName,
        token: IntentId,
        since: Timestamp,
    ) -> Result<Finding, ProviderError>;
    /// One deployment.
    async fn observe(&self, id: &str) -> Result<Snapshot, ProviderError>;
    /// Its hosts or container sets.
    async fn targets(&self, id: &str) -> Result<Vec<Target>, ProviderError>;
    /// Gives all traffic to a deployment that is ready.
    async fn proceed(&self, id: &str) -> Result<(), ProviderError>;
    /// Stops it; one that is over already is fine.
    async fn stop(&self, id: &str, roll_back: bool) -> Result<(), ProviderError>;
    /// How long a deployment may take to be found after it was asked for. Absent for longer than
    /// this is absent.
    fn settles_within(&self) -> Duration;
}

/// Moves traffic between the old and the new release of a deployment that is ready.
#[async_trait]
pub trait TrafficControl: Send + Sync + fmt::Debug {
    /// Sets the new release's share in percent. A lower `epoch` than the last accepted is refused,
    /// so that an orchestrator that lost its row can't move traffic.
    async fn set_weight(
        &self,
        group: &GroupName,
        deployment: &str,
        weight: u8,
        epoch: u64,
    ) -> Result<TrafficReport, ProviderError>;
    /// Where the traffic goes, and what came of it.
    async fn traffic(&self, group: &GroupName) -> Result<TrafficReport, ProviderError>;
    /// Whether users are served, by health checks; and the outages that there were.
    async fn health(&self, group: &GroupName) -> Result<ServiceHealth, ProviderError>;
}
