//! Mirrors: one bare repository for each that Pipeyard knows, under `<data>/mirrors/<repo id>.git`.
//!
//! Everything that reads history reads it here; runners check out from here. One writer at a time
//! for each mirror, many readers. A mirror can be deleted at any time while nobody uses it: the next
//! fetch makes it anew, and only commits that the remote has lost are gone with it.

mod remote;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use pipeyard_model::RepoId;

pub use remote::{
    MirrorError, admit, ask_for, fetch, hook_secret_purpose, open, remote_refs, seal_credentials,
};

/// Where the mirrors are and who writes to them.
#[derive(Debug)]
pub struct Mirrors {
    root: PathBuf,
    writers: Mutex<HashMap<RepoId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Mirrors {
    /// Mirrors below the data folder.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self { root: data_dir.join("mirrors"), writers: Mutex::default() }
    }

    /// The folder of one mirror, whether it exists or not.
    #[must_use]
    pub fn path(&self, repo: RepoId) -> PathBuf {
        self.root.join(format!("{repo}.git"))
    }

    /// Whose mirrors there are.
    #[must_use]
    pub fn ids(&self) -> Vec<RepoId> {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return Vec::new() };
        let name = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
        entries
            .flatten()
            .filter_map(name)
            .filter_map(|name| name.strip_suffix(".git")?.parse().ok())
            .collect()
    }

    /// Waits until nobody else writes to the mirror.
    pub async fn write_lock(&self, repo: RepoId) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(writers.entry(repo).or_default())
        };
        lock.lock_owned().await
    }
}
