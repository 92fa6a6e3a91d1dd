//! Runs and their jobs, as people see and change them.

use async_trait::async_trait;
use pipeyard_api::views::{DiagnosticView, Event, JobView, RunDetail, RunView};
use pipeyard_model::{
    Actor, Conclusion, Epoch, JobId, NodeName, RepoId, RunId, Status, Timestamp, UserId,
    origin::Origin,
    plan::{DeploySpec, Plan},
};

use crate::StoreResult;

/// What a run is of.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// The repository.
    pub repo: RepoId,
    /// The run request that it answers, closed in the same transaction; several pipelines of one
    /// request are created together.
    pub request: Option<i64>,
    /// The pipeline's name.
    pub pipeline: String,
    /// What started it.
    pub event: Event,
    /// The full ref, `refs/heads/main`.
    pub reference: String,
    /// Number of the pull request.
    pub pull_request: Option<u64>,
    /// Full SHA.
    pub commit: String,
    /// SHA before the push, for commit ranges.
    pub before: Option<String>,
    /// First line of the commit message.
    pub title: String,
    /// The commit's author, as the commit's text says.
    pub author: String,
    /// The forge's user who pushed, as the forge signed it; none where no forge says it.
    pub forge_user: Option<String>,
    /// The person who started it by hand.
    pub started_by: Option<UserId>,
    /// What is proven of the commit. A stranger's run is held: its jobs aren't offered before a person
    /// approves.
    pub origin: Origin,
    /// Its push was no longer the tip of its branch when its delivery was taken in.
    pub overtaken: bool,
    /// When the push was received.
    pub received_at: Timestamp,
    /// What to do.
    pub content: RunContent,
}

/// What a run consists of.
#[derive(Debug, Clone)]
pub enum RunContent {
    /// The compiled pipeline and its warnings.
    Plan {
        /// What to do.
        plan: Plan,
        /// Warnings.
        diagnostics: Vec<DiagnosticView>,
    },
    /// The pipeline doesn't compile: a failed run that shows why.
    DoesNotCompile {
        /// `pipeline_invalid`, `pipeline_missing`, ...
        code: String,
        /// One sentence.
        message: String,
        /// Errors and warnings.
        diagnostics: Vec<DiagnosticView>,
    },
}

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Only of this repository.
    pub repo: Option<RepoId>,
    /// Only of this branch.
    pub branch: Option<String>,
    /// Only with this status.
    pub status: Option<Status>,
    /// Only with this conclusion.
    pub conclusion: Option<Conclusion>,
    /// Only of this commit (a prefix of at least 7 digits is enough).
    pub commit: Option<String>,
    /// Only older than this run.
    pub before: Option<RunId>,
    /// At most so many, 1 to 200.
    pub limit: u32,
}

/// A deploy whose needs are met and that no deployment was started for yet.
#[derive(Debug, Clone)]
pub struct ReadyDeploy {
    /// The node.
    pub job: JobId,
    /// Which try its deployment will be, from 1; (job, attempt) names one intent for ever.
    pub attempt: Epoch,
    /// Its run.
    pub run: RunId,
    /// Its repository.
    pub repo: RepoId,
    /// Its name in the pipeline.
    pub name: NodeName,
    /// What to ship, where and how.
    pub spec: DeploySpec,
    /// The run's commit.
    pub commit: String,
    /// The run's branch.
    pub branch: String,
    /// The commit's author, as the commit's text says.
    pub author: String,
    /// What is proven of the commit.
    pub origin: Origin,
    /// The run's push was no longer the tip of its branch when its delivery was taken in, and no
    /// person has asked for it again since.
    pub overtaken: bool,
}

/// Runs.
#[async_trait]
pub trait Runs {
    /// Creates runs with consecutive, never repeated numbers and closes their run request. A repeat
    /// for a request that is closed answers with no run.
    async fn create_runs(
        &self,
        runs: Vec<NewRun>,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<Vec<RunId>>;
    /// One run.
    async fn run(&self, id: RunId) -> StoreResult<Option<RunDetail>>;
    /// The newest run of all.
    async fn latest_run(&self) -> StoreResult<Option<RunId>>;
    /// Runs, newest first.
    async fn runs(&self, filter: RunFilter) -> StoreResult<Vec<RunView>>;
    /// One job of a run by its name, with its id.
    async fn job(&self, run: RunId, name: &NodeName) -> StoreResult<Option<JobView>>;
    /// Ends what isn't finished: queued jobs at once, running ones through their heartbeat.
    /// Conflict `run_finished`.
    async fn cancel_run(&self, id: RunId, by: Actor, now: Timestamp) -> StoreResult<()>;
    /// Lets a held run go. Conflict `run_not_held`.
    async fn approve_run(&self, id: RunId, by: Actor, now: Timestamp) -> StoreResult<()>;
    /// Runs jobs again within the same run (new attempts): all, or with `failed` those that didn't
    /// succeed and what needs them. Conflict `run_not_finished`, `nothing_failed`.
    async fn rerun(&self, id: RunId, failed: bool, by: Actor, now: Timestamp) -> StoreResult<()>;
    /// Deploys whose needs are met, oldest first.
    async fn ready_deploys(&self, limit: u32) -> StoreResult<Vec<ReadyDeploy>>;
    /// A deployment was started for this node; idempotent.
    async fn deploy_started(&self, job: JobId, deployment: i64, now: Timestamp) -> StoreResult<()>;
    /// Shows why a started deploy waits or where it stands; idempotent.
    async fn deploy_progress(
        &self,
        job: JobId,
        code: &str,
        message: &str,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// The deploy of this node is over; what needs it goes on or is skipped. Idempotent.
    async fn deploy_finished(
        &self,
        job: JobId,
        conclusion: Conclusion,
        reason: Option<(String, String)>,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// Deployments whose node a person cancelled and that aren't over: the driver should end them
    /// and then say `deploy_finished`.
    async fn cancelled_deploys(&self, limit: u32) -> StoreResult<Vec<(JobId, i64)>>;
}
