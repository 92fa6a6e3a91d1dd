//! Sends what lies in the outbox: in order within a key, at least once, with growing pauses and a
//! last try. Also removes what is old: sent messages and credentials that are over.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use pipeyard_model::Timestamp;
use pipeyard_store::{StoreResult, outbox::Message};
use tokio_util::sync::CancellationToken;

use crate::{
    AppState,
    outgoing::{self, Undelivered},
};

/// Messages of one round.
const BATCH: u32 = 64;
/// Messages on their way at once.
const PARALLEL: usize = 8;
/// Two rounds are at least this far apart.
const PACE: Duration = Duration::from_millis(250);
/// The longest sleep.
const IDLE: Duration = Duration::from_secs(30);
/// What was sent or given up is kept so long.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);
/// Old rows are looked for this often.
const CLEAN: Duration = Duration::from_secs(3600);
/// Pauses after each failed try, in seconds; the try after the last one is the last.
const PAUSES: [u64; 9] = [5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600];

/// Runs until `shutdown`.
pub async fn run(state: AppState, shutdown: CancellationToken) {
    let mut wake = state.store.wake();
    let mut cleaned: Option<Timestamp> = None;
    loop {
        wake.mark_unchanged();
        let sleep = match round(&state).await {
            Ok(sleep) => sleep,
            Err(error) => {
                tracing::warn!(error = %error, "the outbox waits: the store failed");
                IDLE
            }
        };
        let now = state.clock.now();
        if cleaned.is_none_or(|at| now.since(at) >= CLEAN) {
            cleaned = Some(now);
            if let Err(error) = clean(&state, now).await {
                tracing::warn!(error = %error, "old rows were not removed");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(sleep) => {}
            () = state.wake.outbox.notified() => {}
            _ = wake.changed() => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PACE) => {}
        }
    }
}

/// Sends what is due, and answers how long nothing will be.
///
/// # Errors
/// When the store fails.
pub async fn round(state: &AppState) -> StoreResult<Duration> {
    let due = state.store.due_messages(state.clock.now(), BATCH).await?;
    let full = due.len() == BATCH as usize;
    let sends = due.into_iter().map(|message| deliver(state, message));
    let ends: Vec<StoreResult<()>> = stream::iter(sends).buffer_unordered(PARALLEL).collect().await;
    ends.into_iter().collect::<StoreResult<()>>()?;
    if full {
        return Ok(Duration::ZERO);
    }
    let next = state.store.next_message_at().await?;
    Ok(next.map_or(IDLE, |at| at.since(state.clock.now())).min(IDLE))
}

async fn deliver(state: &AppState, message: Message) -> StoreResult<()> {
    let outcome = outgoing::send(state, &message).await;
    let now = state.clock.now();
    match outcome {
        Ok(()) => state.store.message_sent(message.id, now).await,
        Err(Undelivered::Later(problem, wait)) => {
            let next = pause(message.tries).map(|pause| now + pause.max(wait.unwrap_or_default()));
            let last = next.is_none();
            tracing::warn!(message.id = %message.id, key = message.key, problem, last, "a message didn't arrive");
            state.store.message_failed(message.id, &problem, next, now).await
        }
        Err(Undelivered::Never(problem)) => {
            tracing::warn!(message.id = %message.id, key = message.key, problem, last = true, "a message didn't arrive");
            state.store.message_failed(message.id, &problem, None, now).await
        }
    }
}

/// The pause after a failed try; `None` after the last. `tries` failed before it.
fn pause(tries: u32) -> Option<Duration> {
    PAUSES.get(usize::try_from(tries).ok()?).copied().map(Duration::from_secs)
}

async fn clean(state: &AppState, now: Timestamp) -> StoreResult<()> {
    state.store.remove_expired_credentials(now).await?;
    while state.store.trim_outbox(now - KEEP).await? > 0 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_after_ten_tries() {
        let pauses: Vec<_> = (0..).map_while(pause).collect();
        assert_eq!(pauses.len(), 9);
        assert!(pauses.is_sorted());
        assert_eq!(pause(u32::MAX), None);
    }
}
