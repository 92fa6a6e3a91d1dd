//! The runner protocol: outbound HTTPS from the runner, JSON, long polls, every write fenced by
//! (job, epoch). Authentication is `Authorization: Bearer <runner key>`, but for the registration.
//!
//! | call | path |
//! |---|---|
//! | register | `POST /api/runner/register` |
//! | hello, goodbye | `POST /api/runner/hello`, `POST /api/runner/goodbye` |
//! | claim | `POST /api/runner/claim` (long poll) |
//! | heartbeat | `POST /api/runner/heartbeat` (long poll, answers early with a cancel) |
//! | log | `POST /api/runner/jobs/{job}/{epoch}/log?offset=N`, the bytes as the body, `x-crc32` in hex |
//! | steps | `POST /api/runner/jobs/{job}/{epoch}/steps` |
//! | tests | `POST /api/runner/jobs/{job}/{epoch}/tests` [`TestReport`](crate::test_report::TestReport) |
//! | artifact | `PUT /api/runner/jobs/{job}/{epoch}/artifacts?path=P`, the bytes as the body, `x-sha256` in hex |
//! | finish | `POST /api/runner/jobs/{job}/{epoch}/finish` |
//! | checkout | `GET/POST /git/{repo id}/...`, Git's smart HTTP, Basic `attempt:<checkout token>` |
//!
//! A write whose epoch is not the job's present one gets 409 with code `stale_epoch`: the runner
//! ends the attempt. The log of an attempt that the server ended without hearing its runner is taken
//! for a while longer ([`LogAck::over`]), so that what was journaled isn't lost. A log write at a wrong offset gets 409 with code
//! `wrong_offset` and the right one in [`LogAck`]; a repeated write is acknowledged again.

use std::collections::BTreeMap;

use pipeyard_model::{
    Conclusion, Epoch, InstallationId, JobId, NodeName, RequestId, RunId, RunnerId, SecretName,
    Timestamp, plan::JobSpec,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Raised when a runner and a server of different versions can't work together.
pub const PROTOCOL: u32 = 1;
/// The longest wait that a long poll may ask for, in seconds.
pub const MAX_WAIT_SECONDS: u32 = 50;

/// The code of the reason with which a runner finishes an attempt that it gives back: nothing of it was
/// begun, and the job is offered again as if it hadn't been claimed.
pub const HANDED_BACK: &str = "handed_back";

/// Registers a runner by a token that an administrator made for one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RegisterRequest {
    /// The registration token.
    pub token: String,
    /// Shown to people; need not be unique.
    pub name: String,
    /// Labels that jobs can ask for, of those that the token gives; all of them if empty.
    pub labels: Vec<String>,
    /// [`PROTOCOL`] of the runner.
    pub protocol: u32,
    /// The runner's version, shown to people.
    pub version: String,
    /// The key that it made for itself, `ppk_` and at least 43 characters: a repeat with it, after an
    /// answer that was lost, is the same runner. The server makes one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The header by which a process of a runner is told from another: a nonce, made up at its start.
pub const PROCESS: &str = "x-pipeyard-process";

/// The first word of a process that has an identity already. Nothing of the runner's is touched
/// before it is accepted.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HelloRequest {
    /// The nonce of the process before, if that is proven to be dead: same machine, same folder, and
    /// its lock is free.
    #[serde(default)]
    pub previous: Option<String>,
}

/// Whether the process may speak for the runner.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HelloReply {
    /// It may.
    pub accepted: bool,
    /// If not: when the other process last spoke. Where this moves, that one is alive.
    #[serde(default)]
    pub other_seen_at: Option<Timestamp>,
}

/// The runner's identity from now on; it stores this.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RegisterReply {
    /// Its id.
    pub runner: RunnerId,
    /// Its key; the server keeps only a hash.
    pub key: String,
    /// Labels everything that it makes in Docker.
    pub installation: InstallationId,
}

/// Asks for jobs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClaimRequest {
    /// Repeated unchanged when the reply was lost; the server then replays it.
    pub request: RequestId,
    /// How many jobs may be given, 1 to 64.
    pub free_slots: u32,
    /// How long the server may wait for one, at most [`MAX_WAIT_SECONDS`].
    pub wait_seconds: u32,
    /// Why the runner can run nothing now, such as a Docker that doesn't answer. It is then given no
    /// job; people see it.
    #[serde(default)]
    pub trouble: Option<ReasonView>,
}

/// Zero or more jobs; they are leased to this runner from now on.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClaimReply {
    /// The jobs.
    pub jobs: Vec<ClaimedJob>,
}

/// One attempt to execute.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClaimedJob {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub epoch: Epoch,
    /// Its run, for labels and links.
    pub run: RunId,
    /// Its name in the pipeline.
    pub name: NodeName,
    /// What to run.
    pub spec: JobSpec,
    /// The commit to check out and where from.
    pub checkout: Checkout,
    /// Variables that Pipeyard adds: `CI`, `PIPEYARD_RUN`, `PIPEYARD_COMMIT`, ...
    pub env: BTreeMap<String, String>,
    /// The repository's name; the runner knows by it which private images the job may use.
    #[serde(default)]
    pub repo: String,
    /// Values of the secrets that the job asks for. Only in this reply.
    pub secrets: BTreeMap<SecretName, String>,
    /// The lease runs out so many seconds after the claim or the last heartbeat.
    pub lease_seconds: u32,
    /// The longest log that the server keeps of an attempt, in bytes. The runner ends a job that
    /// writes more.
    pub max_log_bytes: u64,
}

/// Where the workspace comes from.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Checkout {
    /// Path on the server, `/git/{repo id}`.
    pub path: String,
    /// Full SHA of the commit.
    pub sha: String,
    /// Password for this attempt only; dies with the lease.
    pub token: String,
}

/// Renews the leases of everything that the runner is working on.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatRequest {
    /// The attempts in work.
    pub attempts: Vec<AttemptRef>,
    /// How long the server may wait for news, at most 20 seconds.
    pub wait_seconds: u32,
}

/// One attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptRef {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub epoch: Epoch,
}

/// News about the attempts.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatReply {
    /// End these and finish them as cancelled.
    pub cancel: Vec<AttemptRef>,
    /// These belong to somebody else or are over: end them.
    pub stale: Vec<AttemptRef>,
    /// The leases hold for so many seconds from now.
    pub lease_seconds: u32,
}

/// How much of the log is durable.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LogAck {
    /// The offset of the next byte that the server wants.
    pub offset: u64,
    /// The attempt was ended without its runner. Its log is still taken, but there is nothing to
    /// finish.
    #[serde(default)]
    pub over: bool,
}

/// Progress of steps; a later report for a step replaces the earlier one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StepsRequest {
    /// The steps that changed.
    pub steps: Vec<StepReport>,
}

/// One step's progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepReport {
    /// From 1, in the order of the spec.
    pub step: u16,
    /// When it began.
    pub started_at: Timestamp,
    /// Its end, if it ended.
    pub finished: Option<StepEnd>,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepEnd {
    /// When.
    pub at: Timestamp,
    /// How.
    pub conclusion: Conclusion,
    /// Its exit code, if it exited.
    pub exit_code: Option<i32>,
}

/// Ends an attempt. Idempotent: a repeat for an attempt that ended the same way is acknowledged.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FinishRequest {
    /// How it ended.
    pub conclusion: Conclusion,
    /// Why, unless it is a success.
    pub reason: Option<ReasonView>,
    /// Length of the whole log; the server refuses the finish while it has less (`log_incomplete`).
    pub log_bytes: u64,
    /// When the attempt ended by the runner's clock.
    pub finished_at: Timestamp,
}

/// A stable code with a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReasonView {
    /// `image_not_found`, `runner_lost`, `step_failed`, ...
    pub code: String,
    /// What, where, why and the fix.
    pub message: String,
}
