//! Looks at the whole database while the server works: at the start, where a large one wasn't looked
//! at before it was opened, and then once a day.

use std::time::Duration;

use pipeyard_store::StoreError;
use tokio_util::sync::CancellationToken;

use crate::AppState;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// After the start, so that it comes behind what waits.
const FIRST: Duration = Duration::from_secs(60);

/// Runs until `shutdown`.
pub async fn run(state: AppState, shutdown: CancellationToken) {
    let mut wait = FIRST;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = EVERY;
        tokio::select! {
            () = shutdown.cancelled() => return,
            checked = state.store.check() => match checked {
                Ok(()) => {}
                Err(StoreError::Damaged(problem)) => state.health.damaged(&problem),
                Err(error) => tracing::warn!(error = %error, "the database wasn't looked at"),
            },
        }
    }
}
