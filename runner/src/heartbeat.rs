//! One heartbeat for all attempts in work: it renews their leases, brings cancels early, and ends
//! them here when the server can't be heard for so long that it may offer them to others.

use std::time::Duration;

use pipeyard_api::runner::{AttemptRef, HeartbeatReply, HeartbeatRequest};
use pipeyard_model::AttemptId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Shared, live::EndBecause, protocol::CallError};

/// How long the server may wait for news.
const WAIT: u32 = 8;
/// The network's time on top.
const SLACK: Duration = Duration::from_secs(4);
/// The pause when there is nothing to keep alive, and after a failed call.
const PAUSE: Duration = Duration::from_millis(500);

/// Beats until `stop`.
pub(crate) async fn run(shared: Shared, stop: CancellationToken) {
    let mut wait = WAIT;
    while !stop.is_cancelled() {
        let attempts = shared.live.attempts();
        if attempts.is_empty() {
            pause(&stop).await;
            continue;
        }
        // A request that hangs must not outlast a lease.
        let left = shared.live.first_end().map(|end| end.saturating_duration_since(Instant::now()));
        let limit = Duration::from_secs(u64::from(wait)) + SLACK;
        let limit = left.map_or(limit, |left| limit.min(left));
        let answer = tokio::select! {
            answer = beat(&shared, &attempts, wait, limit) => answer,
            () = stop.cancelled() => return,
        };
        match answer {
            Ok(news) => {
                wait = WAIT;
                // What is being ended stays in the list until it is gone; the server would answer
                // at once again and again.
                if news {
                    pause(&stop).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no heartbeat");
                // The next one asks for no more than the leases: news can wait.
                wait = 0;
                let ended = shared.live.end_lapsed(Instant::now());
                if ended > 0 {
                    // What was journaled is sent, and the attempt given back, if the server still
                    // takes it when it is there again.
                    tracing::error!(
                        attempts = ended,
                        "the server wasn't heard in time: ending the jobs here"
                    );
                }
                pause(&stop).await;
            }
        }
    }
}

/// Asks once for the leases of these attempts; whether the server had news of any.
pub(crate) async fn beat(
    shared: &Shared,
    attempts: &[AttemptId],
    wait: u32,
    limit: Duration,
) -> Result<bool, CallError> {
    let request = HeartbeatRequest {
        attempts: attempts.iter().map(|a| AttemptRef { job: a.job, epoch: a.epoch }).collect(),
        wait_seconds: wait,
    };
    // Before the server began to count.
    let asked = Instant::now();
    let news: HeartbeatReply = shared.server.post("/api/runner/heartbeat", &request, limit).await?;
    let id = |attempt: &AttemptRef| AttemptId { job: attempt.job, epoch: attempt.epoch };
    let stale: Vec<AttemptId> = news.stale.iter().map(id).collect();
    for attempt in attempts.iter().filter(|attempt| !stale.contains(attempt)) {
        shared.live.renewed(*attempt, asked);
    }
    for attempt in news.cancel.iter().map(id) {
        shared.live.end(attempt, EndBecause::Cancelled);
    }
    for attempt in &stale {
        shared.live.end(*attempt, EndBecause::Stale);
    }
    Ok(!news.cancel.is_empty() || !stale.is_empty())
}

/// Waits until the server has confirmed that a claimed attempt is this runner's: the reply to the
/// claim may have lain here while the lease ran out. Never comes back if it isn't; the attempt is
/// then ended.
pub(crate) async fn confirmed(shared: &Shared, attempt: AttemptId) {
    loop {
        match beat(shared, &[attempt], 0, SLACK).await {
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, attempt = %attempt, "the lease isn't confirmed yet");
            }
        }
        shared.live.end_lapsed(Instant::now());
        tokio::time::sleep(PAUSE).await;
    }
}

async fn pause(stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(PAUSE) => {}
        () = stop.cancelled() => {}
    }
}
