//! Environments, deployments, incidents and DORA metrics, as people see and change them. The same
//! JSON feeds the web UI and `pipectl`.
//!
//! | call | answer |
//! |---|---|
//! | `GET /api/environments` | array of [`EnvironmentView`], by name |
//! | `PUT /api/environments?dry_run=` [`EnvironmentsFile`] | [`Applied`]; the whole file, idempotent; administrators only |
//! | `GET /api/deployments?env=&service=&active=&limit=&before=` | [`Page`](crate::views::Page) of [`DeploymentView`], newest first |
//! | `GET /api/deployments/{id}` (`latest` is allowed) | [`DeploymentDetail`] |
//! | `POST /api/deployments/{id}/approve` [`Decide`] | [`DeploymentView`]; lets it start; administrators only |
//! | `POST /api/deployments/{id}/abort` [`Decide`] | [`DeploymentView`]; before its start: cancelled, after it: back to the old release |
//! | `POST /api/deployments/{id}/promote` [`Decide`] | [`DeploymentView`]; ends the judging: all traffic to the new release |
//! | `POST /api/environments/{env}/{service}/rollback` [`RollBack`] | [`DeploymentView`] of the new deployment |
//! | `GET /api/dora?env=&service=&since=&until=&by=` | [`DoraView`]; `by` is `day`, `week` or `month`; `since` is `7d`, `4w` or a time |
//! | `GET /api/incidents?env=&service=&open=` | array of [`IncidentView`], newest first; `open` is `true`, `false` (restored) or absent (all) |
//! | `POST /api/incidents` [`OpenIncident`] | [`IncidentView`] |
//! | `POST /api/incidents/{id}/close` [`CloseIncident`] | [`IncidentView`] |
//!
//! Every change answers the thing as it is afterwards; a change that the state doesn't allow is 409
//! with a code that says why (`deployment_finished`, `not_waiting_for_approval`, `not_judging`,
//! `deployment_active`, `no_release_to_roll_back_to`, `incident_closed`).

use std::collections::BTreeMap;

use pipeyard_model::{
    Conclusion, DeploymentId, EnvironmentName, IncidentId, JobId, ReleaseId, RepoName, RunId,
    ServiceName, Status, Timestamp,
    plan::{Otherwise, Strategy},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use pipeyard_model::deployment::{Health, HealthState};

pub use crate::runner::ReasonView;

/// What `pipectl envs apply FILE` sends: every environment that there should be. An environment or
/// service that the file doesn't name is retired: it keeps its history and takes no deployments.
///
/// ```yaml
/// environments:
///   production:
///     production: true
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
    /// Who carries deployments out.
    pub provider: ProviderSpec,
    /// What is shipped to it.
    pub services: BTreeMap<ServiceName, ServiceSpec>,
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
    /// Who carries deployments out.
    pub provider: ProviderSpec,
    /// What is shipped to it, by name.
    pub services: Vec<ServiceView>,
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
    /// The deployment that is under way.
    pub active: Option<DeploymentId>,
    /// Deployments that wait for approval or for their turn.
    pub waiting: Vec<DeploymentId>,
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

/// What a deployment ships; immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReleaseView {
    /// Its id.
    pub id: ReleaseId,
    /// The repository that it was built from.
    pub repo: RepoName,
    /// Full SHA of the commit.
    pub commit: String,
    /// The run that built it.
    pub run: RunId,
    /// The artifact's path, as the job named it.
    pub artifact: String,
    /// Of the bundle's bytes, in hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Why there is a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentKind {
    /// Ships a release.
    Ship,
    /// A person went back to an earlier release.
    Rollback,
}

/// One deployment in a list.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeploymentView {
    /// `deployment` for every deployment, so that saved JSON tells what it is.
    pub kind: String,
    /// The number that people use.
    pub id: DeploymentId,
    /// Where to.
    pub environment: EnvironmentName,
    /// What.
    pub service: ServiceName,
    /// Its place in the order of this environment and service, from 1; never used again.
    pub sequence: i64,
    /// Ships a release, or goes back to one.
    pub purpose: DeploymentKind,
    /// The release.
    pub release: ReleaseView,
    /// The release that served when it started; none for the first.
    pub replaces: Option<ReleaseView>,
    /// How.
    pub strategy: Strategy,
    /// `canary 10 %, 50 %`, `rolling 25 % at a time`, `all at once`.
    pub strategy_text: String,
    /// Where it stands.
    pub status: Status,
    /// How it ended, once finished.
    pub conclusion: Option<Conclusion>,
    /// Where exactly: `awaiting_approval`, `queued`, `starting`, `preparing`, `working`,
    /// `shifting`, `holding`, `completing`, `rolling_back`, `succeeded`, `failed`, `rolled_back`,
    /// `rollback_failed`, `cancelled`, `superseded`, `expired`, `rejected`.
    pub state: String,
    /// Why it waits, holds or ended so. A deployment that waits always has one.
    pub reason: Option<ReasonView>,
    /// The provider doesn't answer, or refuses; absent while all is well.
    pub trouble: Option<TroubleView>,
    /// The new release's share of the traffic as it was asked for, in percent.
    pub intended_weight: Option<u8>,
    /// The share that the proxy counted since then, in percent.
    pub measured_weight: Option<f64>,
    /// The judge's answer, once there is one.
    pub verdict: Option<VerdictView>,
    /// Whether an approval is needed, and who gave it.
    pub approval: ApprovalView,
    /// The run that asked for it.
    pub run: Option<RunId>,
    /// The deploy in that run.
    pub job: Option<JobId>,
    /// Who or what asked for it.
    pub requested_by: String,
    /// The deployment that this one takes back.
    pub rollback_of: Option<DeploymentId>,
    /// The deployment whose release serves again, after this one was taken back.
    pub rolled_back_to: Option<DeploymentId>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When the provider was asked to start.
    pub started_at: Option<Timestamp>,
    /// When the first users' request may have reached the new release.
    pub first_traffic_at: Option<Timestamp>,
    /// When it ended; for one that was taken back: when the old release had all traffic again.
    pub finished_at: Option<Timestamp>,
}

/// The provider or the proxy doesn't answer, or refuses, while a deployment is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TroubleView {
    /// Since when, without a break.
    pub since: Timestamp,
    /// Stable: `provider_unreachable`, `provider_refused`, `strategy_not_possible`.
    pub code: String,
    /// What came of asking.
    pub message: String,
    /// How things stand meanwhile: `10 % of the traffic stays with the new release`.
    pub doing: String,
    /// It is asked again and again until then.
    pub until: Timestamp,
    /// What follows then: `the verdict is inconclusive`.
    pub then: String,
}

/// Whether an approval is needed, and who gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalView {
    /// It may not start without.
    pub needed: bool,
    /// Who approved.
    pub by: Option<String>,
    /// When.
    pub at: Option<Timestamp>,
    /// The commit's author approved their own change.
    pub own: bool,
    /// What they said.
    pub comment: Option<String>,
}

/// One deployment with everything behind it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeploymentDetail {
    /// The deployment.
    #[serde(flatten)]
    pub deployment: DeploymentView,
    /// The provider's id, `d-...`.
    pub provider_id: Option<String>,
    /// The provider's own word for its state.
    pub provider_status: Option<String>,
    /// Weights of a canary, in order.
    pub steps: Vec<StepProgress>,
    /// What must hold, and how it stands.
    pub health: Vec<Health>,
    /// What follows when it doesn't hold.
    pub otherwise: Otherwise,
    /// Hosts or container sets.
    pub targets: Vec<TargetView>,
    /// Health over time, oldest first; thinned when there are many.
    pub samples: Vec<SampleView>,
    /// What happened, oldest first.
    pub timeline: Vec<TimelineView>,
    /// Commits that it brought to this environment first.
    pub commits: CommitsView,
    /// Incidents that it is linked to.
    pub incidents: Vec<IncidentId>,
}

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

/// A person's decision about a deployment.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Decide {
    /// Kept in the timeline; at most 2,000 characters.
    #[serde(default)]
    pub comment: Option<String>,
}

/// Goes back to an earlier release, past the queue and without judging.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct RollBack {
    /// The deployment whose release should serve again; the last good one before the present if
    /// absent.
    #[serde(default)]
    pub to: Option<DeploymentId>,
    /// Kept in the timeline.
    #[serde(default)]
    pub comment: Option<String>,
}

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
