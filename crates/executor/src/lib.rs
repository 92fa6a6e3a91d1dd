//! Executes jobs. An [`Executor`] turns a compiled job into output and an outcome; it knows no
//! server, no queue and no log format.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use pipeyard_model::{
    AttemptId, Conclusion, InstallationId, SecretName, Timestamp, log::Stream, plan::JobSpec,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

mod check;
mod docker;
pub mod fake;
mod fault;
mod filled;
mod lease;
mod local;
mod outcome;
#[path = "../../shim/src/protocol.rs"]
#[expect(dead_code, reason = "the shim compiles this file too and uses the other half")]
mod protocol;
pub mod reasons;
mod session;
mod shim;
/// Compiled here for its tests only.
#[cfg(test)]
#[path = "../../shim/src/user.rs"]
mod shim_user;
mod steps;

pub use docker::{
    BadAccess, BadDestination, BadSubnet, Destination, DiskLimit, DockerConfig, DockerExecutor,
    Egress, Limits, Machine, RegistryAccess, RegistryRule, Subnet, remove_rules,
};
pub use filled::{Filled, Filling};
pub use lease::{Lease, Renewing};
pub use local::{LocalConfig, LocalExecutor};

/// Executes jobs, any number at a time.
///
/// Contract:
/// - `run` sends its events in order and returns only when everything that the job made
///   (processes, containers, networks) is gone, however it ended. The workspace folder stays: its
///   owner collects artifacts and removes it.
/// - Cancelling `cancel` ends the job within the grace period; the outcome is then `Cancelled`.
/// - The job's own timeout is held here, counted from the call of `run`; the outcome is then
///   `TimedOut`.
/// - Dropping the future of `run` cancels the job and still removes everything, in the background.
/// - When the process that holds the executor dies, what it started ends by itself; when that process
///   or the way to what it started stands still, it ends before the job's lease does.
/// - `reconcile` may run beside `run`.
#[async_trait]
pub trait Executor: Send + Sync + fmt::Debug {
    /// Runs one attempt of a job to its end.
    async fn run(
        &self,
        job: JobRun,
        events: mpsc::Sender<JobEvent>,
        cancel: CancellationToken,
    ) -> JobOutcome;

    /// Removes what earlier processes left behind: everything with this installation's label whose
    /// attempt isn't in `live`. Answers how many things it removed.
    async fn reconcile(&self, live: &[AttemptId]) -> Result<usize, ExecutorError>;

    /// The runner ends and nothing runs: removes what would only help a next job, such as networks.
    async fn farewell(&self) {}

    /// Checks that jobs can run here; the error says what to fix.
    async fn check(&self) -> Result<String, ExecutorError>;
}

/// One attempt of a job, ready to run.
#[derive(Debug, Clone)]
pub struct JobRun {
    /// Labels everything that is made.
    pub attempt: AttemptId,
    /// Whose job it is; the same as the executor's own.
    pub installation: InstallationId,
    /// What to run.
    pub spec: JobSpec,
    /// An existing folder for the checked-out commit; absolute.
    pub workspace: PathBuf,
    /// When the commit is in it.
    pub filled: Filled,
    /// Until when the job is ours: everything that it started is dead by then.
    pub lease: Lease,
    /// The repository's name; says which private images it may use.
    pub repo: String,
    /// Environment that Pipeyard adds (`CI`, `PIPEYARD_RUN`, ...); the job's own wins.
    pub env: BTreeMap<String, String>,
    /// Values of the secrets that the job asks for.
    pub secrets: BTreeMap<SecretName, SecretValue>,
}

/// A secret's value; never printed.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct SecretValue(pub String);

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

/// What happens while a job runs. Steps count from 1 in the order of the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// Something to tell the reader of the log: a pull's progress, a service that became ready.
    Note { at: Timestamp, text: String },
    /// A step began.
    StepStarted { step: u16, at: Timestamp },
    /// Bytes that a step wrote, in any pieces: a piece is no line. They may come after the step's
    /// end, from a process that it left in the background.
    Output { step: u16, stream: Stream, at: Timestamp, bytes: Bytes },
    /// A step ended.
    StepFinished { step: u16, at: Timestamp, exit: StepExit },
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepExit {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It ran out of time and was ended.
    TimedOut,
    /// It was ended because the job was cancelled.
    Cancelled,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOutcome {
    /// Success only if every step exited with 0 and the end was confirmed by the shim's sentinel.
    pub conclusion: Conclusion,
    /// Why, unless it is a success.
    pub reason: Option<Reason>,
}

/// A stable code with a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reason {
    /// For programs and `pipectl explain`: `image_not_found`, `no_shell`, `docker_unavailable`, ...
    pub code: String,
    /// What, where, why and the fix.
    pub message: String,
}

/// The executor itself can't work.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExecutorError {
    /// Stable code, as in [`Reason`].
    pub code: &'static str,
    /// What, why and the fix.
    pub message: String,
}
