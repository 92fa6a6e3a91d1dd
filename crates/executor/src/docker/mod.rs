//! Runs jobs in Docker containers.
//!
//! A job is one container whose process 1 is our shim; services and steps with an image of their own
//! are further ones. Everything carries the labels of installation, job and epoch. What the executor
//! relies on is the shim's sentinel: Docker's exit code alone never makes a success.
//!
//! The workspace is the host's folder, mounted at `/workspace`. It belongs to the image's user while
//! the steps run and to its first owner again afterwards.

mod access;
mod container;
mod credentials;
mod disk;
mod egress;
mod fault;
mod image;
mod job;
mod labels;
mod limits;
mod network;
mod remap;
mod service;
mod subnet;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bollard::{API_DEFAULT_VERSION, Docker, query_parameters::ListContainersOptionsBuilder};
use pipeyard_model::{AttemptId, ByteSize, Clock, InstallationId, SystemClock};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Executor, ExecutorError, JobEvent, JobOutcome, JobRun, shim};
pub use access::{BadAccess, RegistryAccess, RegistryRule};
use egress::Guard;
pub use egress::{BadDestination, Destination, Egress};
use fault::Fault;
use job::Attempt;
pub use limits::{DiskLimit, Limits, Machine};
use network::Networks;
use remap::Remap;
pub use subnet::{BadSubnet, Subnet};

/// How long Docker may take to answer one request, in seconds.
const ANSWER: u64 = 120;
/// How long it may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(10);
const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";

/// How a [`DockerExecutor`] works.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// Labels everything that is made; `reconcile` removes what carries it. Two live executors on
    /// one machine must not share it.
    pub installation: InstallationId,
    /// A folder of the runner's. The shim is put into it, so the Docker daemon must see it under the
    /// same path, on a file system that allows programs.
    pub data_dir: PathBuf,
    /// Tells when notes are made.
    pub clock: Arc<dyn Clock>,
    /// `unix:///path/to/docker.sock`; without it `DOCKER_HOST` or the default socket.
    pub host: Option<String>,
    /// The folder of the `config.json` that `docker login` writes; without it `DOCKER_CONFIG` or
    /// `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// Whose images the runner's login at registries gives.
    pub registry_access: RegistryAccess,
    /// What a job's own container may use, and that of a step with an image of its own.
    pub limits: Limits,
    /// What each sidecar may use.
    pub sidecar_limits: Limits,
    /// What a job may put on the disk.
    pub disk: DiskLimit,
    /// Where jobs may connect to.
    pub egress: Egress,
    /// Addresses of our networks; must be free on this machine.
    pub network_range: Subnet,
    /// How many jobs with services may run at a time; more wait.
    pub network_pool: usize,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// How long a service may take until it is ready.
    pub service_deadline: Duration,
    /// How long a pull may stand still.
    pub pull_stall: Duration,
}

impl DockerConfig {
    /// The defaults for an installation and its runner's data folder.
    #[must_use]
    pub fn new(installation: InstallationId, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            installation,
            data_dir: data_dir.into(),
            clock: Arc::new(SystemClock),
            host: None,
            docker_config: None,
            registry_access: RegistryAccess::Rules(Vec::new()),
            limits: Limits::default(),
            sidecar_limits: Limits::default(),
            disk: DiskLimit::default(),
            egress: Egress::Open,
            network_range: Subnet::OURS,
            network_pool: 32,
            grace: Duration::from_secs(10),
            service_deadline: Duration::from_secs(60),
            pull_stall: Duration::from_secs(60),
        }
    }
}

/// Runs jobs in Docker containers.
#[derive(Debug)]
pub struct DockerExecutor(Arc<Core>);

#[derive(Debug)]
pub(crate) struct Core {
    docker: Docker,
    config: DockerConfig,
    networks: Networks,
    shim: PathBuf,
    /// Keeps jobs from the machine; none where they may connect to everything.
    guard: Option<Arc<Guard>>,
    /// Whom a container's root is on the machine, where it isn't root.
    remap: Option<Remap>,
    /// What runs here now: never removed by `reconcile`, whatever it is told.
    active: Mutex<HashSet<AttemptId>>,
}

impl DockerExecutor {
    /// Connects to Docker, puts the shim into the data folder and takes over the networks of an
    /// earlier process. Nothing is removed: that is [`Executor::reconcile`]'s.
    ///
    /// # Errors
    /// `docker_unavailable` when Docker doesn't answer, `data_dir` when the folder can't be written.
    pub async fn connect(config: DockerConfig) -> Result<Self, ExecutorError> {
        let shim = shim::install(&config.data_dir)?;
        let docker = client(config.host.as_deref())
            .map_err(|error| Fault::unavailable(&error.to_string()))?
            .negotiate_version()
            .await
            .map_err(|error| Fault::of("tell its version", &error))?;
        let networks = Networks::adopt(
            docker.clone(),
            config.installation,
            config.network_range,
            config.network_pool.max(1),
        )
        .await?;
        let info = docker.info().await.map_err(|error| Fault::of("describe itself", &error))?;
        let remap = Remap::of(&info)?;
        let guard = match &config.egress {
            Egress::Open => None,
            Egress::Guarded(allowed) => {
                if !networks.are_here().await? {
                    let why = "Docker's networks are in another network namespace";
                    return Err(egress::unenforceable(why).into());
                }
                let allowed = allowed.clone();
                let guard = Guard::new(config.network_range, allowed, config.installation);
                let guard = Arc::new(guard);
                guard.hold().await?;
                Some(guard)
            }
        };
        let active = Mutex::default();
        Ok(Self(Arc::new(Core { docker, config, networks, shim, guard, remap, active })))
    }

    /// The machine that containers run on.
    ///
    /// # Errors
    /// `docker_unavailable` when Docker doesn't answer.
    pub async fn machine(host: Option<&str>) -> Result<Machine, ExecutorError> {
        let docker = client(host).map_err(|error| Fault::unavailable(&error.to_string()))?;
        let info = docker.info().await.map_err(|error| Fault::of("describe itself", &error))?;
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        Ok(Machine {
            memory_bytes: number(info.mem_total).unwrap_or(0),
            cpus: number(info.ncpu).and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or(1),
        })
    }

    /// Removes everything with this installation's label, networks included: what `reconcile` keeps
    /// for the next process goes too. Nothing may run.
    ///
    /// # Errors
    /// When Docker doesn't answer.
    pub async fn remove_everything(&self) -> Result<usize, ExecutorError> {
        let containers = self.reconcile(&[]).await?;
        Ok(containers + self.0.networks.remove_all().await?)
    }
}

/// Removes the rules about where jobs may connect to, if no Pipeyard has a network on this machine
/// any more. For installations that are thrown away.
///
/// # Errors
/// When Docker doesn't answer.
pub async fn remove_rules(host: Option<&str>) -> Result<(), ExecutorError> {
    let docker = client(host).map_err(|error| Fault::unavailable(&error.to_string()))?;
    if Networks::any(&docker).await? {
        return Ok(());
    }
    if let Ok(Err(error)) = tokio::task::spawn_blocking(egress::remove).await {
        tracing::debug!(%error, "no rules were removed");
    }
    Ok(())
}

fn client(host: Option<&str>) -> Result<Docker, bollard::errors::Error> {
    let from_env = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let host = host.map(ToOwned::to_owned).or(from_env);
    let host = host.as_deref().unwrap_or(DEFAULT_SOCKET);
    if host.starts_with("unix://") {
        Docker::connect_with_unix(host, ANSWER, API_DEFAULT_VERSION)
    } else {
        // Refused by bollard with the address in the message: mounts need this machine's daemon.
        Docker::connect_with_host(host)
    }
}

#[async_trait]
impl Executor for DockerExecutor {
    async fn run(
        &self,
        job: JobRun,
        events: mpsc::Sender<JobEvent>,
        cancel: CancellationToken,
    ) -> JobOutcome {
        let id = job.attempt;
        // The attempt is a task of its own: a caller that drops this future cancels it by the guard,
        // and the task still cleans up.
        let token = cancel.child_token();
        let _guard = token.clone().drop_guard();
        let core = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            let _active = Active::new(&core, id);
            Attempt::new(Arc::clone(&core), job, events, token).run().await
        });
        task.await.unwrap_or_else(|error| {
            let message = format!("The executor itself failed: {error}. Please report it.");
            Fault::new("internal", message).into()
        })
    }

    async fn farewell(&self) {
        if let Err(error) = self.0.networks.remove_all().await {
            tracing::warn!(error = %error.message, "this runner's networks weren't removed");
        }
    }

    async fn reconcile(&self, live: &[AttemptId]) -> Result<usize, ExecutorError> {
        let core = &self.0;
        let filter = labels::filter(core.config.installation);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
        let found = core
            .docker
            .list_containers(Some(options))
            .await
            .map_err(|error| Fault::of("list containers", &error))?;
        let mut removed = 0;
        for container in found {
            let attempt = container.labels.as_ref().and_then(labels::attempt);
            let is_live = attempt.is_some_and(|id| live.contains(&id) || core.is_active(id));
            if let (false, Some(id)) = (is_live, container.id) {
                removed += usize::from(container::remove(&core.docker, &id, false).await);
            }
        }
        Ok(removed)
    }

    async fn check(&self) -> Result<String, ExecutorError> {
        let core = &self.0;
        let asked = tokio::time::timeout(PATIENCE, core.docker.version()).await;
        let version = asked
            .map_err(|_| Fault::unavailable("it doesn't answer in time"))?
            .map_err(|error| Fault::of("tell its version", &error))?;
        let keep = core.config.disk.keep_free;
        if let Some(free) = disk::free(&core.config.data_dir).filter(|free| *free < keep) {
            let (free, keep) = (ByteSize(free), ByteSize(keep));
            let message = format!(
                "The runner's disk has {free} free in {}, and {keep} are kept free: no job is taken. \
                 Free space there.",
                core.config.data_dir.display()
            );
            return Err(Fault::new("runner_disk_full", message).into());
        }
        if let Some(guard) = &core.guard {
            guard.hold().await?;
        }
        let (engine, api) = (version.version, version.api_version);
        Ok(format!(
            "Docker Engine {}, API {}",
            engine.as_deref().unwrap_or("of unknown version"),
            api.as_deref().unwrap_or("unknown")
        ))
    }
}

impl Core {
    fn active(&self) -> std::sync::MutexGuard<'_, HashSet<AttemptId>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_active(&self, id: AttemptId) -> bool {
        self.active().contains(&id)
    }
}

/// An attempt that runs here.
struct Active<'a>(&'a Core, AttemptId);

impl<'a> Active<'a> {
    fn new(core: &'a Core, id: AttemptId) -> Self {
        core.active().insert(id);
        Self(core, id)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active().remove(&self.1);
    }
}
