//! Nothing outlives its runner, and what an earlier process left is found.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use pipeyard_executor::{DockerConfig, DockerExecutor, Executor, JobEvent};
use pipeyard_model::{AttemptId, Epoch, InstallationId, JobId, plan::Readiness};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::{BUSYBOX, Stage, docker, service, spec};

/// The folder and installation of a runner that is to be killed, `FOLDER INSTALLATION`.
const ABANDON: &str = "PIPEYARD_TEST_ABANDON";

/// Not a test: the runner that the next test kills. Runs a job that never ends.
#[tokio::test]
async fn the_runner_that_is_killed() {
    let Ok(order) = std::env::var(ABANDON) else { return };
    let (folder, installation) = order.split_once(' ').unwrap();
    let installation: InstallationId = installation.parse().unwrap();
    let folder = std::path::PathBuf::from(folder);
    let config = DockerConfig::new(installation, folder.join("data"));
    let executor = DockerExecutor::connect(config).await.unwrap();
    let mut job = spec(BUSYBOX, &["trap '' TERM HUP; echo ready; sleep 1000; sleep 1000"]);
    job.services.push(service("web", "pipeyard/web:test"));
    let run = pipeyard_executor::JobRun {
        attempt: AttemptId { job: JobId::new(), epoch: Epoch(1) },
        installation,
        spec: job,
        workspace: folder.join("workspace"),
        filled: pipeyard_executor::Filled::already(),
        lease: pipeyard_executor::Lease::endless(),
        repo: "acme/shop".to_owned(),
        env: std::collections::BTreeMap::new(),
        secrets: std::collections::BTreeMap::new(),
    };
    let (sender, mut receiver) = mpsc::channel(8);
    let tell = async {
        while let Some(event) = receiver.recv().await {
            if matches!(event, JobEvent::Output { .. }) {
                println!("ready");
            }
        }
    };
    tokio::join!(executor.run(run, sender, CancellationToken::new()), tell);
}

#[tokio::test]
async fn when_the_runner_is_killed_its_containers_end_by_themselves() {
    let test = "when_the_runner_is_killed_its_containers_end_by_themselves";
    let Some(stage) = Stage::set(test).await else { return };
    let order = format!("{} {}", stage.folder.path().display(), stage.installation);
    let mut runner = Command::new(std::env::current_exe().unwrap())
        .args(["leftovers::the_runner_that_is_killed", "--exact", "--nocapture"])
        .env(ABANDON, order)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(runner.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("ready")), "it did not start");
    assert_eq!(stage.containers().len(), 2, "{:?}", stage.containers());
    runner.kill().unwrap();
    runner.wait().unwrap();
    let killed = Instant::now();
    while !stage.containers().is_empty() {
        assert!(killed.elapsed() < Duration::from_secs(10), "{:?} live", stage.containers());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The network that it had borrowed is lent again.
    let networks = stage.networks();
    let config = DockerConfig::new(stage.installation, stage.folder.path().join("data"));
    let next = DockerExecutor::connect(config).await.unwrap();
    let mut job = spec(BUSYBOX, &["true"]);
    job.services.push(service("web", "pipeyard/web:test"));
    let (sender, _receiver) = mpsc::channel(100);
    let outcome = next.run(stage.job(job), sender, CancellationToken::new()).await;
    assert!(outcome.conclusion.is_success(), "{outcome:?}");
    assert_eq!(stage.networks(), networks);
    stage.end().await;
}

#[tokio::test]
async fn a_run_that_is_dropped_cleans_up() {
    let Some(stage) = Stage::set("a_run_that_is_dropped_cleans_up").await else { return };
    let mut job = spec(BUSYBOX, &["trap '' TERM; echo ready; sleep 1000; sleep 1000"]);
    job.services.push(service("web", BUSYBOX));
    job.services[0].command = ["sleep", "1000"].map(ToOwned::to_owned).to_vec();
    job.services[0].ready = Readiness::Automatic;
    let (sender, mut receiver) = mpsc::channel(8);
    let run = stage.executor.run(stage.job(job), sender, CancellationToken::new());
    let ready = async {
        while let Some(event) = receiver.recv().await {
            if matches!(event, JobEvent::Output { .. }) {
                return;
            }
        }
    };
    tokio::select! {
        outcome = run => panic!("it ended by itself: {outcome:?}"),
        () = ready => {}
    }
    // The attempt's task holds a sender until it has removed everything.
    while receiver.recv().await.is_some() {}
    stage.end().await;
}

#[tokio::test]
async fn reconcile_removes_what_no_live_attempt_made() {
    let Some(stage) = Stage::set("reconcile_removes_what_no_live_attempt_made").await else {
        return;
    };
    let live = AttemptId { job: JobId::new(), epoch: Epoch(2) };
    let dead = AttemptId { job: live.job, epoch: Epoch(1) };
    let start = |installation: InstallationId, attempt: AttemptId| {
        let label = |name: &str, value: String| format!("--label=pipeyard.{name}={value}");
        let labels = [
            label("installation", installation.to_string()),
            label("job", attempt.job.to_string()),
            label("epoch", attempt.epoch.to_string()),
        ];
        let mut arguments = vec!["run", "-d", "--network=none"];
        arguments.extend(labels.iter().map(String::as_str));
        arguments.extend([BUSYBOX, "sleep", "1000"]);
        docker(&arguments).trim().to_owned()
    };
    let others = InstallationId::new();
    let (kept, foreign) = (start(stage.installation, live), start(others, dead));
    start(stage.installation, dead);
    assert_eq!(stage.containers().len(), 2);
    let removed = stage.executor.reconcile(&[live]).await.unwrap();
    assert_eq!(removed, 1);
    assert_eq!(stage.containers().len(), 1);
    let running = docker(&["ps", "-q", "--no-trunc"]);
    assert!(running.contains(&kept) && running.contains(&foreign), "{running}");
    docker(&["rm", "-f", &foreign]);
    assert_eq!(stage.executor.reconcile(&[]).await.unwrap(), 1);
    stage.end().await;
}
