//! Whether the server can do its work: a write would succeed now, and the database is whole.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use pipeyard_store::StoreError;

use crate::AppState;

/// With less than this the disk is full: a write may succeed, the next one doesn't.
const ROOM: u64 = 32 << 20;
/// An answer is good for so long, so that asking costs nothing.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// Why the server isn't ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unready {
    /// Stable code.
    pub code: &'static str,
    /// What, where and the fix, in one line.
    pub message: String,
}

/// What is known of it.
#[derive(Debug, Default)]
pub struct Health {
    damaged: Mutex<Option<String>>,
    last: tokio::sync::Mutex<Option<(Instant, Result<(), Unready>)>>,
}

impl Health {
    /// The database told that it is damaged. Stays so until the server is started again.
    pub fn damaged(&self, problem: &str) {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        if damaged.is_none() {
            tracing::error!(
                problem,
                "the database is damaged: stop the server and restore the last backup"
            );
            *damaged = Some(problem.to_owned());
        }
    }

    /// Whether a write would succeed now.
    ///
    /// # Errors
    /// Why not.
    pub async fn ready(&self, state: &AppState) -> Result<(), Unready> {
        if state.stopping.is_cancelled() {
            return Err(Unready { code: "stopping", message: "stopping".to_owned() });
        }
        // One looks, the others wait for its answer.
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < GOOD_FOR
        {
            return answer.clone();
        }
        let answer = self.look(state).await;
        *last = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn look(&self, state: &AppState) -> Result<(), Unready> {
        let known = self.damaged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(problem) = known {
            return Err(damage(&problem));
        }
        let data = &state.config.data_dir;
        if let Some(left) = room(data).filter(|left| *left < ROOM) {
            let message = format!(
                "the disk of {} is full ({} MiB left): make room, and it goes on by itself",
                data.display(),
                left >> 20
            );
            return Err(Unready { code: "disk_full", message });
        }
        match state.store.probe().await {
            Ok(()) => Ok(()),
            Err(StoreError::Damaged(problem)) => {
                self.damaged(&problem);
                Err(damage(&problem))
            }
            Err(error) => {
                tracing::warn!(error = %error, "not ready: the store failed");
                let message = format!("the database in {} takes no writes", data.display());
                Err(Unready { code: "store_unavailable", message })
            }
        }
    }
}

fn damage(problem: &str) -> Unready {
    let message = format!("the database is damaged: restore the last backup ({problem})");
    Unready { code: "database_damaged", message }
}

/// Bytes that the disk of a folder has left for this process; none are left without a free inode.
fn room(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    if found.f_files > 0 && found.f_favail == 0 {
        return Some(0);
    }
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}
