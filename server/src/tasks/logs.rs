//! Seals the logs of attempts that are over. One that was ended without its runner stays open for a
//! while: the runner may come back with what it journaled.

use std::time::Duration;

use pipeyard_model::AttemptId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::AppState;

/// Every log on the disk is looked at at the start and then this often; in between those that this
/// process has used are enough.
const EVERY: Duration = Duration::from_secs(600);
/// Readers who follow a log see its end before its file changes its form; ends that come together
/// are handled together.
const REST: Duration = Duration::from_secs(2);

/// Runs until `shutdown`.
pub async fn run(state: AppState, shutdown: CancellationToken) {
    let mut next = Instant::now();
    loop {
        let result = if Instant::now() >= next {
            next = Instant::now() + EVERY;
            match state.logs.unsealed().await {
                Ok(attempts) => seal_all(&state, attempts, &shutdown).await,
                Err(error) => Err(error.into()),
            }
        } else {
            seal_all(&state, state.logs.in_use(), &shutdown).await
        };
        if let Err(error) = result {
            tracing::warn!(error = %error, "logs were not sealed");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
            () = state.logs.ended.notified() => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(REST) => {}
        }
    }
}

async fn seal_all(
    state: &AppState,
    attempts: Vec<AttemptId>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    for attempt in attempts {
        if shutdown.is_cancelled() {
            return Ok(());
        }
        let now = state.clock.now();
        let is_whole = state
            .store
            .log_state(attempt)
            .await?
            .is_some_and(|log| log.complete && log.late_until.is_none_or(|until| until < now));
        if !is_whole {
            continue;
        }
        if let Err(error) = seal(state, attempt).await {
            tracing::warn!(job.id = %attempt.job, error = %error, "a log was not sealed");
        }
    }
    Ok(())
}

/// Seals one: the digest is recorded before the unsealed form goes, so that what is damaged later is
/// known as damaged.
async fn seal(state: &AppState, attempt: AttemptId) -> anyhow::Result<()> {
    let Some(digest) = state.logs.seal(attempt).await? else { return Ok(()) };
    state.store.record_sealed_log(attempt, &digest).await?;
    state.logs.sealed(attempt).await?;
    Ok(())
}

/// Seals everything that is over and isn't waited for, once.
///
/// # Errors
/// When the folder or the store fails.
pub async fn seal_now(state: &AppState) -> anyhow::Result<()> {
    seal_all(state, state.logs.unsealed().await?, &CancellationToken::new()).await
}
