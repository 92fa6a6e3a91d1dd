//! The runner: claims jobs from a server, executes them, ships their logs.
//!
//! It only dials out. Every write names the attempt that it belongs to, so that a runner which
//! comes back late changes nothing. Output is on this machine's disk before it is sent; what was
//! journaled survives the death of this process and reaches the server with the next start.
//!
//! It knows no store, no YAML and no forge: the server compiled the job, and the commit comes from
//! the server's mirror with a password that dies with the attempt.

mod artifacts;
mod attempt;
mod claim;
pub mod config;
mod framer;
mod heartbeat;
mod identity;
mod journal;
mod live;
mod log;
mod process;
mod protocol;
mod recover;
mod reports;
mod settings;
mod shipper;
mod workspace;

use std::sync::Arc;

use pipeyard_executor::{DockerConfig, DockerExecutor, Executor, LocalConfig, LocalExecutor};
use pipeyard_model::{Clock, InstallationId, SystemClock};
use tokio_util::sync::CancellationToken;

pub use config::{EgressKind, ExecutorKind, RunnerConfig};

use crate::{identity::Identity, live::Live, protocol::Server};

/// By these an existing data folder is known as a runner's.
const OURS: &[&str] = &["identity.json", "attempts", "lock"];

/// What the parts of a runner share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<RunnerConfig>,
    pub(crate) server: Server,
    pub(crate) identity: Arc<Identity>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) live: Arc<Live>,
}

/// Runs until `drain`, then finishes the jobs in work and takes no new ones; `cancel` ends those
/// too.
///
/// # Errors
/// When the runner can't register or its executor can't work.
pub async fn run(
    config: RunnerConfig,
    drain: CancellationToken,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    run_with(config, None, drain, cancel).await
}

/// The same with an executor of the caller's in place of the configured one.
///
/// # Errors
/// When the runner can't register or its executor can't work.
pub async fn run_with(
    config: RunnerConfig,
    executor: Option<Arc<dyn Executor>>,
    drain: CancellationToken,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let data_dir = pipeyard_private::folder(&config.data_dir, OURS)?;
    let config = Arc::new(RunnerConfig { data_dir, ..config });
    let _lock = identity::lock(&config.data_dir)?;
    let server = Server::new(&config.server)?;
    let identity = tokio::select! {
        identity = identity::load_or_register(&config, &server) => Arc::new(identity?),
        () = drain.cancelled() => return Ok(()),
    };
    let process = process::Process::new(&config.data_dir)?;
    let server = server.with_key(&identity.key).with_process(&process.nonce);
    // Before anything of this runner's is touched: another process may be at work with it.
    process::speak(&server, &config.data_dir, &process, &drain).await?;
    if drain.is_cancelled() {
        return Ok(());
    }
    let executor = match executor {
        Some(executor) => executor,
        None => self::executor(&config, &identity).await?,
    };
    let shared = Shared {
        config,
        server,
        identity,
        executor,
        clock: Arc::new(SystemClock),
        live: Arc::default(),
    };
    let removed = shared.executor.reconcile(&[]).await?;
    if removed > 0 {
        tracing::info!(removed, "removed what an earlier process left behind");
    }
    let stop_helpers = CancellationToken::new();
    let recover = tokio::spawn(recover::run(shared.clone(), stop_helpers.clone()));
    let heart = tokio::spawn(heartbeat::run(shared.clone(), stop_helpers.clone()));
    tracing::info!(runner.id = %shared.identity.runner, server = %shared.config.server, slots = shared.config.slots, "the runner takes jobs");
    let ended = claim::run(&shared, &drain, &cancel).await;
    stop_helpers.cancel();
    for helper in [recover, heart] {
        let _ = helper.await;
    }
    shared.executor.farewell().await;
    if ended.is_ok() {
        process::leave(&shared.server).await;
    }
    ended
}

async fn executor(config: &RunnerConfig, identity: &Identity) -> anyhow::Result<Arc<dyn Executor>> {
    let executor: Arc<dyn Executor> = match config.executor {
        ExecutorKind::Docker => {
            let settings = settings::docker(config, owner(identity)).await?;
            Arc::new(DockerExecutor::connect(settings).await?)
        }
        ExecutorKind::Local => {
            settings::check_local(config)?;
            Arc::new(LocalExecutor::new(LocalConfig::new(&config.data_dir))?)
        }
    };
    let found = executor.check().await?;
    tracing::info!(executor = %found, "jobs can run here");
    Ok(executor)
}

/// Whose containers these are. A runner removes what carries its label and isn't in work, so the
/// label is the runner's own: two runners of one server may share a machine.
fn owner(identity: &Identity) -> InstallationId {
    InstallationId(identity.runner.0)
}

/// Removes everything that the runner of this folder made in Docker, its networks too. For
/// installations that are thrown away.
///
/// # Errors
/// When Docker can't be reached.
pub async fn remove_everything(data_dir: &std::path::Path) -> anyhow::Result<()> {
    if let Some(identity) = identity::stored(data_dir)? {
        let executor =
            DockerExecutor::connect(DockerConfig::new(owner(&identity), data_dir)).await?;
        executor.remove_everything().await?;
        pipeyard_executor::remove_rules(None).await?;
    }
    Ok(())
}
