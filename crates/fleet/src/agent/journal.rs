//! What the agent began and how it ended: one small file, replaced as a whole.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{deployment::Diagnostics, files::write_atomically};

/// Commands that are remembered; the fleet asks for the last one only.
const KEEP: usize = 20;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) event: String,
    pub(super) outcome: Option<Diagnostics>,
}

pub(super) struct Journal {
    path: PathBuf,
    entries: Mutex<BTreeMap<i64, Entry>>,
}

impl Journal {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let entries = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} isn't an agent's journal", path.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { path: path.to_owned(), entries: Mutex::new(entries) })
    }

    pub(super) fn find(&self, id: i64) -> Option<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(super) fn begin(&self, id: i64, event: &str) -> io::Result<()> {
        self.put(id, Entry { event: event.to_owned(), outcome: None })
    }

    pub(super) fn end(&self, id: i64, event: &str, outcome: &Diagnostics) -> io::Result<()> {
        self.put(id, Entry { event: event.to_owned(), outcome: Some(outcome.clone()) })
    }

    fn put(&self, id: i64, entry: Entry) -> io::Result<()> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(id, entry);
        while entries.len() > KEEP {
            entries.pop_first();
        }
        write_atomically(&self.path, &serde_json::to_vec_pretty(&*entries)?, 0o600)
    }
}

/// Keeps a second agent out of this root for as long as the file is open.
pub(super) fn lock(root: &Path) -> anyhow::Result<fs::File> {
    let path = root.join("agent.lock");
    let file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another agent works in {}", root.display()))?;
    Ok(file)
}
