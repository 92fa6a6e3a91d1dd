//! What every handler and task shares.

use std::sync::Arc;

use pipeyard_model::{Clock, InstallationId};
use pipeyard_store::Store;
use tokio::sync::Notify;

use crate::{ServerConfig, mirror::Mirrors};

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
    /// Wakes tasks earlier than their timers do.
    pub wake: Arc<Wake>,
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
