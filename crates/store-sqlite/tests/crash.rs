//! What was acknowledged is there after a kill.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    sync::Arc,
};

use pipeyard_model::{AttemptId, Clock as _, Epoch, JobId, RequestId, SystemClock};
use pipeyard_store::{
    conformance::{one_job, setup},
    queue::Queue as _,
    runs::Runs as _,
};
use pipeyard_store_sqlite::SqliteStore;

const FILE: &str = "PIPEYARD_CRASH_FILE";
/// Claims that the child may make before it is killed; each round another number.
const ROUNDS: [usize; 3] = [1, 17, 60];

#[test]
fn acknowledged_claims_survive_a_kill() {
    for count in ROUNDS {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pipeyard.db");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_claims", "--ignored", "--nocapture"])
            .env(FILE, &file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut acknowledged = Vec::new();
        for line in output.lines() {
            let line = line.unwrap();
            let Some((job, epoch)) =
                line.strip_prefix("claimed ").and_then(|rest| rest.split_once(' '))
            else {
                continue;
            };
            let job: JobId = job.parse().unwrap();
            acknowledged.push(AttemptId { job, epoch: Epoch(epoch.parse().unwrap()) });
            if acknowledged.len() == count {
                // More are on their way at this moment.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() >= count, "the child was killed while it worked");
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let store = SqliteStore::open(&file, Arc::new(SystemClock)).await.unwrap();
            for attempt in &acknowledged {
                let log = store.log_state(*attempt).await.unwrap();
                assert!(
                    log.is_some_and(|log| !log.complete),
                    "{attempt} was acknowledged and is gone"
                );
            }
            let (_, running) = store.queue_counts().await.unwrap();
            assert!(running >= acknowledged.len() as u64);
            let newest = store.latest_run().await.unwrap().unwrap();
            assert!(store.run(newest).await.unwrap().is_some());
        });
    }
}

/// Run by the test above in a process of its own, until it is killed.
#[test]
#[ignore = "it never ends by itself; the test above starts it"]
fn child_that_claims() {
    let Some(file) = std::env::var_os(FILE) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let clock = pipeyard_model::ManualClock::at(SystemClock.now());
        let store = SqliteStore::open(file.as_ref(), Arc::new(clock.clone())).await.unwrap();
        let made = setup(&store, &clock).await;
        loop {
            let work = (0..8).map(|_| async {
                one_job(&store, &clock, made.repo).await;
                for claimed in
                    store.claim_jobs(made.runner, RequestId::new(), 2, clock.now()).await.unwrap()
                {
                    let line = format!("claimed {} {}\n", claimed.job, claimed.epoch);
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
            futures_util::future::join_all(work).await;
        }
    });
}
