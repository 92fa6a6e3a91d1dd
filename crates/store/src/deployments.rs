//! Environments, services, deployments and incidents.
//!
//! A deployment is moved by its state machine alone: the caller reads it, applies an event, and
//! gives the result back with [`Deployments::change_deployment`], which refuses it when the row has
//! moved meanwhile. The node of a run moves in the same transaction as its deployment.

use async_trait::async_trait;
use pipeyard_api::deploys::{
    Applied, CommitsView, EnvironmentsFile, Health, IncidentView, ProviderSpec, SampleView,
    ServiceSpec, TargetView, TimelineView,
};
use pipeyard_model::{
    Actor, DeploymentId, EnvironmentName, Epoch, IncidentId, JobId, RunId, ServiceName, Timestamp,
    deployment::{Deployment, Entry, Purpose, Reason, Release},
    environment::{Person, Policy, Source},
    plan::{HealthLimit, Otherwise, Strategy},
};
use serde::{Deserialize, Serialize};

use crate::StoreResult;

/// Most samples that are kept of one deployment; then every second one goes.
pub const MAX_SAMPLES: i64 = 720;

/// An environment with its services.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Its name.
    pub name: EnvironmentName,
    /// Whether people depend on it.
    pub production: bool,
    /// What it takes, from whom, and when.
    pub policy: Policy,
    /// Who carries deployments out.
    pub provider: ProviderSpec,
    /// Its services that aren't retired, by name.
    pub services: Vec<(ServiceName, ServiceSpec)>,
}

/// A service in an environment.
#[derive(Debug, Clone)]
pub struct Place {
    /// Whether people depend on it.
    pub production: bool,
    /// Who carries deployments out.
    pub provider: ProviderSpec,
    /// How it is defined.
    pub spec: ServiceSpec,
}

/// A deployment that is asked for.
#[derive(Debug, Clone)]
pub struct NewDeployment {
    /// Where to.
    pub environment: EnvironmentName,
    /// What.
    pub service: ServiceName,
    /// Why.
    pub purpose: Purpose,
    /// What it ships.
    pub release: Release,
    /// How.
    pub strategy: Strategy,
    /// What must hold.
    pub limits: Vec<HealthLimit>,
    /// What follows when it doesn't.
    pub otherwise: Otherwise,
    /// The deploy in a run that asks, and which try of it. The same again answers the deployment
    /// that there is.
    pub job: Option<(JobId, Epoch)>,
    /// Who or what asks.
    pub requested_by: String,
    /// A person must approve.
    pub needs_approval: bool,
    /// The pipeline asks for an approval, whatever the environment says.
    pub asks_approval: bool,
    /// Why it waits, if it isn't just for its turn.
    pub waits: Option<Reason>,
    /// What the person said who asked.
    pub comment: Option<String>,
    /// The person who asked, for the audit log.
    pub by: Actor,
}

/// What was last seen of a deployment. Replaced as a whole; nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Look {
    /// The provider's id of it.
    pub provider_id: Option<String>,
    /// The provider's own word.
    pub provider_status: Option<String>,
    /// Hosts or container sets.
    pub targets: Vec<TargetView>,
    /// How the limits stand.
    pub health: Vec<Health>,
    /// The share that the proxy counted at the present weight, in percent.
    pub measured_weight: Option<f64>,
    /// What it counted at each step, in percent.
    pub measured_steps: Vec<Option<f64>>,
    /// How long each step was watched, in seconds.
    pub watched_seconds: Vec<u64>,
    /// When each step's weight was set.
    pub steps_at: Vec<Option<Timestamp>>,
}

/// A deployment as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The deployment.
    pub deployment: Deployment,
    /// What was last seen of it.
    pub look: Look,
    /// The judge's memory.
    pub judge: Option<String>,
    /// Whether its commits are known: `pending`, `first_deployment`, `known`, `unknown`.
    pub commits_state: String,
}

/// A change of a deployment.
#[derive(Debug, Clone)]
pub struct Change {
    /// The deployment after it. Its version says from which one it comes: the one before.
    pub next: Deployment,
    /// For the timeline.
    pub entries: Vec<Entry>,
    /// What was seen, if it was looked.
    pub look: Option<Look>,
    /// The judge's memory afterwards, if it judged.
    pub judge: Option<String>,
    /// What was measured.
    pub sample: Option<SampleView>,
    /// The person who decided, and what (`deployment.approve`), for the audit log.
    pub by: Option<(Actor, &'static str)>,
    /// Only measurements moved: nobody is woken by an event.
    pub quiet: bool,
}

impl Change {
    /// A change with nothing but the state machine's result.
    #[must_use]
    pub fn of(applied: pipeyard_model::deployment::Applied) -> Self {
        let pipeyard_model::deployment::Applied { next, entries } = applied;
        Self { next, entries, look: None, judge: None, sample: None, by: None, quiet: false }
    }
}

/// Which deployments to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct DeploymentFilter {
    /// Only to this environment.
    pub environment: Option<EnvironmentName>,
    /// Only of this service.
    pub service: Option<ServiceName>,
    /// Only those that aren't over.
    pub active: bool,
    /// Only older than this one.
    pub before: Option<DeploymentId>,
    /// At most so many, 1 to 200.
    pub limit: u32,
}

/// A commit that a deployment brought to its place first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployedCommit {
    /// Full SHA.
    pub sha: String,
    /// First line of its message.
    pub title: String,
    /// Its author's name.
    pub author: String,
    /// The author date.
    pub authored_at: Timestamp,
    /// The committer date.
    pub committed_at: Timestamp,
    /// When it was first pushed to us, if that is known.
    pub first_seen: Option<Timestamp>,
    /// It has several parents.
    pub is_merge: bool,
    /// It was picked from another branch.
    pub is_cherry_pick: bool,
}

/// An incident that is opened.
#[derive(Debug, Clone)]
pub struct NewIncident {
    /// Identifies it; the same again answers the first.
    pub key: Option<String>,
    /// Where.
    pub environment: EnvironmentName,
    /// What.
    pub service: ServiceName,
    /// One line.
    pub title: String,
    /// When users began to suffer.
    pub impact_at: Timestamp,
    /// When it was noticed.
    pub detected_at: Timestamp,
    /// The deployment that caused it, and how that is known.
    pub deployment: Option<(DeploymentId, String)>,
    /// Who opens it.
    pub by: String,
    /// The same, for the audit log.
    pub actor: Actor,
}

/// Environments, services, deployments and incidents.
#[async_trait]
pub trait Deployments {
    /// Makes the environments what the file says and answers the differences. What the file doesn't
    /// name is retired. With `dry_run` nothing is written. Conflict `deployment_active` when a
    /// service that is to be retired, or whose kind changes, has a deployment under way.
    async fn apply_environments(
        &self,
        file: EnvironmentsFile,
        dry_run: bool,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<Applied>;
    /// Replaces an environment's rules, if they are still `from`. Not found; conflict
    /// `stale_policy`.
    async fn change_policy(
        &self,
        environment: &EnvironmentName,
        from: Policy,
        to: Policy,
        what: &str,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// The rules of an environment; none if it isn't there or is retired.
    async fn policy(&self, environment: &EnvironmentName) -> StoreResult<Option<Policy>>;
    /// Where the releases of a run come from; none if the run or its repository isn't there.
    async fn source(&self, run: RunId) -> StoreResult<Option<Source>>;
    /// Everybody with an account, by name, with who they are at forges.
    async fn people(&self) -> StoreResult<Vec<Person>>;
    /// Environments that aren't retired, by name.
    async fn environments(&self) -> StoreResult<Vec<Environment>>;
    /// A service in an environment; none if either isn't there or is retired.
    async fn place(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
    ) -> StoreResult<Option<Place>>;

    /// Stores a deployment with the next sequence number of its place, and moves the run's node.
    async fn create_deployment(
        &self,
        new: NewDeployment,
        now: Timestamp,
    ) -> StoreResult<Deployment>;
    /// One deployment.
    async fn deployment(&self, id: DeploymentId) -> StoreResult<Option<Stored>>;
    /// The newest one.
    async fn latest_deployment(&self) -> StoreResult<Option<DeploymentId>>;
    /// Deployments, newest first.
    async fn deployments(&self, filter: DeploymentFilter) -> StoreResult<Vec<Stored>>;
    /// Every deployment that isn't over, oldest first.
    async fn open_deployments(&self) -> StoreResult<Vec<Stored>>;
    /// Stores a change, and appends an event unless it is quiet. When it ends the deployment, the run's node ends in the same transaction.
    /// Conflict `stale_deployment` when the row isn't at the version before; `deployment_active`
    /// when another one of the same place is active.
    async fn change_deployment(&self, change: Change, now: Timestamp) -> StoreResult<()>;
    /// What serves: the last deployment that succeeded.
    async fn serving(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
    ) -> StoreResult<Option<Deployment>>;
    /// The last deployment that succeeded with another release than `than`, that isn't itself a
    /// rollback, and that was older.
    async fn good_before(&self, than: &Deployment) -> StoreResult<Option<Deployment>>;
    /// What happened, oldest first.
    async fn timeline(&self, id: DeploymentId) -> StoreResult<Vec<TimelineView>>;
    /// What was measured, oldest first.
    async fn samples(&self, id: DeploymentId) -> StoreResult<Vec<SampleView>>;

    /// Commits of every deployment that succeeded here, oldest first, each once.
    async fn deployed_shas(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
    ) -> StoreResult<Vec<String>>;
    /// Records the commits that a deployment brought; replaces what was there.
    async fn set_commits(
        &self,
        id: DeploymentId,
        state: &str,
        commits: Vec<DeployedCommit>,
    ) -> StoreResult<()>;
    /// The commits of a deployment, the newest 100.
    async fn commits(&self, id: DeploymentId) -> StoreResult<CommitsView>;

    /// Opens an incident. Not found when the place isn't there.
    async fn open_incident(&self, new: NewIncident, now: Timestamp) -> StoreResult<IncidentView>;
    /// Closes an incident. Conflict `incident_closed`, `restored_before_impact`.
    async fn close_incident(
        &self,
        id: IncidentId,
        restored_at: Timestamp,
        by: &str,
        actor: Actor,
        now: Timestamp,
    ) -> StoreResult<IncidentView>;
    /// Incidents, newest impact first, at most 500: those that are open, those that are restored, or
    /// all.
    async fn incidents(
        &self,
        environment: Option<&EnvironmentName>,
        service: Option<&ServiceName>,
        open: Option<bool>,
    ) -> StoreResult<Vec<IncidentView>>;
    /// The last deployment of a place that succeeded before `at`, and not more than 24 hours
    /// before: the one that an incident is blamed on when nobody says more.
    async fn suspect(
        &self,
        environment: &EnvironmentName,
        service: &ServiceName,
        at: Timestamp,
    ) -> StoreResult<Option<DeploymentId>>;
}
