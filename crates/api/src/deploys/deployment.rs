//! Deployments, and what people decide about them.

use pipeyard_model::{
    Conclusion, DeploymentId, EnvironmentName, IncidentId, JobId, ReleaseId, RepoName, RunId,
    ServiceName, Status, Timestamp,
    deployment::Health,
    plan::{Otherwise, Strategy},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{CommitsView, SampleView, StepProgress, TargetView, TimelineView, VerdictView};
use crate::runner::ReasonView;

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
    /// Who approved last, once nothing is missing.
    pub by: Option<String>,
    /// When.
    pub at: Option<Timestamp>,
    /// Whose change it is approved it.
    pub own: bool,
    /// What they said.
    pub comment: Option<String>,
    /// How many people must approve.
    #[serde(default)]
    pub count: u32,
    /// How many approvals are still missing.
    #[serde(default)]
    pub missing: u32,
    /// Who may approve, while one is missing.
    #[serde(default)]
    pub who: Option<String>,
    /// Whose change it is may not approve it.
    #[serde(default)]
    pub not_the_author: bool,
    /// The rule of the environment that takes it, while it waits.
    #[serde(default)]
    pub rule: Option<String>,
    /// Each approval.
    #[serde(default)]
    pub given: Vec<GivenView>,
}

/// One approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GivenView {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// It is their own change; none where that isn't known.
    pub own: Option<bool>,
    /// What they said.
    pub comment: Option<String>,
    /// It counts under the rules of now.
    pub counts: bool,
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
