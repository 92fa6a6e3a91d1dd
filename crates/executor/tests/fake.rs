//! The executor that plays a script.

use std::{collections::BTreeMap, time::Duration};

use pipeyard_executor::{
    Executor, JobEvent, JobRun,
    fake::{Act, FakeExecutor},
};
use pipeyard_model::{
    AttemptId, Conclusion, Epoch, InstallationId, JobId,
    plan::{JobSpec, StepSpec},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

fn job(workspace: &std::path::Path) -> JobRun {
    let step = StepSpec {
        name: "greet".to_owned(),
        run: "echo hello".to_owned(),
        image: None,
        env: BTreeMap::new(),
        timeout: None,
    };
    let spec = JobSpec {
        image: "any".to_owned(),
        steps: vec![step],
        env: BTreeMap::new(),
        secrets: Vec::new(),
        services: Vec::new(),
        timeout: Duration::from_secs(1),
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

#[tokio::test]
async fn it_plays_its_script_and_remembers_what_it_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let job = job(folder.path());
    let executor = FakeExecutor::echo();
    let (sender, mut receiver) = mpsc::channel(8);
    let outcome = executor.run(job.clone(), sender, CancellationToken::new()).await;
    assert_eq!(outcome.conclusion, Conclusion::Success);
    assert!(matches!(receiver.recv().await, Some(JobEvent::StepStarted { step: 1, .. })));
    assert_eq!(executor.seen().ended.first().map(|(id, _)| *id), Some(job.attempt));
}

#[tokio::test]
async fn a_job_that_waits_at_a_gate_can_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let gate = CancellationToken::new();
    let executor = FakeExecutor::new(move |_| {
        vec![Act::File("out/made".into(), b"x".to_vec()), Act::Start(1), Act::Until(gate.clone())]
    });
    let (sender, mut receiver) = mpsc::channel(8);
    let cancel = CancellationToken::new();
    let stop = async {
        receiver.recv().await;
        cancel.cancel();
    };
    let (outcome, ()) =
        tokio::join!(executor.run(job(folder.path()), sender, cancel.clone()), stop);
    assert_eq!(outcome.conclusion, Conclusion::Cancelled);
    assert_eq!(std::fs::read(folder.path().join("out/made")).unwrap(), b"x");
}
