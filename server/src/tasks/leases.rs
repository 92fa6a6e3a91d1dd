//! Leases: an attempt whose runner wasn't heard of ends as lost, and its job is offered again.
//! Besides, queued jobs are told why they wait, and old events and deliveries are trimmed.

use std::time::Duration;

use pipeyard_store::StoreResult;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::AppState;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// A look that comes later than this means that the server itself stood still: runners could not
/// renew their leases, so all of them hold for another full period.
const STOOD_STILL: Duration = Duration::from_secs(10);
/// Between two trims.
const TRIM_EVERY: Duration = Duration::from_secs(3600);
/// Events and the bodies of deliveries are kept for so long.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Runs until `shutdown`.
pub async fn run(state: AppState, shutdown: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<Instant> = None;
    let mut trimmed: Option<Instant> = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // The first look is the server's start: nobody could renew while it was away.
        let rested = last.is_some_and(|last| last.elapsed() < STOOD_STILL);
        if let Err(error) = look(&state, rested).await {
            tracing::warn!(error = %error, "a look at the leases failed");
            continue;
        }
        last = Some(Instant::now());
        if trimmed.is_none_or(|at| at.elapsed() >= TRIM_EVERY) {
            if let Err(error) = trim(&state).await {
                tracing::warn!(error = %error, "old events were not removed");
            }
            trimmed = Some(Instant::now());
        }
    }
}

async fn look(state: &AppState, rested: bool) -> StoreResult<()> {
    if !rested {
        state.store.extend_all_leases(state.clock.now()).await?;
    }
    loop {
        let lost = state.store.expire_leases(state.clock.now()).await?;
        if lost.is_empty() {
            break;
        }
        for attempt in lost {
            tracing::warn!(job.id = %attempt.job, job.epoch = attempt.epoch.0, "a runner was lost");
            // What arrived of its log stays, and its length is shown.
            if let Ok(bytes) = state.logs.length(attempt).await {
                state.store.report_log(attempt, bytes, &[], state.clock.now()).await?;
            }
        }
        state.logs.ended.notify_one();
    }
    state.store.explain_waits(state.clock.now()).await
}

async fn trim(state: &AppState) -> StoreResult<()> {
    let before = state.clock.now() - KEPT;
    state.store.trim_events(before).await?;
    while state.store.trim_deliveries(before).await? > 0 {}
    Ok(())
}
