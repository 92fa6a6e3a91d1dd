//! From settings to a state that can serve: opens the store and what lies beside it.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use pipeyard_model::{Actor, Clock, SystemClock};
use pipeyard_store::Store;
use pipeyard_store_sqlite::SqliteStore;

use crate::{AppState, ServerConfig, tokens};

/// A registration token from a file is renewed at every start, so it never runs out in use.
const FILE_TOKEN: Duration = Duration::from_secs(3650 * 24 * 3600);

/// By these an existing data folder is known as a server's.
pub(crate) const OURS: &[&str] = &["pipeyard.sqlite", "key"];

/// Opens everything in `config.data_dir`, making what is missing.
///
/// # Errors
/// When the folder, the database or the key can't be used.
pub async fn boot(config: ServerConfig) -> anyhow::Result<AppState> {
    pipeyard_private::folder(&config.data_dir, OURS)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let file = config.data_dir.join("pipeyard.sqlite");
    let store = SqliteStore::open(&file, Arc::clone(&clock))
        .await
        .with_context(|| format!("failed to open {}", file.display()))?;
    let installation = store.installation();
    let store: Arc<dyn Store> = Arc::new(store);
    AppState::open(store, clock, config, installation)
}

/// Lets runners register with the token in this file.
///
/// # Errors
/// When the file can't be read or is too short to be a token.
pub async fn accept_runner_token(state: &AppState, file: &Path) -> anyhow::Result<()> {
    let token = pipeyard_private::secret(file)?;
    let token = token.trim();
    anyhow::ensure!(
        token.len() >= 32,
        "{} holds less than 32 characters: that is no token",
        file.display()
    );
    let now = state.clock.now();
    state
        .store
        .add_registration_token(tokens::hash(token), now + FILE_TOKEN, Actor::pipeyard(), now)
        .await?;
    Ok(())
}
