//! Leases: an attempt whose runner wasn't heard of ends as lost, and its job is offered again.
//! Besides, queued jobs are told why they wait, and old events and deliveries are trimmed.

use std::time::Duration;

use pipeyard_model::jump::{Guard, Passed};
use pipeyard_store::{StoreError, StoreResult};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::AppState;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// A look that comes later than this means that the server itself stood still: runners could not
/// renew their leases, so all of them hold for another full period.
const STOOD_STILL: Duration = Duration::from_secs(10);
/// Nothing that is tried again waits longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Between two trims.
const TRIM_EVERY: Duration = Duration::from_secs(3600);
/// Events and the bodies of deliveries are kept for so long.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Runs until `shutdown`.
pub async fn run(state: AppState, shutdown: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = Instant::now();
    let mut watch = Watch::default();
    let mut trimmed: Option<Instant> = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match watch.look(&state, began.elapsed()).await {
            Ok(()) => {}
            Err(StoreError::Damaged(problem)) => {
                state.health.damaged(&problem);
                continue;
            }
            Err(error) => {
                tracing::warn!(error = %error, "a look at the leases failed");
                continue;
            }
        }
        if trimmed.is_none_or(|at| at.elapsed() >= TRIM_EVERY) {
            if let Err(error) = trim(&state).await {
                tracing::warn!(error = %error, "old events were not removed");
            }
            trimmed = Some(Instant::now());
        }
    }
}

/// What one look has to know of the last.
#[derive(Debug, Default)]
pub struct Watch {
    guard: Guard,
    /// When the last look succeeded.
    last: Option<Duration>,
}

impl Watch {
    /// One look; `steady` is how long the server has run, by a clock that can't be set.
    ///
    /// A lease is a promise of seconds: where the wall clock was set, the machine slept, or the server
    /// stood still or has just started, all of them hold for another full period, from now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn look(&mut self, state: &AppState, steady: Duration) -> StoreResult<()> {
        let passed = self.guard.look(state.clock.now(), steady);
        let rested = self.last.is_some_and(|last| steady.saturating_sub(last) < STOOD_STILL);
        match passed {
            Passed::Time(_) => {}
            Passed::Unknown => {}
            Passed::Ahead(by) => {
                tracing::warn!(
                    seconds = by.as_secs(),
                    "the clock went ahead, or the machine slept: leases begin anew"
                );
            }
            Passed::Back(by) => {
                tracing::warn!(
                    seconds = by.as_secs(),
                    "the clock went back: leases and waits begin anew"
                );
                state.store.shorten_waits(state.clock.now() + LONGEST_WAIT).await?;
            }
        }
        if !rested || !matches!(passed, Passed::Time(_)) {
            self.last = None;
            state.store.extend_all_leases(state.clock.now()).await?;
        }
        expire(state).await?;
        self.last = Some(steady);
        Ok(())
    }
}

async fn expire(state: &AppState) -> StoreResult<()> {
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
