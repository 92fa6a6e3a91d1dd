//! The metrics' sums are compared with what they are made of, when the server starts and once a day,
//! in small pieces behind all other work. The first check also adds what an older version didn't keep.

use std::time::Duration;

use pipeyard_store::{StoreResult, dora::CheckFrom};
use tokio_util::sync::CancellationToken;

use crate::AppState;

/// Between two checks.
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// After a check that failed.
const AGAIN: Duration = Duration::from_secs(60);
/// Contributions or cells of one piece.
const PIECE: u32 = 100;
/// Between two pieces, so that a check never takes the writer for itself.
const PACE: Duration = Duration::from_millis(20);

/// Runs until `shutdown`.
pub async fn run(state: AppState, shutdown: CancellationToken) {
    loop {
        let checked = tokio::select! {
            () = shutdown.cancelled() => return,
            checked = check(&state) => checked,
        };
        let sleep = match checked {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::warn!(error = %error, "the metrics were not checked");
                AGAIN
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

async fn check(state: &AppState) -> StoreResult<()> {
    let (mut added, mut corrected) = (0, 0);
    let mut from = CheckFrom::START;
    loop {
        let piece = state.store.check_dora(from, PIECE).await?;
        added += piece.added;
        corrected += piece.corrected;
        let Some(next) = piece.next else { break };
        from = next;
        tokio::time::sleep(PACE).await;
    }
    if added > 0 {
        tracing::info!(added, "deployments and incidents of an older version count in the metrics");
    }
    if corrected > 0 {
        tracing::error!(corrected, "sums of the metrics were wrong and are corrected");
    }
    Ok(())
}
