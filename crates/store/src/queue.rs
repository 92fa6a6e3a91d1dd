//! The queue: claims, leases, fenced writes of runners.

use std::time::Duration;

use async_trait::async_trait;
use pipeyard_api::runner::{AttemptRef, FinishRequest, StepReport};
use pipeyard_model::{
    AttemptId, Epoch, JobId, NodeName, RepoId, RequestId, RunId, RunnerId, Timestamp, lease,
    origin::{Event, Origin},
    plan::JobSpec,
};

use crate::StoreResult;

/// How long a claim or a heartbeat holds.
#[expect(clippy::cast_possible_truncation, reason = "half a minute")]
pub const LEASE_SECONDS: u32 = lease::LEASE.as_secs() as u32;

/// For so long the runner of an attempt that was ended without it may still append to its log: it
/// was away, and has journaled what the job wrote.
pub const LATE_LOG: Duration = Duration::from_secs(24 * 3600);

/// A job that was just claimed.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub epoch: Epoch,
    /// Its run.
    pub run: RunId,
    /// Its repository.
    pub repo: RepoId,
    /// Its name.
    pub name: NodeName,
    /// What to run.
    pub spec: JobSpec,
    /// Full SHA.
    pub commit: String,
    /// Branch.
    pub branch: String,
    /// The commit's author.
    pub author: String,
    /// What started the run.
    pub event: Event,
    /// What is proven of the commit.
    pub origin: Origin,
}

/// News for a runner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeartbeatNews {
    /// To be cancelled.
    pub cancel: Vec<AttemptRef>,
    /// Not this runner's, or over.
    pub stale: Vec<AttemptRef>,
}

/// Why a runner may append to the log of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appends {
    /// It works on the attempt.
    InWork,
    /// It did, and the attempt was ended without it, less than [`LATE_LOG`] ago.
    Late,
}

/// Where the log of an attempt stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogState {
    /// The attempt is over; nothing will be added, unless its runner comes back.
    pub complete: bool,
    /// The attempt was ended without its runner, which may append until then.
    pub late_until: Option<Timestamp>,
    /// Bytes that were acknowledged, as far as the store was told; its length when it is complete.
    pub bytes: u64,
    /// What it was sealed as.
    pub digest: Option<String>,
}

/// The queue. Every verb that carries an epoch refuses another than the job's present one with
/// conflict `stale_epoch`, and records the refusal.
#[async_trait]
pub trait Queue {
    /// Claims at most `slots` jobs whose labels the runner has, oldest run first: raises the epoch
    /// and sets a lease. A repeat of `request` answers the same jobs again.
    async fn claim_jobs(
        &self,
        runner: RunnerId,
        request: RequestId,
        slots: u32,
        now: Timestamp,
    ) -> StoreResult<Vec<Claimed>>;
    /// Renews the leases of these attempts and tells what to end.
    async fn heartbeat(
        &self,
        runner: RunnerId,
        attempts: &[AttemptRef],
        now: Timestamp,
    ) -> StoreResult<HeartbeatNews>;
    /// Tells what to end, without writing: for the long poll's waits in between.
    async fn heartbeat_news(
        &self,
        runner: RunnerId,
        attempts: &[AttemptRef],
    ) -> StoreResult<HeartbeatNews>;
    /// Refuses an attempt that isn't this runner's present one.
    async fn check_attempt(
        &self,
        runner: RunnerId,
        attempt: AttemptId,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// Whether this runner may append to the attempt's log. Refuses one that it never worked on,
    /// that it has finished, or that was ended without it too long ago.
    async fn may_append(
        &self,
        runner: RunnerId,
        attempt: AttemptId,
        now: Timestamp,
    ) -> StoreResult<Appends>;
    /// Records progress of steps. A repeat changes nothing.
    async fn report_steps(
        &self,
        runner: RunnerId,
        attempt: AttemptId,
        steps: &[StepReport],
        now: Timestamp,
    ) -> StoreResult<()>;
    /// The first log line of a step, and the length of the log so far.
    async fn report_log(
        &self,
        attempt: AttemptId,
        bytes: u64,
        first_lines: &[(u16, u64)],
        now: Timestamp,
    ) -> StoreResult<()>;
    /// Ends an attempt; what needs the job goes on, is retried or skipped. A repeat is acknowledged.
    async fn finish_attempt(
        &self,
        runner: RunnerId,
        attempt: AttemptId,
        finish: FinishRequest,
        now: Timestamp,
    ) -> StoreResult<()>;
    /// Ends attempts whose lease ran out as `runner_lost`; answers them. Their jobs are offered
    /// again once, unless they are marked `once`.
    async fn expire_leases(&self, now: Timestamp) -> StoreResult<Vec<AttemptId>>;
    /// After a start of the server every lease holds for another full period.
    async fn extend_all_leases(&self, now: Timestamp) -> StoreResult<()>;
    /// The attempt's log, for readers.
    async fn log_state(&self, attempt: AttemptId) -> StoreResult<Option<LogState>>;
    /// Records what an attempt's log was sealed as: before its unsealed form goes.
    async fn record_sealed_log(&self, attempt: AttemptId, digest: &str) -> StoreResult<()>;
    /// How many jobs wait and run, for `/metrics`.
    async fn queue_counts(&self) -> StoreResult<(u64, u64)>;
    /// Explains queued jobs that no registered runner can take (labels); updates their reasons.
    async fn explain_waits(&self, now: Timestamp) -> StoreResult<()>;
    /// How many writes were refused because their attempt was over or somebody else's.
    async fn rejected_writes(&self) -> StoreResult<u64>;
}
