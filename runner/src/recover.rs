//! What an earlier process left: its journals reach the server, its attempts end as lost, its
//! folders go.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use pipeyard_api::runner::{FinishRequest, ReasonView};
use pipeyard_model::{AttemptId, Conclusion, Epoch};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Shared, attempt,
    journal::{self, Written},
    shipper::{self, Shipped},
};

/// How often containers and folders that belong to nobody are looked for.
const TIDY: Duration = Duration::from_secs(300);

/// Ends what an earlier process left, then tidies from time to time, until `stop`.
pub(crate) async fn run(shared: Shared, stop: CancellationToken) {
    // In this order: a journal that waits for its server may not be tidied away.
    leftovers(&shared, &stop).await;
    tidy(&shared, &stop).await;
}

/// Ends what an earlier process was working on. Its containers are gone already: they end with
/// their runner.
async fn leftovers(shared: &Shared, stop: &CancellationToken) {
    for (attempt, dir) in folders(&shared.config.data_dir) {
        if shared.live.attempts().contains(&attempt) {
            continue;
        }
        let ended = tokio::select! {
            ended = end(shared, attempt, &dir) => ended,
            () = stop.cancelled() => return,
        };
        if let Err(error) = ended {
            tracing::warn!(attempt = %attempt, %error, "the journal of a lost attempt can't be read");
        }
        attempt::remove(&dir).await;
    }
}

async fn end(shared: &Shared, attempt: AttemptId, dir: &Path) -> io::Result<()> {
    // The process may have ended before it wrote anything.
    std::fs::File::options().create(true).append(true).open(journal::path(dir))?;
    let bytes = journal::whole_lines(dir)?;
    let (sender, written) = watch::channel(Written { bytes, complete: true });
    let shipped = shipper::ship(&shared.server, attempt, dir, written).await?;
    drop(sender);
    if shipped == Shipped::All {
        let reason = ReasonView {
            code: "runner_lost".into(),
            message: format!(
                "the runner {} ended while the job ran, and has started again",
                shared.config.name
            ),
        };
        let request = FinishRequest {
            conclusion: Conclusion::Error,
            reason: Some(reason),
            log_bytes: bytes,
            finished_at: shared.clock.now(),
        };
        attempt::finish(&shared.server, attempt, &request).await;
    }
    Ok(())
}

/// Attempts that have a folder.
fn folders(data: &Path) -> Vec<(AttemptId, PathBuf)> {
    std::fs::read_dir(data.join("attempts"))
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let (job, epoch) = name.rsplit_once('-')?;
            let attempt = AttemptId { job: job.parse().ok()?, epoch: Epoch(epoch.parse().ok()?) };
            Some((attempt, entry.path()))
        })
        .collect()
}

/// Removes containers and folders that belong to no attempt in work, from time to time.
async fn tidy(shared: &Shared, stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(TIDY) => {}
            () = stop.cancelled() => return,
        }
        // Folders first: one that appears afterwards belongs to an attempt that has begun since.
        let folders = folders(&shared.config.data_dir);
        let live = shared.live.attempts();
        match shared.executor.reconcile(&live).await {
            Ok(0) => {}
            Ok(removed) => tracing::warn!(removed, "removed what no attempt owned"),
            Err(error) => tracing::warn!(%error, "nothing could be tidied"),
        }
        for (attempt, dir) in folders {
            if !live.contains(&attempt) {
                attempt::remove(&dir).await;
            }
        }
    }
}
