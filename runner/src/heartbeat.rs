//! One heartbeat for all attempts in work: it renews their leases, brings cancels early, and ends
//! them here when the server can't be heard for so long that it may offer them to others.

use std::time::{Duration, Instant};

use pipeyard_api::runner::{AttemptRef, HeartbeatReply, HeartbeatRequest};
use pipeyard_model::AttemptId;
use tokio_util::sync::CancellationToken;

use crate::{Shared, live::EndBecause};

/// How long the server may wait for news.
const WAIT: u32 = 8;
/// The network's time on top.
const SLACK: Duration = Duration::from_secs(4);
/// After so long without an answer the jobs here are ended: the lease of 30 s is about to run out.
const FENCE: Duration = Duration::from_secs(25);
/// The pause when there is nothing to keep alive, and after a failed call.
const PAUSE: Duration = Duration::from_millis(500);

/// Beats until `stop`.
pub(crate) async fn run(shared: Shared, stop: CancellationToken) {
    let mut heard = Instant::now();
    while !stop.is_cancelled() {
        let attempts = shared.live.attempts();
        if attempts.is_empty() {
            heard = Instant::now();
            pause(&stop).await;
            continue;
        }
        let request = HeartbeatRequest {
            attempts: attempts.iter().map(|a| AttemptRef { job: a.job, epoch: a.epoch }).collect(),
            wait_seconds: WAIT,
        };
        let asked = Instant::now();
        // A request that hangs must not outlast the fence.
        let left = FENCE.saturating_sub(heard.elapsed());
        let limit = (Duration::from_secs(u64::from(WAIT)) + SLACK).min(left);
        let answer = tokio::select! {
            answer = shared.server.post::<_, HeartbeatReply>("/api/runner/heartbeat", &request, limit) => answer,
            () = stop.cancelled() => return,
        };
        match answer {
            Ok(news) => {
                heard = asked;
                let quick = !news.cancel.is_empty() || !news.stale.is_empty();
                for (list, because) in
                    [(news.cancel, EndBecause::Cancelled), (news.stale, EndBecause::Stale)]
                {
                    for attempt in list {
                        shared
                            .live
                            .end(AttemptId { job: attempt.job, epoch: attempt.epoch }, because);
                    }
                }
                // What is being ended stays in the list until it is gone; the server would answer
                // at once again and again.
                if quick {
                    pause(&stop).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no heartbeat");
                if heard.elapsed() >= FENCE {
                    tracing::error!(
                        "the server wasn't heard for {} s: ending the jobs here",
                        FENCE.as_secs()
                    );
                    // What was journaled is sent, and the attempt given back, if the server still
                    // takes it when it is there again.
                    shared.live.end_all(EndBecause::Unheard);
                    heard = Instant::now();
                }
                pause(&stop).await;
            }
        }
    }
}

async fn pause(stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(PAUSE) => {}
        () = stop.cancelled() => {}
    }
}
