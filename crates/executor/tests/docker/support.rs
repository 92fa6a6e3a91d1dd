//! A stage for one test: an installation of its own, an executor, a workspace, and the check that
//! nothing is left in Docker. What is asserted about Docker is asked of the `docker` command, not of
//! the code under test.

#![expect(clippy::unwrap_used, reason = "a helper of tests")]

use std::{collections::BTreeMap, path::PathBuf, process::Command, time::Duration};

use pipeyard_executor::{
    DockerConfig, DockerExecutor, Executor, JobEvent, JobOutcome, JobRun, RegistryAccess,
    SecretValue, StepExit,
};
use pipeyard_model::{
    AttemptId, Conclusion, Epoch, InstallationId, JobId, SecretName,
    log::Stream,
    plan::{JobSpec, Readiness, ServiceSpec, StepSpec},
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) const BUSYBOX: &str = "pipeyard/busybox:test";

pub(crate) struct Stage {
    pub(crate) installation: InstallationId,
    pub(crate) executor: DockerExecutor,
    pub(crate) folder: TempDir,
}

/// What came out of a job.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) outcome: JobOutcome,
    pub(crate) events: Vec<JobEvent>,
}

impl Stage {
    /// `None` where Docker doesn't answer and nobody demands it.
    pub(crate) async fn set(test: &str) -> Option<Self> {
        Self::set_with(test, |_| {}).await
    }

    pub(crate) async fn set_with(
        test: &str,
        change: impl FnOnce(&mut DockerConfig),
    ) -> Option<Self> {
        if !pipeyard_needs::docker(test) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("workspace")).unwrap();
        let installation = InstallationId::new();
        let mut config = DockerConfig::new(installation, folder.path().join("data"));
        config.grace = Duration::from_secs(2);
        config.registry_access = RegistryAccess::Everybody;
        change(&mut config);
        let executor = DockerExecutor::connect(config).await.unwrap();
        Some(Self { installation, executor, folder })
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.folder.path().join("workspace")
    }

    pub(crate) fn job(&self, spec: JobSpec) -> JobRun {
        JobRun {
            attempt: AttemptId { job: JobId::new(), epoch: Epoch(1) },
            installation: self.installation,
            spec,
            workspace: self.workspace(),
            filled: pipeyard_executor::Filled::already(),
            lease: pipeyard_executor::Lease::endless(),
            repo: "acme/shop".to_owned(),
            env: BTreeMap::from([("CI".to_owned(), "true".to_owned())]),
            secrets: BTreeMap::new(),
        }
    }

    pub(crate) async fn run(&self, spec: JobSpec) -> Seen {
        self.run_job(self.job(spec), CancellationToken::new(), |_| {}).await
    }

    /// Runs a job and shows every event to `look` as it comes.
    pub(crate) async fn run_job(
        &self,
        job: JobRun,
        cancel: CancellationToken,
        mut look: impl FnMut(&JobEvent),
    ) -> Seen {
        let (sender, mut receiver) = mpsc::channel(8);
        let mut events = Vec::new();
        let collect = async {
            while let Some(event) = receiver.recv().await {
                look(&event);
                events.push(event);
            }
        };
        let (outcome, ()) = tokio::join!(self.executor.run(job, sender, cancel), collect);
        Seen { outcome, events }
    }

    /// Names of this installation's containers, as `docker ps` tells them.
    pub(crate) fn containers(&self) -> Vec<String> {
        list(&["ps", "-a", "--format", "{{.Names}}"], self.installation)
    }

    pub(crate) fn networks(&self) -> Vec<String> {
        list(&["network", "ls", "-q"], self.installation)
    }

    /// Asserts that no container is left, and removes the networks.
    pub(crate) async fn end(self) {
        assert_eq!(self.containers(), Vec::<String>::new(), "containers are left");
        self.executor.remove_everything().await.unwrap();
        assert_eq!(self.networks(), Vec::<String>::new(), "networks are left");
    }
}

impl Drop for Stage {
    /// Clears up after a failed test.
    fn drop(&mut self) {
        for id in list(&["ps", "-aq"], self.installation) {
            docker(&["rm", "-f", &id]);
        }
        for id in self.networks() {
            docker(&["network", "rm", &id]);
        }
    }
}

fn list(command: &[&str], installation: InstallationId) -> Vec<String> {
    let filter = format!("label=pipeyard.installation={installation}");
    let arguments: Vec<&str> = command.iter().copied().chain(["--filter", &filter]).collect();
    docker(&arguments).lines().map(ToOwned::to_owned).collect()
}

/// What the `docker` command writes.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn spec(image: &str, commands: &[&str]) -> JobSpec {
    JobSpec {
        image: image.to_owned(),
        steps: commands.iter().map(|command| step(command)).collect(),
        env: BTreeMap::new(),
        secrets: Vec::new(),
        services: Vec::new(),
        timeout: Duration::from_secs(120),
        artifacts: Vec::new(),
        tests: vec![],
        retry: 0,
        once: false,
        labels: Vec::new(),
    }
}

pub(crate) fn step(command: &str) -> StepSpec {
    StepSpec {
        name: command.to_owned(),
        run: command.to_owned(),
        image: None,
        env: BTreeMap::new(),
        timeout: None,
    }
}

pub(crate) fn service(alias: &str, image: &str) -> ServiceSpec {
    ServiceSpec {
        alias: alias.to_owned(),
        image: image.to_owned(),
        env: BTreeMap::new(),
        command: Vec::new(),
        ready: Readiness::Automatic,
    }
}

pub(crate) fn secret(name: &str, value: &str) -> (SecretName, SecretValue) {
    (SecretName::new(name).unwrap(), SecretValue(value.to_owned()))
}

impl Seen {
    pub(crate) fn code(&self) -> &str {
        self.outcome.reason.as_ref().map_or("", |reason| &reason.code)
    }

    pub(crate) fn message(&self) -> &str {
        self.outcome.reason.as_ref().map_or("", |reason| &reason.message)
    }

    #[track_caller]
    pub(crate) fn is(&self, conclusion: Conclusion, code: &str) {
        assert_eq!((self.outcome.conclusion, self.code()), (conclusion, code), "{self:#?}");
    }

    #[track_caller]
    pub(crate) fn succeeded(&self) {
        self.is(Conclusion::Success, "");
    }

    pub(crate) fn bytes(&self, wanted: Stream) -> Vec<u8> {
        let mut all = Vec::new();
        for event in &self.events {
            if let JobEvent::Output { stream, bytes, .. } = event
                && *stream == wanted
            {
                all.extend_from_slice(bytes);
            }
        }
        all
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.bytes(Stream::Stdout)).into_owned()
    }

    pub(crate) fn exits(&self) -> Vec<(u16, StepExit)> {
        let exit = |event: &JobEvent| match event {
            JobEvent::StepFinished { step, exit, .. } => Some((*step, *exit)),
            _ => None,
        };
        self.events.iter().filter_map(exit).collect()
    }

    pub(crate) fn notes(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|event| match event {
                JobEvent::Note { text, .. } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }
}
