//! One attempt at a time: what a job runs is dead before its lease ends, told by a ledger that its
//! steps write and that nobody but the test reads.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use pipeyard_executor::{JobEvent, Renewing};
use pipeyard_model::Conclusion;
use tokio_util::sync::CancellationToken;

use crate::support::{BUSYBOX, Stage, spec};

/// A step that is deaf to SIGTERM and writes to the ledger until it is dead.
pub(crate) const LEDGER: &str =
    "trap '' TERM; echo ready; while :; do echo x >> /workspace/ledger; sleep 0.05; done";

/// When the ledger was last written.
fn last_written(ledger: &Path) -> SystemTime {
    std::fs::metadata(ledger).unwrap().modified().unwrap()
}

/// Several times the two seconds after which the shim is told anew.
pub(crate) const LEASE: Duration = Duration::from_secs(6);

/// A lease that is renewed until `stop`; answers its end then.
pub(crate) async fn renew(renewing: Renewing, stop: CancellationToken) -> Instant {
    loop {
        renewing.until(tokio::time::Instant::now() + LEASE);
        tokio::select! {
            () = stop.cancelled() => return renewing.end().into_std(),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
}

#[tokio::test]
async fn a_job_is_dead_before_a_lease_that_nobody_renews_is_over() {
    let test = "a_job_is_dead_before_a_lease_that_nobody_renews_is_over";
    let Some(stage) = Stage::set(test).await else { return };
    let ledger = stage.workspace().join("ledger");
    let mut job = stage.job(spec(BUSYBOX, &[LEDGER]));
    let (renewing, lease) = Renewing::begin(tokio::time::Instant::now() + LEASE);
    job.lease = lease;
    let silent = CancellationToken::new();
    let renewed = tokio::spawn(renew(renewing, silent.clone()));
    // The runner is there all the time and beats; only the lease is over.
    let seen = stage
        .run_job(job, CancellationToken::new(), |event| {
            if matches!(event, JobEvent::Output { .. }) {
                silent.cancel();
            }
        })
        .await;
    assert_ne!(seen.outcome.conclusion, Conclusion::Success, "{seen:#?}");
    assert!(seen.stdout().contains("ready"), "it ran: {seen:#?}");
    let end = SystemTime::now() - renewed.await.unwrap().elapsed();
    // The clock that dates files moves in steps.
    let last = last_written(&ledger) - Duration::from_millis(50);
    assert!(last <= end, "it ran on for {:?}", last.duration_since(end));
    // Open, so that it can be read when the workspace is gone.
    let ledger = std::fs::File::open(&ledger).unwrap();
    let size = ledger.metadata().unwrap().len();
    stage.end().await;
    assert_eq!(ledger.metadata().unwrap().len(), size, "nothing writes any more");
}

#[tokio::test]
async fn a_lease_that_is_renewed_ends_nothing() {
    let Some(stage) = Stage::set("a_lease_that_is_renewed_ends_nothing").await else { return };
    let mut job = stage.job(spec(BUSYBOX, &["echo ready; sleep 8; echo done"]));
    let (renewing, lease) = Renewing::begin(tokio::time::Instant::now() + LEASE);
    job.lease = lease;
    let over = CancellationToken::new();
    let renewed = tokio::spawn(renew(renewing, over.clone()));
    let seen = stage.run_job(job, CancellationToken::new(), |_| {}).await;
    seen.succeeded();
    over.cancel();
    renewed.await.unwrap();
    stage.end().await;
}
