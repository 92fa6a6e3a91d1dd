//! From settings to a state that can serve: opens the store and what lies beside it.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use pipeyard_model::{Actor, Clock, SystemClock, runner::Grant};
use pipeyard_store::{Store, runners::NewEnrolment};
use pipeyard_store_sqlite::{SqliteStore, health};

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
    refuse_lost(&config.data_dir, &file)?;
    let store = SqliteStore::open(&file, Arc::clone(&clock))
        .await
        .with_context(|| format!("failed to open {}", file.display()))?;
    let installation = store.installation();
    let store: Arc<dyn Store> = Arc::new(store);
    tell_of_limited_secrets(&*store).await?;
    // Before anything is sealed by a key that was made up anew.
    let seal = keys::open(store.as_ref(), &config).await?;
    AppState::with_seal(store, clock, config, installation, seal)
}

/// A folder that was in use and whose database is gone or empty isn't a new installation: what lies
/// in it would be nobody's, and its repositories, runners and people unknown.
fn refuse_lost(data: &Path, database: &Path) -> anyhow::Result<()> {
    if !health::is_empty(database) {
        return Ok(());
    }
    let is_filled = |name: &&str| {
        std::fs::read_dir(data.join(name)).is_ok_and(|mut entries| entries.next().is_some())
    };
    if let Some(found) = ["logs", "blobs/sha256", "mirrors"].iter().find(|name| is_filled(name)) {
        let state = if database.exists() { "is empty" } else { "isn't there" };
        anyhow::bail!(
            "the database {} {state}, but {} is in use: this was an installation, and a new one would \
             hide what is left of it. Restore a backup with `pipectl admin restore`, or name an empty \
             folder to begin anew",
            database.display(),
            data.join(found).display()
        );
    }
    Ok(())
}

/// Secrets of all repositories were for every branch once. Said at every start until each has been set
/// again or removed: a job elsewhere ends with `secret_not_for_branch`.
async fn tell_of_limited_secrets(store: &dyn Store) -> anyhow::Result<()> {
    let secrets = store.secrets().await.context("failed to read the secrets")?;
    let names: Vec<_> = secrets
        .iter()
        .filter(|secret| secret.limited_by_upgrade)
        .map(|secret| secret.name.as_str())
        .collect();
    if !names.is_empty() {
        tracing::warn!(
            secrets = names.join(", "),
            "secrets of all repositories are for default branches only since the upgrade; set them \
             again with --repo or --all-repos, and --branch where other branches need them"
        );
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn try_boot(data: &Path) -> Result<(), String> {
        let config = ServerConfig { data_dir: data.to_owned(), ..Default::default() };
        boot(config).await.map(drop).map_err(|error| format!("{error:#}"))
    }

    #[tokio::test]
    async fn a_folder_that_lost_its_database_is_no_new_installation() {
        let folder = tempfile::tempdir().unwrap();
        let (data, database) = (folder.path(), folder.path().join("pipeyard.sqlite"));
        // A first start that was killed before it wrote anything is one.
        std::fs::write(&database, "").unwrap();
        try_boot(data).await.unwrap();
        std::fs::create_dir_all(data.join("logs/a-job")).unwrap();
        try_boot(data).await.unwrap();
        let whole = std::fs::read(&database).unwrap();
        for lost in [Some(&b""[..]), None] {
            match lost {
                Some(bytes) => std::fs::write(&database, bytes).unwrap(),
                None => std::fs::remove_file(&database).unwrap(),
            }
            for rest in ["pipeyard.sqlite-wal", "pipeyard.sqlite-shm"] {
                let _ = std::fs::remove_file(data.join(rest));
            }
            let refused = try_boot(data).await.unwrap_err();
            assert!(refused.contains("Restore a backup"), "{refused}");
            assert_eq!(database.exists(), lost.is_some(), "nothing was made");
        }
        std::fs::write(&database, whole).unwrap();
        try_boot(data).await.unwrap();
    }

    #[tokio::test]
    async fn a_page_that_was_changed_is_found_before_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("pipeyard.sqlite");
        try_boot(folder.path()).await.unwrap();
        let whole = std::fs::read(&database).unwrap();
        let page = usize::from(u16::from_be_bytes([whole[16], whole[17]]));
        let mut refused = 0;
        for at in (page..whole.len()).step_by(page * 9) {
            let mut bad = whole.clone();
            bad[at] ^= 0x04;
            std::fs::write(&database, bad).unwrap();
            let error = try_boot(folder.path()).await.expect_err("a changed page was taken");
            assert!(error.contains("restore the last backup"), "page {}: {error}", at / page);
            refused += 1;
        }
        assert!(refused > 3);
    }
}
