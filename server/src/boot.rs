//! From settings to a state that can serve: opens the store and what lies beside it.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use pipeyard_model::{Actor, Clock, SystemClock, runner::Grant};
use pipeyard_store::{Store, runners::NewEnrolment};
use pipeyard_store_sqlite::SqliteStore;

use crate::{AppState, ServerConfig, keys, tokens};

/// An unused token from a file is good for so long after a start.
const FILE_TOKEN: Duration = Duration::from_secs(24 * 3600);

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
    // Before anything is sealed by a key that was made up anew.
    let seal = keys::open(store.as_ref(), &config).await?;
    AppState::with_seal(store, clock, config, installation, seal)
}

/// Lets one runner register with the token in this file, as whatever it says: who writes the file
/// rules the server's machine. Once it was used, the file is worth nothing.
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
    let new = NewEnrolment {
        hash: tokens::hash(token),
        expires_at: now + FILE_TOKEN,
        grant: Grant::everything(),
    };
    state.store.add_enrolment(new, Actor::pipeyard(), now).await?;
    Ok(())
}
