//! Removes the logs and artifacts of runs that ended long ago: first from the rows, then from the
//! disk, in small pieces behind all other work.

use std::time::Duration;

use pipeyard_store::retention::Removal;
use tokio_util::sync::CancellationToken;

use crate::AppState;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(3600);
/// Runs, or files, of one piece.
const PIECE: u32 = 20;
/// Between two pieces.
const PACE: Duration = Duration::from_millis(50);

/// Runs until `shutdown`.
pub async fn run(state: AppState, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            done = once(&state) => if let Err(error) = done {
                tracing::warn!(error = %error, "old logs and artifacts were not removed");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Removes everything that is too old.
///
/// # Errors
/// When the store or the disk fails; what is left goes the next time.
pub async fn once(state: &AppState) -> anyhow::Result<()> {
    if let Some(age) = state.config.keep() {
        let now = state.clock.now();
        while state.store.give_up(now - age, now, PIECE).await? == PIECE {
            tokio::time::sleep(PACE).await;
        }
    }
    // What an earlier look noted goes also when nothing is old any more.
    loop {
        let removals = state.store.removals(PIECE).await?;
        let mut gone = 0;
        for removal in removals {
            if remove(state, &removal).await? {
                state.store.removed(removal).await?;
                gone += 1;
            }
        }
        if gone < PIECE {
            return Ok(());
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Removes it from the disk, unless it is needed again. False if it is in use and has to wait.
async fn remove(state: &AppState, removal: &Removal) -> anyhow::Result<bool> {
    match removal {
        Removal::Log(attempt) => state.logs.remove(*attempt).await?,
        Removal::Blob(sha256) => {
            // Nobody can begin to keep the same bytes between the question and the removal.
            let Some(lock) = state.blobs.lock(sha256) else { return Ok(false) };
            if !state.store.blob_is_needed(sha256).await? {
                lock.remove().await?;
            }
        }
    }
    Ok(true)
}
