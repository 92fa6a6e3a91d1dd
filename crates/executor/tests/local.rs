//! The executor without Docker: the same shim, the same rules, no isolation.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use pipeyard_executor::{
    Executor, JobEvent, JobOutcome, JobRun, LocalConfig, LocalExecutor, SecretValue, StepExit,
};
use pipeyard_model::{
    AttemptId, Conclusion, Epoch, InstallationId, JobId, SecretName,
    plan::{JobSpec, Readiness, ServiceSpec, StepSpec},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

fn job(workspace: &Path, commands: &[&str]) -> JobRun {
    let step = |command: &&str| StepSpec {
        name: (*command).to_owned(),
        run: (*command).to_owned(),
        image: None,
        env: BTreeMap::new(),
        timeout: None,
    };
    let spec = JobSpec {
        image: "unused".to_owned(),
        steps: commands.iter().map(step).collect(),
        env: BTreeMap::new(),
        secrets: Vec::new(),
        services: Vec::new(),
        timeout: Duration::from_secs(60),
        artifacts: Vec::new(),
        tests: vec![],
        retry: 0,
        once: false,
        labels: Vec::new(),
    };
    JobRun {
        attempt: AttemptId { job: JobId::new(), epoch: Epoch(1) },
        installation: InstallationId::new(),
        spec,
        workspace: workspace.to_owned(),
        filled: pipeyard_executor::Filled::already(),
        lease: pipeyard_executor::Lease::endless(),
        repo: "acme/shop".to_owned(),
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
    }
}

async fn run(folder: &Path, job: JobRun, cancel_at: Option<&str>) -> (JobOutcome, Vec<JobEvent>) {
    let mut config = LocalConfig::new(folder.join("data"));
    config.grace = Duration::from_secs(2);
    let executor = LocalExecutor::new(config).unwrap();
    let (sender, mut receiver) = mpsc::channel(8);
    let cancel = CancellationToken::new();
    let mut events = Vec::new();
    let collect = async {
        let mut text = Vec::new();
        while let Some(event) = receiver.recv().await {
            if let JobEvent::Output { bytes, .. } = &event {
                text.extend_from_slice(bytes);
            }
            let text = String::from_utf8_lossy(&text);
            if cancel_at.is_some_and(|mark| text.contains(mark)) {
                cancel.cancel();
            }
            events.push(event);
        }
    };
    let (outcome, ()) = tokio::join!(executor.run(job, sender, cancel.clone()), collect);
    (outcome, events)
}

fn stdout(events: &[JobEvent]) -> String {
    let mut all = Vec::new();
    for event in events {
        if let JobEvent::Output { bytes, .. } = event {
            all.extend_from_slice(bytes);
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Whether a process whose command line holds `mark` lives.
fn lives(mark: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(mark)
    })
}

#[tokio::test]
async fn steps_run_in_the_workspace_with_their_environment_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = job(folder.path(), &["pwd; echo $TOKEN", "env | grep -c CARGO || true"]);
    job.secrets.insert(SecretName::new("TOKEN").unwrap(), SecretValue("a secret".to_owned()));
    let (outcome, events) = run(folder.path(), job, None).await;
    assert_eq!(outcome, JobOutcome { conclusion: Conclusion::Success, reason: None });
    assert_eq!(stdout(&events), format!("{}\na secret\n0\n", folder.path().display()));
}

#[tokio::test]
async fn a_daemon_that_a_step_left_ends_with_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let mark = format!("7{}", std::process::id() + 100_000);
    let script = format!("(setsid sleep {mark} &) ; sleep {mark} & nohup sleep {mark} & echo done");
    let (outcome, events) = run(folder.path(), job(folder.path(), &[&script]), None).await;
    assert_eq!(outcome.conclusion, Conclusion::Success);
    assert!(stdout(&events).contains("done"));
    assert!(!lives(&mark));
}

#[tokio::test]
async fn a_cancel_ends_a_step_that_ignores_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let mark = format!("8{}", std::process::id() + 100_000);
    let script = format!("trap '' TERM; echo ready; sleep {mark}; sleep {mark}");
    let (outcome, events) = run(folder.path(), job(folder.path(), &[&script]), Some("ready")).await;
    assert_eq!(outcome.conclusion, Conclusion::Cancelled);
    let last = events.last().unwrap();
    assert!(matches!(last, JobEvent::StepFinished { exit: StepExit::Cancelled, .. }), "{last:?}");
    assert!(!lives(&mark));
}

#[tokio::test]
async fn dropping_the_run_ends_its_processes() {
    let folder = tempfile::tempdir().unwrap();
    let mark = format!("9{}", std::process::id() + 100_000);
    let script = format!("echo ready; exec sleep {mark}");
    let executor = LocalExecutor::new(LocalConfig::new(folder.path().join("data"))).unwrap();
    let (sender, mut receiver) = mpsc::channel(8);
    let run = executor.run(job(folder.path(), &[&script]), sender, CancellationToken::new());
    let ready = async {
        while let Some(event) = receiver.recv().await {
            if matches!(event, JobEvent::Output { .. }) {
                return;
            }
        }
    };
    tokio::select! {
        _ = run => panic!("it ended by itself"),
        () = ready => {}
    }
    // All senders are gone only when the attempt's own task is done.
    while receiver.recv().await.is_some() {}
    assert!(!lives(&mark));
}

#[tokio::test]
async fn a_job_with_services_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = job(folder.path(), &["true"]);
    job.spec.services.push(ServiceSpec {
        alias: "db".to_owned(),
        image: "postgres".to_owned(),
        env: BTreeMap::new(),
        command: Vec::new(),
        ready: Readiness::Automatic,
    });
    let (outcome, _) = run(folder.path(), job, None).await;
    assert_eq!(outcome.conclusion, Conclusion::Error);
    assert_eq!(outcome.reason.unwrap().code, "services_need_docker");
}
