//! Where releases go: the environments file, and environments as they are.

use std::collections::BTreeMap;

use pipeyard_model::{
    DeploymentId, EnvironmentName, ServiceName, Timestamp,
    environment::{Accept, Approvals, Freeze, Policy},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ReleaseView;
use crate::runner::ReasonView;

/// What `pipectl envs apply FILE` sends: every environment that there should be. An environment or
/// service that the file doesn't name is retired: it keeps its history and takes no deployments.
///
/// ```yaml
/// environments:
///   production:
///     production: true
///     accepts:
///       - {repo: acme/shop, branches: [main, "release/*"]}
///     approvals: {count: 1, of: [ann, ben]}
///     freeze: [{begin: "Fri 17:00", end: "Mon 08:00", zone: Asia/Seoul}]
///     provider:
///       endpoint: http://127.0.0.1:8471
///       region: local
///       credentials: fleet
///     services:
///       web:
///         listen: 8480
///         container: {image: "shop-base:1", port: 8080, health_path: /healthz, replicas: 2}
///       worker:
///         listen: 8481
///         hosts: {tags: {role: worker}, count: 3, health_path: /healthz}
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentsFile {
    /// By name.
    pub environments: BTreeMap<EnvironmentName, EnvironmentSpec>,
}

/// Where to ship.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentSpec {
    /// Whether people depend on it; DORA metrics count production only.
    #[serde(default)]
    pub production: bool,
    /// What it takes; one of the rules must fit, and without rules nothing is taken. Left out, there
    /// may be none yet: rules that are there are never dropped in silence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepts: Option<Vec<Accept>>,
    /// Who must let a deployment start. Absent: nobody; administrators promote and go back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<Approvals>,
    /// Weekly windows in which nothing starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<Freeze>,
    /// Who carries deployments out.
    pub provider: ProviderSpec,
    /// What is shipped to it.
    pub services: BTreeMap<ServiceName, ServiceSpec>,
}

impl EnvironmentSpec {
    /// Its rules.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            accepts: self.accepts.clone().unwrap_or_default(),
            approvals: self.approvals.clone().unwrap_or_default(),
            freeze: self.freeze.clone(),
        }
    }
}

/// A CodeDeploy endpoint: the embedded fleet or AWS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderSpec {
    /// The fleet's address. Absent: AWS, where you made the application and the group yourself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    #[serde(default = "local_region")]
    pub region: String,
    /// The name of a credentials file in the server's configuration. Absent: what the AWS SDK
    /// finds by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
}

fn local_region() -> String {
    "local".to_owned()
}

/// A service in an environment. Exactly one of `container` and `hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// The loopback port at which the fleet's proxy takes requests for it.
    pub listen: u16,
    /// Sets of equal containers behind the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerSpec>,
    /// Hosts that run `pipectl agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<HostsSpec>,
    /// What follows a push while another release waits for its turn.
    #[serde(default)]
    pub queue: QueuePolicy,
}

/// What follows when releases wait for their turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueuePolicy {
    /// The newest takes the place of those that wait.
    #[default]
    NewestWins,
    /// Each is shipped, in order.
    InOrder,
}

/// A service of equal containers. A bundle is unpacked into `/app` of the base image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    /// The base image.
    pub image: String,
    /// The command, `[program, argument, ...]`. Empty: the image's own.
    #[serde(default)]
    pub command: Vec<String>,
    /// The port on which the program listens.
    pub port: u16,
    /// A path that answers 2xx when the program can take requests.
    #[serde(default = "slash")]
    pub health_path: String,
    /// How many containers, 1 to 100.
    #[serde(default = "one")]
    pub replicas: u32,
    /// How long a new set may take until every container answers its health check, 5 to 3,600.
    #[serde(default = "minute")]
    pub healthy_within_seconds: u32,
    /// Environment of the program; no secrets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// A service on hosts; the bundle has an `appspec.yml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostsSpec {
    /// Tags that a host must all have.
    pub tags: BTreeMap<String, String>,
    /// How many hosts there are; sizes the batches of a rolling deployment.
    pub count: u32,
    /// A path that answers 2xx when the program can take requests.
    #[serde(default = "slash")]
    pub health_path: String,
    /// How long a host may take until its program answers its health check, 5 to 3,600.
    #[serde(default = "minute")]
    pub healthy_within_seconds: u32,
}

fn slash() -> String {
    "/".to_owned()
}

fn one() -> u32 {
    1
}

fn minute() -> u32 {
    60
}

/// What an apply changed, or would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// Nothing was written: it was only asked for.
    pub dry_run: bool,
    /// Empty when everything was so already.
    pub changes: Vec<EnvironmentChange>,
    /// What the file says and what can't come of it, a sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One change of an apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentChange {
    /// `added`, `changed`, `retired`, `restored`.
    pub change: String,
    /// `environment production` or `service production/web`.
    pub what: String,
    /// The fields that differ: `container.replicas: 2 -> 3`.
    pub fields: Vec<String>,
}

/// An environment as it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentView {
    /// Its name.
    pub name: EnvironmentName,
    /// Whether people depend on it.
    pub production: bool,
    /// What it takes, from whom, and when.
    #[serde(flatten)]
    pub policy: Policy,
    /// Nothing starts now, and until when.
    pub frozen: Option<FrozenView>,
    /// Who carries deployments out.
    pub provider: ProviderSpec,
    /// What is shipped to it, by name.
    pub services: Vec<ServiceView>,
}

/// Nothing may start now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FrozenView {
    /// The first moment after it; none when it isn't known.
    pub until: Option<Timestamp>,
    /// In words.
    pub message: String,
}

/// What would come of a deploy, asked before there is one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeployCheck {
    /// Where to.
    pub environment: EnvironmentName,
    /// `branch main of shop (push)`.
    pub what: String,
    /// A rule takes it.
    pub accepted: bool,
    /// That rule, in words.
    pub rule: Option<String>,
    /// Why it is refused, and the fix.
    pub reason: Option<ReasonView>,
    /// How many people must approve it.
    pub approvals: u32,
    /// Who may.
    pub approvers: String,
    /// Whose change it is may not.
    pub not_the_author: bool,
    /// Nothing starts now, and until when.
    pub frozen: Option<FrozenView>,
    /// What can't come of it as it stands, a sentence each.
    pub notes: Vec<String>,
}

/// Rules after one was allowed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Allowed {
    /// The environment.
    pub environment: EnvironmentName,
    /// The rule, in words.
    pub rule: String,
    /// It was there already.
    pub known: bool,
    /// All rules, as the environments file writes them.
    pub accepts: Vec<Accept>,
}

/// A service in an environment as it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServiceView {
    /// Its name.
    pub name: ServiceName,
    /// How it is defined.
    pub spec: ServiceSpec,
    /// What serves now: the last deployment that succeeded.
    pub serving: Option<Serving>,
    /// Whether it really serves, by health checks; absent when nobody can say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthView>,
    /// The deployment that is under way.
    pub active: Option<DeploymentId>,
    /// Deployments that wait for approval or for their turn.
    pub waiting: Vec<DeploymentId>,
}

/// Whether a service really serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthView {
    /// `serving`; `impaired`: by fewer than should be; `down`: nobody is served; `nothing`: nothing was
    /// released to it yet; `unknown`: its provider doesn't answer.
    pub state: String,
    /// Since when it stands so.
    pub since: Timestamp,
    /// Containers or hosts that answer their health check.
    pub healthy: u32,
    /// Those that should.
    pub wanted: u32,
    /// What is wrong and what is done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was looked at.
    pub at: Timestamp,
}

/// What serves now.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Serving {
    /// The deployment that brought it.
    pub deployment: DeploymentId,
    /// The release.
    pub release: ReleaseView,
    /// Since when all of the traffic goes to it.
    pub since: Timestamp,
}
