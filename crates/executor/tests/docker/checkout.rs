//! The workspace may still be empty when a job begins; no step may see that.

use std::{fs, time::Duration};

use pipeyard_executor::Filling;
use pipeyard_model::Conclusion;
use tokio_util::sync::CancellationToken;

use crate::support::{BUSYBOX, Stage, spec};

async fn until_made(stage: &Stage) {
    let made = async {
        while stage.containers().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), made).await.expect("no container was made");
}

#[tokio::test]
async fn the_container_is_made_during_the_checkout_and_no_step_begins_before_its_end() {
    let Some(stage) = Stage::set("the_container_is_made_during_the_checkout").await else { return };
    let (filling, filled) = Filling::begin();
    let mut job = stage.job(spec(BUSYBOX, &["cat commit"]));
    job.filled = filled;
    let checkout = async {
        until_made(&stage).await;
        fs::write(stage.workspace().join("commit"), "is here\n").unwrap();
        filling.done();
    };
    let (seen, ()) = tokio::join!(stage.run_job(job, CancellationToken::new(), |_| {}), checkout);
    seen.succeeded();
    assert_eq!(seen.stdout(), "is here\n");
    stage.end().await;
}

#[tokio::test]
async fn a_checkout_that_fails_leaves_no_container() {
    let Some(stage) = Stage::set("a_checkout_that_fails_leaves_no_container").await else { return };
    let (filling, filled) = Filling::begin();
    let mut job = stage.job(spec(BUSYBOX, &["echo not reached"]));
    job.filled = filled;
    let cancel = CancellationToken::new();
    let checkout = async {
        until_made(&stage).await;
        drop(filling);
        cancel.cancel();
    };
    let (seen, ()) = tokio::join!(stage.run_job(job, cancel.clone(), |_| {}), checkout);
    seen.is(Conclusion::Cancelled, "cancelled");
    assert_eq!(seen.stdout(), "");
    assert!(stage.containers().is_empty(), "{:?}", stage.containers());
    stage.end().await;
}
