//! What every handler and task shares.

use std::sync::Arc;

use pipeyard_model::{Clock, InstallationId};
use pipeyard_store::Store;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    ServerConfig,
    blobs::Blobs,
    health::Health,
    http::login::LoginLimit,
    log::Logs,
    metrics::Metrics,
    mirror::Mirrors,
    providers::{ConfiguredProviders, Providers},
    seal::Seal,
    serving::Readings,
};

/// Event streams that may be open at once.
const STREAMS: usize = 1000;

/// Shared by handlers and tasks; cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The present.
    pub clock: Arc<dyn Clock>,
    /// Settings.
    pub config: Arc<ServerConfig>,
    /// Who this installation is.
    pub installation: InstallationId,
    /// Where history is read and checked out from: `Mirrors::new(&config.data_dir)`.
    pub mirrors: Arc<Mirrors>,
    /// Encrypts what must not lie in the database in clear.
    pub seal: Arc<Seal>,
    /// Artifacts and releases by their SHA-256.
    pub blobs: Blobs,
    /// Logs of attempts.
    pub logs: Arc<Logs>,
    /// Who carries deployments out.
    pub providers: Arc<dyn Providers>,
    /// How it stands with what serves.
    pub readings: Arc<Readings>,
    /// Which start of this process it is, in the words of whoever started it; said by `/readyz`.
    pub start: Option<String>,
    /// Wrong sign-ins of the last minute.
    pub logins: Arc<LoginLimit>,
    /// Whether it can do its work.
    pub health: Arc<Health>,
    /// Numbers for Prometheus.
    pub metrics: Arc<Metrics>,
    /// Places for event streams.
    pub streams: Arc<Semaphore>,
    /// Wakes tasks earlier than their timers do.
    pub wake: Arc<Wake>,
    /// The server was told to stop: streams and long polls end early.
    pub stopping: CancellationToken,
}

impl AppState {
    /// Joins an open store with what lies beside it in `config.data_dir`, and makes a master key there
    /// if there is none. For tests; a server proves its key first, see [`keys`](crate::keys).
    ///
    /// # Errors
    /// When the folder can't be used or the key is open to others.
    pub fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        config: ServerConfig,
        installation: InstallationId,
    ) -> anyhow::Result<Self> {
        pipeyard_private::folder(&config.data_dir, crate::boot::OURS)?;
        let seal = Seal::open(&config.data_dir.join("key"))?;
        Self::with_seal(store, clock, config, installation, seal)
    }

    /// Joins an open store with what lies beside it in `config.data_dir`: blobs, logs and mirrors.
    ///
    /// # Errors
    /// When the folder can't be used.
    pub fn with_seal(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        config: ServerConfig,
        installation: InstallationId,
        seal: Seal,
    ) -> anyhow::Result<Self> {
        let data = &config.data_dir;
        pipeyard_private::folder(data, crate::boot::OURS)?;
        Ok(Self {
            seal: Arc::new(seal),
            blobs: Blobs::open(data.join("blobs"))?,
            mirrors: Arc::new(Mirrors::new(data)),
            logs: Arc::new(Logs::open(data.join("logs"), config.max_log_bytes)?),
            providers: Arc::new(ConfiguredProviders::new(config.credentials.clone())),
            store,
            clock,
            config: Arc::new(config),
            installation,
            readings: Arc::default(),
            start: None,
            logins: Arc::default(),
            health: Arc::default(),
            metrics: Arc::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            wake: Arc::default(),
            stopping: CancellationToken::new(),
        })
    }
}

/// One signal for each task.
#[derive(Debug, Default)]
pub struct Wake {
    /// Run requests came in.
    pub compile: Notify,
    /// Refs should be compared now.
    pub refs: Notify,
    /// A deploy may be ready, approved or aborted.
    pub deploy: Notify,
    /// Messages wait in the outbox.
    pub outbox: Notify,
}
