//! Runs jobs directly on the runner's machine, for machines without Docker. There is no isolation:
//! a step can do whatever the runner's user can, so a runner must be told to use this.
//!
//! The shim runs the steps here too, as a subreaper instead of process 1: whatever a step leaves in
//! the background ends with the job, and everything ends when the runner does. Images are ignored;
//! a job with services is refused.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::StreamExt;
use pipeyard_model::{AttemptId, Clock, SystemClock};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::{io::ReaderStream, sync::CancellationToken};

use crate::{
    Executor, ExecutorError, JobEvent, JobOutcome, JobRun, check,
    fault::Fault,
    outcome::{Pressure, Verdict, judge},
    protocol,
    session::{self, Bounds, Link, Tail},
    shim, steps,
};

/// How long the shim may take to exit after its sentinel.
const EXIT: Duration = Duration::from_secs(20);
/// What steps see of the runner's own environment: the rest may hold credentials.
const PASSED_ON: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "TMPDIR", "TZ"];

/// How a [`LocalExecutor`] works.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// A folder of the runner's; the shim is put into it.
    pub data_dir: PathBuf,
    /// Tells when notes are made.
    pub clock: Arc<dyn Clock>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
}

impl LocalConfig {
    /// The defaults for a runner's data folder.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let clock = Arc::new(SystemClock);
        Self { data_dir: data_dir.into(), clock, grace: Duration::from_secs(10) }
    }
}

/// Runs jobs directly on the runner's machine.
#[derive(Debug)]
pub struct LocalExecutor {
    config: LocalConfig,
    shim: PathBuf,
}

impl LocalExecutor {
    /// Puts the shim into the data folder.
    ///
    /// # Errors
    /// `data_dir` when the folder can't be written.
    pub fn new(config: LocalConfig) -> Result<Self, ExecutorError> {
        let shim = shim::install(&config.data_dir)?;
        Ok(Self { config, shim })
    }
}

#[async_trait]
impl Executor for LocalExecutor {
    async fn run(
        &self,
        job: JobRun,
        events: mpsc::Sender<JobEvent>,
        cancel: CancellationToken,
    ) -> JobOutcome {
        let token = cancel.child_token();
        let _guard = token.clone().drop_guard();
        let (shim, config) = (self.shim.clone(), self.config.clone());
        // A task of its own, so that a caller that drops this future cancels it and no more.
        let task = tokio::spawn(async move {
            match run(shim, &config, &job, &events, token).await {
                Ok(outcome) => outcome,
                Err(fault) => fault.into(),
            }
        });
        task.await.unwrap_or_else(|error| {
            let message = format!("The executor itself failed: {error}. Please report it.");
            Fault::new("internal", message).into()
        })
    }

    /// Nothing outlives the process that started it.
    async fn reconcile(&self, _live: &[AttemptId]) -> Result<usize, ExecutorError> {
        Ok(0)
    }

    async fn check(&self) -> Result<String, ExecutorError> {
        if tokio::fs::metadata("/bin/sh").await.is_err() {
            return Err(Fault::new("no_shell", "This machine has no /bin/sh to run steps.").into());
        }
        Ok("this machine itself, without isolation".to_owned())
    }
}

async fn run(
    shim: PathBuf,
    config: &LocalConfig,
    job: &JobRun,
    events: &mpsc::Sender<JobEvent>,
    cancel: CancellationToken,
) -> Result<JobOutcome, Fault> {
    check::job(job)?;
    if !job.spec.services.is_empty() {
        let message = "The job has services, which need Docker, and this runner runs jobs without \
                       it. Run the job on a runner with Docker.";
        return Err(Fault::new("services_need_docker", message));
    }
    let text =
        format!("Running on the runner's machine itself: the image {} is not used", job.spec.image);
    let note = JobEvent::Note { at: config.clock.now(), text };
    // A receiver that is gone is noticed with the first step.
    let _ = timeout(config.grace, events.send(note)).await;

    let deadline = Instant::now() + job.spec.timeout;
    let bounds = Bounds { cancel, deadline, grace: config.grace, lease: job.lease.clone() };
    tokio::select! {
        biased;
        () = bounds.cancel.cancelled() => return Ok(JobOutcome::cancelled()),
        () = tokio::time::sleep_until(deadline) => return Ok(JobOutcome::job_timeout(&job.spec)),
        () = job.filled.wait() => {}
    }
    let mut child = spawn(&shim).await?;
    let missing = || Fault::new("internal", "the shim has no pipe");
    let input = Box::pin(child.stdin.take().ok_or_else(missing)?);
    let output = ReaderStream::with_capacity(child.stdout.take().ok_or_else(missing)?, 64 * 1024)
        .map(|piece| piece.map_err(|error| error.to_string()))
        .boxed();
    let complaint = tokio::spawn(read_tail(child.stderr.take().ok_or_else(missing)?));
    let request = protocol::Job {
        nonce: session::nonce(),
        image: String::new(),
        workdir: job.workspace.to_string_lossy().into_owned(),
        own_workdir: false,
        user: String::new(),
        set_home: false,
        grace_ms: session::millis(config.grace),
        life: job.lease.life(),
        steps: steps::all_here(job),
    };
    let ending = session::drive(Link { input, output }, &request, &bounds, events, None).await;
    // The session has closed the shim's stdin, so a shim that is still there is ending everything.
    let Ok(Ok(status)) = timeout(EXIT, child.wait()).await else {
        let _ = child.kill().await;
        let message = "Processes of the job could not be ended within 20 s; look for them on the \
                       runner's machine.";
        return Err(Fault::new("processes_remain", message));
    };
    let pressure = if bounds.cancel.is_cancelled() {
        Pressure::Cancelled
    } else if Instant::now() >= deadline {
        Pressure::TimedOut
    } else {
        Pressure::None
    };
    Ok(match judge(&job.spec, &ending, pressure) {
        Verdict::Is(outcome) => outcome,
        Verdict::Lost => {
            let said = complaint.await.unwrap_or_default().join("; ");
            let message = format!("The job ended without a confirmed end ({status}) {said}");
            Fault::new("no_sentinel", message.trim_end()).into()
        }
    })
}

async fn spawn(shim: &PathBuf) -> Result<Child, Fault> {
    let kept = PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut command = Command::new(shim);
    command
        .env_clear()
        .envs(kept)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut tries = 0;
    loop {
        match command.spawn() {
            Ok(child) => return Ok(child),
            // Another thread forked while the file was being written and holds it open until it
            // starts its own program.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy && tries < 50 => {
                tries += 1;
                sleep(Duration::from_millis(20)).await;
            }
            Err(error) => {
                let message = format!("Can't start {}: {error}.", shim.display());
                return Err(Fault::new("shim_start_failed", message));
            }
        }
    }
}

async fn read_tail(mut stream: impl AsyncRead + Unpin) -> Vec<String> {
    let mut tail = Tail::default();
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut bytes).await {
        tail.push(&bytes[..read]);
    }
    tail.lines()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_shim_that_hears_nothing_ends_everything() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = spawn(&shim::install(folder.path()).unwrap()).await.unwrap();
        let script = "trap '' TERM; echo $$; sleep 1000; sleep 1000".to_owned();
        let command = protocol::Command::Shell(script);
        let request = protocol::Job {
            nonce: session::nonce(),
            image: String::new(),
            workdir: String::new(),
            own_workdir: false,
            user: String::new(),
            set_home: false,
            grace_ms: 100_000,
            life: protocol::Life { written_ms: 0, left_ms: 500 },
            steps: vec![protocol::Step { number: 1, timeout_ms: 0, command, env: Vec::new() }],
        };
        // Its stdin stays open: this runner is frozen, not dead.
        let mut input = child.stdin.take().unwrap();
        input.write_all(&request.encode()).await.unwrap();
        let mut wire = Vec::new();
        let mut output = child.stdout.take().unwrap();
        timeout(Duration::from_secs(20), output.read_to_end(&mut wire)).await.unwrap().unwrap();
        let mut frames = session::Frames::default();
        frames.push(wire.into());
        let mut pid = String::new();
        while let Some(frame) = frames.next().unwrap() {
            match frame.news {
                protocol::News::Stdout(bytes) => pid += &String::from_utf8_lossy(&bytes),
                protocol::News::Sentinel(_) => panic!("a job that was abandoned is not confirmed"),
                _ => {}
            }
        }
        assert!(!pid.is_empty());
        assert!(!PathBuf::from(format!("/proc/{}", pid.trim())).exists(), "{pid} lives");
        drop(input);
    }
}
