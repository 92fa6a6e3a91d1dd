//! The claim loop: one long poll for all free slots. The request's id is repeated until there is an
//! answer, so that a lost reply gives the same jobs again instead of losing them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use pipeyard_api::runner::{ClaimReply, ClaimRequest, MAX_WAIT_SECONDS, ReasonView};
use pipeyard_executor::ExecutorError;
use pipeyard_model::{AttemptId, RequestId};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{Shared, attempt, live::EndBecause, process, protocol::CallError};

/// The pause after a failed call; it doubles up to the second value.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The pause after a job that Docker couldn't run, though it says that it is there.
const SUSPICION: Duration = Duration::from_secs(1);
/// How long the server may take to hear that nothing can run here.
const TROUBLE: Duration = Duration::from_secs(5);
/// How long ended jobs may take to tell the server.
const LAST_WORDS: Duration = Duration::from_secs(40);
/// The network's time on top of the server's wait.
const SLACK: Duration = Duration::from_secs(15);

/// Where the id of the last claim is.
fn claim_file(data: &Path) -> PathBuf {
    data.join("claim")
}

fn outstanding(data: &Path) -> Option<RequestId> {
    std::fs::read_to_string(claim_file(data)).ok()?.trim().parse().ok()
}

fn remember(data: &Path, request: RequestId) -> std::io::Result<()> {
    if outstanding(data) == Some(request) {
        return Ok(());
    }
    let (file, new) = (claim_file(data), data.join("claim.tmp"));
    std::fs::write(&new, request.to_string())?;
    std::fs::rename(new, file)
}

/// Claims and runs jobs until `drain`, then waits for those in work; `cancel` ends them.
///
/// # Errors
/// When another process speaks for this runner: what is in work here is ended, it is the other's.
pub(crate) async fn run(
    shared: &Shared,
    drain: &CancellationToken,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    let mut ended = Ok(());
    let slots = Arc::new(Semaphore::new(shared.config.slots.clamp(1, 64) as usize));
    let mut work = JoinSet::new();
    // A reply that an earlier process didn't live to see is asked for again.
    let mut request = outstanding(&shared.config.data_dir).unwrap_or_default();
    let mut pause = PAUSE.0;
    loop {
        while work.try_join_next().is_some() {}
        // A place must be free before anything is asked for.
        let free = tokio::select! {
            place = Arc::clone(&slots).acquire_owned() => {
                drop(place);
                u32::try_from(slots.available_permits()).unwrap_or(u32::MAX)
            }
            () = drain.cancelled() => break,
        };
        // No job is taken that would only fail. What failed a moment ago is looked at again after a
        // pause: Docker may be on its way down.
        let suspect = shared.live.take_suspicion();
        if let Err(error) = shared.executor.check().await {
            tracing::error!(code = error.code, %error, "jobs can't run here now; trying again");
            tell_trouble(shared, &error).await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = drain.cancelled() => break,
            }
            pause = (pause * 2).min(PAUSE.1);
            continue;
        }
        if suspect {
            tokio::select! {
                () = tokio::time::sleep(SUSPICION) => {}
                () = drain.cancelled() => break,
            }
        }
        if let Err(error) = remember(&shared.config.data_dir, request) {
            // Without it a lost reply costs the job a lease, no more.
            tracing::warn!(%error, "the claim's id can't be written");
        }
        let body = ClaimRequest {
            request,
            free_slots: free.max(1),
            wait_seconds: MAX_WAIT_SECONDS,
            trouble: None,
        };
        let limit = Duration::from_secs(u64::from(MAX_WAIT_SECONDS)) + SLACK;
        let answer = tokio::select! {
            answer = shared.server.post::<_, ClaimReply>("/api/runner/claim", &body, limit) => answer,
            () = drain.cancelled() => break,
        };
        match answer {
            Ok(reply) => {
                pause = PAUSE.0;
                request = RequestId::new();
                // The wait was long enough for Docker to go away.
                let unable = match reply.jobs.is_empty() {
                    true => None,
                    false => shared.executor.check().await.err(),
                };
                for job in reply.jobs {
                    let attempt = AttemptId { job: job.job, epoch: job.epoch };
                    let dir = attempt::folder(&shared.config.data_dir, attempt);
                    if dir.exists() {
                        // An earlier process began it: it is given back, not begun again.
                        continue;
                    }
                    let lease = Duration::from_secs(u64::from(job.lease_seconds));
                    let Some(begun) = shared.live.begin(attempt, lease) else { continue };
                    if let Some(error) = &unable {
                        let (shared, reason) =
                            (shared.clone(), attempt::handed_back(shared, error));
                        work.spawn(async move {
                            attempt::hand_back(&shared, attempt, reason).await;
                            shared.live.over(attempt);
                        });
                        continue;
                    }
                    if let Err(error) = std::fs::create_dir_all(&dir) {
                        tracing::warn!(%error, "an attempt's folder can't be made yet");
                    }
                    let place = Arc::clone(&slots).acquire_owned().await;
                    let shared = shared.clone();
                    work.spawn(async move {
                        attempt::run(&shared, job, begun).await;
                        shared.live.over(attempt);
                        drop(place);
                    });
                }
            }
            Err(error) => {
                if let CallError::Refused { code, message, .. } = &error
                    && code == process::TAKEN
                {
                    shared.live.end_all(EndBecause::Stale);
                    ended = Err(anyhow::anyhow!("{code}: {message}"));
                    break;
                }
                if let CallError::Refused { code, message, .. } = &error {
                    tracing::error!(%code, %message, "the server gives this runner no jobs");
                } else {
                    tracing::warn!(%error, "the server can't be asked for jobs; trying again");
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = drain.cancelled() => break,
                }
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
    while work.try_join_next().is_some() {}
    if !work.is_empty() {
        tracing::info!(jobs = work.len(), "finishing the jobs in work");
    }
    let finish = async { while work.join_next().await.is_some() {} };
    let mut finish = std::pin::pin!(finish);
    tokio::select! {
        () = &mut finish => return ended,
        () = cancel.cancelled() => shared.live.end_all(EndBecause::Stopping),
    }
    if tokio::time::timeout(LAST_WORDS, finish).await.is_err() {
        tracing::warn!("the server didn't hear how every job ended; the next start tells it");
    }
    ended
}

/// Tells the server why nothing can run here: people see it where they look for runners.
async fn tell_trouble(shared: &Shared, error: &ExecutorError) {
    let body = ClaimRequest {
        request: RequestId::new(),
        free_slots: 1,
        wait_seconds: 0,
        trouble: Some(ReasonView { code: error.code.to_owned(), message: error.message.clone() }),
    };
    let told = shared.server.post::<_, ClaimReply>("/api/runner/claim", &body, TROUBLE).await;
    if let Err(error) = told {
        tracing::warn!(%error, "the server can't be told");
    }
}
