//! Seals the logs of attempts that are over.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::AppState;

/// A look happens this often even when no attempt was heard to end.
const EVERY: Duration = Duration::from_secs(60);
/// Readers who follow a log see its end before its file changes its form; ends that come together
/// are handled together.
const REST: Duration = Duration::from_secs(2);

/// Runs until `shutdown`.
pub async fn run(state: AppState, shutdown: CancellationToken) {
    loop {
        if let Err(error) = seal_all(&state, &shutdown).await {
            tracing::warn!(error = %error, "logs were not sealed");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
            () = state.logs.ended.notified() => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(REST) => {}
        }
    }
}

async fn seal_all(state: &AppState, shutdown: &CancellationToken) -> anyhow::Result<()> {
    for attempt in state.logs.unsealed().await? {
        if shutdown.is_cancelled() {
            return Ok(());
        }
        let over = state.store.log_state(attempt).await?.is_some_and(|log| log.complete);
        if !over {
            continue;
        }
        if let Err(error) = state.logs.seal(attempt).await {
            tracing::warn!(job.id = %attempt.job, error = %error, "a log was not sealed");
        }
    }
    Ok(())
}
