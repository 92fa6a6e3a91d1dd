//! An executor that runs nothing: it plays a script. For tests of what uses an executor.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use pipeyard_model::{AttemptId, Clock, Conclusion, SystemClock, log::Stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Executor, ExecutorError, JobEvent, JobOutcome, JobRun, Reason, StepExit};

/// One thing that a played job does.
#[derive(Debug, Clone)]
pub enum Act {
    /// Tells the reader of the log.
    Note(String),
    /// A step begins.
    Start(u16),
    /// A step writes.
    Write(u16, Stream, Bytes),
    /// A step ends. The job goes on whatever the exit is: [`Act::End`] tells its outcome.
    Finish(u16, StepExit),
    /// A file appears in the workspace, at this relative path.
    File(PathBuf, Vec<u8>),
    /// Waits until the test cancels this token. A cancelled job ends here.
    Until(CancellationToken),
    /// Ends the job. A script without it is a success.
    End(JobOutcome),
}

type Script = dyn Fn(&JobRun) -> Vec<Act> + Send + Sync;

/// Plays a script for every job.
#[derive(Clone)]
pub struct FakeExecutor {
    script: Arc<Script>,
    clock: Arc<dyn Clock>,
    seen: Arc<Mutex<Seen>>,
    unable: Arc<AtomicBool>,
}

/// What a [`FakeExecutor`] was asked to do.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Every job that was started, in order.
    pub started: Vec<JobRun>,
    /// Every job that ended, with its outcome.
    pub ended: Vec<(AttemptId, JobOutcome)>,
    /// What each reconcile was told to be live.
    pub reconciled: Vec<Vec<AttemptId>>,
}

impl FakeExecutor {
    /// Plays what `script` says for each job.
    #[must_use]
    pub fn new(script: impl Fn(&JobRun) -> Vec<Act> + Send + Sync + 'static) -> Self {
        let clock = Arc::new(SystemClock);
        Self { script: Arc::new(script), clock, seen: Arc::default(), unable: Arc::default() }
    }

    /// Every step writes its own command as a line and succeeds.
    #[must_use]
    pub fn echo() -> Self {
        Self::new(|job| {
            let mut acts = Vec::new();
            for (number, step) in (1..).zip(&job.spec.steps) {
                let line = format!("{}\n", step.run);
                acts.push(Act::Start(number));
                acts.push(Act::Write(number, Stream::Stdout, Bytes::from(line)));
                acts.push(Act::Finish(number, StepExit::Code(0)));
            }
            acts
        })
    }

    /// Takes the times of its events from this clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// While this is set, its check says that Docker doesn't answer.
    #[must_use]
    pub fn unable_while(mut self, unable: Arc<AtomicBool>) -> Self {
        self.unable = unable;
        self
    }

    /// What it was asked to do so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn play(
        &self,
        job: &JobRun,
        events: &mpsc::Sender<JobEvent>,
        cancel: &CancellationToken,
    ) -> JobOutcome {
        let success = JobOutcome { conclusion: Conclusion::Success, reason: None };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return JobOutcome::cancelled(),
            () = job.filled.wait() => {}
        }
        for act in (self.script)(job) {
            let at = self.clock.now();
            let event = match act {
                Act::Note(text) => JobEvent::Note { at, text },
                Act::Start(step) => JobEvent::StepStarted { step, at },
                Act::Write(step, stream, bytes) => JobEvent::Output { step, stream, at, bytes },
                Act::Finish(step, exit) => JobEvent::StepFinished { step, at, exit },
                Act::File(path, content) => {
                    if let Err(error) = write(job.workspace.join(path), content).await {
                        return failed("fake_file", format!("can't write a file: {error}"));
                    }
                    continue;
                }
                Act::Until(gate) => tokio::select! {
                    biased;
                    () = cancel.cancelled() => return JobOutcome::cancelled(),
                    () = gate.cancelled() => continue,
                },
                Act::End(outcome) => return outcome,
            };
            tokio::select! {
                sent = events.send(event) => if sent.is_err() {
                    return failed("output_unheard", "nobody takes the events".to_owned());
                },
                () = cancel.cancelled() => return JobOutcome::cancelled(),
            }
        }
        success
    }
}

fn failed(code: &str, message: String) -> JobOutcome {
    Reason { code: code.to_owned(), message }.into()
}

async fn write(path: PathBuf, content: Vec<u8>) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    tokio::fs::write(path, content).await
}

impl std::fmt::Debug for FakeExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeExecutor").finish_non_exhaustive()
    }
}

#[async_trait]
impl Executor for FakeExecutor {
    async fn run(
        &self,
        job: JobRun,
        events: mpsc::Sender<JobEvent>,
        cancel: CancellationToken,
    ) -> JobOutcome {
        self.lock().started.push(job.clone());
        let outcome = self.play(&job, &events, &cancel).await;
        self.lock().ended.push((job.attempt, outcome.clone()));
        outcome
    }

    async fn reconcile(&self, live: &[AttemptId]) -> Result<usize, ExecutorError> {
        self.lock().reconciled.push(live.to_vec());
        Ok(0)
    }

    async fn check(&self) -> Result<String, ExecutorError> {
        if self.unable.load(Ordering::SeqCst) {
            let message = "Docker doesn't answer (a script says so)".to_owned();
            return Err(ExecutorError { code: "docker_unavailable", message });
        }
        Ok("a script".to_owned())
    }
}
