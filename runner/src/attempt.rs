//! One attempt, from its claim to its finish.
//!
//! The order at the end is fixed: everything that the job made is gone, artifacts are kept, the log
//! is whole at the server, then the attempt is finished. A finish that was acknowledged therefore
//! stands for all of it.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use pipeyard_api::runner::{
    ClaimedJob, FinishRequest, HANDED_BACK, ReasonView, StepReport, StepsRequest,
};
use pipeyard_executor::{Filling, JobOutcome, JobRun, Lease, Reason, SecretValue};
use pipeyard_git::{BasicAuth, Sha};
use pipeyard_mask::Masker;
use pipeyard_model::{AttemptId, ByteSize, Conclusion};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    Shared, artifacts, heartbeat,
    journal::Journal,
    live::{Begun, EndBecause},
    log::{Log, Stopped},
    protocol::{CallError, Server},
    reports,
    shipper::{self, Shipped},
};

/// How long a checkout may take.
const CHECKOUT: Duration = Duration::from_secs(600);
/// The pause after a failed call; it doubles up to the second value.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Events that may wait, of at most 64 KiB each; beyond it the job's output waits.
const EVENTS: usize = 64;
/// How long a call that reports may take.
const CALL: Duration = Duration::from_secs(20);

/// With these an executor says that no job can run here, whatever it is.
const UNABLE: &[&str] = &["docker_unavailable", "runner_disk_full", "egress_unenforceable"];

/// The attempts' folders.
pub(crate) fn folder(data: &Path, attempt: AttemptId) -> PathBuf {
    data.join("attempts").join(format!("{}-{}", attempt.job, attempt.epoch))
}

/// Runs a claimed job and reports its end.
pub(crate) async fn run(shared: &Shared, claimed: ClaimedJob, begun: Begun) {
    let attempt = AttemptId { job: claimed.job, epoch: claimed.epoch };
    let dir = folder(&shared.config.data_dir, attempt);
    tracing::info!(job.id = %attempt.job, epoch = attempt.epoch.0, run = claimed.run.0, job = %claimed.name, "the attempt begins");
    let outcome = match begin(&dir) {
        Ok(journal) => execute(shared, claimed, &dir, journal, begun).await,
        Err(error) => {
            let outcome = stopped(shared, &Stopped::Disk(error));
            finish(&shared.server, attempt, &finish_request(shared, outcome, 0, &no_mask())).await;
            return;
        }
    };
    tracing::info!(job.id = %attempt.job, epoch = attempt.epoch.0, conclusion = %outcome, "the attempt is over");
    remove(&dir).await;
}

fn begin(dir: &Path) -> std::io::Result<Journal> {
    std::fs::create_dir_all(dir)?;
    Journal::create(dir)
}

/// Removes an attempt's folder; what can't be removed now is tried again later.
pub(crate) async fn remove(dir: &Path) {
    if let Err(error) = tokio::fs::remove_dir_all(dir).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "a workspace can't be removed yet");
    }
}

async fn execute(
    shared: &Shared,
    claimed: ClaimedJob,
    dir: &Path,
    journal: Journal,
    Begun { stop, lease }: Begun,
) -> Conclusion {
    let attempt = AttemptId { job: claimed.job, epoch: claimed.epoch };
    let masker = Masker::new(
        claimed.secrets.values().map(String::as_str).chain([claimed.checkout.token.as_str()]),
    );
    let written = journal.written();
    let ship = {
        let (server, dir, stop) = (shared.server.clone(), dir.to_path_buf(), stop.clone());
        tokio::spawn(async move {
            let shipped = shipper::ship(&server, attempt, &dir, written).await;
            if !matches!(shipped, Ok(Shipped::All)) {
                // A log that nobody takes any more must not grow.
                stop.cancel();
            }
            shipped
        })
    };
    let (progress, receiver) = mpsc::channel(64);
    let report = tokio::spawn(report_steps(shared.server.clone(), attempt, receiver));
    let limit = shared.config.max_log_bytes.min(claimed.max_log_bytes);
    let mut log = Log::new(masker.fresh(), journal, limit);

    let work = Work { dir, lease, masker: &masker, stop: &stop };
    let mut outcome = job(shared, &claimed, &mut log, progress, &work).await;
    match shared.live.because(attempt) {
        Some(EndBecause::Stopping) => {
            outcome = failed(Conclusion::Error, "runner_lost", "the runner was stopped".into());
        }
        Some(EndBecause::Unheard) => {
            let message = "the runner could not reach the server and ended the job before another \
                           could be given it";
            outcome = failed(Conclusion::Error, "runner_lost", message.into());
        }
        Some(EndBecause::Cancelled) if !outcome.conclusion.is_success() => {
            outcome.conclusion = Conclusion::Cancelled;
        }
        Some(EndBecause::Stale) => {
            let message = "the server ended this attempt while the runner was away; what the job \
                           wrote until then is kept";
            outcome = failed(Conclusion::Error, "runner_lost", message.into());
        }
        Some(EndBecause::Cancelled) | None => {}
    }
    if let Some(reason) = &mut outcome.reason {
        if UNABLE.contains(&reason.code.as_str()) {
            shared.live.suspect_executor();
            if !log.has_begun() {
                // No step ran: the attempt isn't the job's to lose.
                *reason = handed_back(shared, &reason.message);
            }
        }
        log.note(shared.clock.now(), &format!("{}: {}", reason.code, reason.message));
    }
    let bytes = log.end();
    let stale = shared.live.because(attempt) == Some(EndBecause::Stale);
    if stale {
        report.abort();
    } else {
        let _ = report.await;
    }
    // What was journaled is shipped in any case: the server takes the log of an attempt that it gave
    // up while this runner was away.
    let log_bytes = match ship.await {
        Ok(Ok(Shipped::All)) if !stale => bytes,
        Ok(Ok(Shipped::All | Shipped::Late | Shipped::Stale)) => return outcome.conclusion,
        Ok(Ok(Shipped::Refused(cause))) => {
            let message = format!("the server refused the rest of the log: {cause}");
            tracing::error!(attempt = %attempt, %message);
            outcome = failed(Conclusion::Error, "log_refused", message);
            0
        }
        Ok(Err(error)) => {
            outcome = failed(
                Conclusion::Error,
                "runner_disk",
                format!("the journal can't be read: {error}"),
            );
            0
        }
        Err(_) => return outcome.conclusion,
    };
    let conclusion = outcome.conclusion;
    finish(&shared.server, attempt, &finish_request(shared, outcome, log_bytes, &masker)).await;
    conclusion
}

/// What a job is run with.
struct Work<'a> {
    dir: &'a Path,
    lease: Lease,
    masker: &'a Masker,
    stop: &'a CancellationToken,
}

/// Checkout, steps, test reports, artifacts.
async fn job(
    shared: &Shared,
    claimed: &ClaimedJob,
    log: &mut Log,
    progress: mpsc::Sender<StepReport>,
    Work { dir, lease, masker, stop }: &Work<'_>,
) -> JobOutcome {
    let workspace = dir.join("workspace");
    log.note(
        shared.clock.now(),
        &format!(
            "{} on runner {}: checking out {}",
            claimed.name, shared.config.name, claimed.checkout.sha
        ),
    );
    if let Err(error) = make_workspace(&workspace).await {
        let message = format!("the runner can't make a workspace: {error}; free its disk");
        return failed(Conclusion::Error, "runner_disk", message);
    }
    let (filling, filled) = Filling::begin();
    let run = JobRun {
        attempt: AttemptId { job: claimed.job, epoch: claimed.epoch },
        installation: crate::owner(&shared.identity),
        spec: claimed.spec.clone(),
        workspace: workspace.clone(),
        filled,
        lease: lease.clone(),
        repo: claimed.repo.clone(),
        env: claimed.env.clone(),
        secrets: claimed.secrets.iter().map(|(k, v)| (k.clone(), SecretValue(v.clone()))).collect(),
    };
    let (events, mut incoming) = mpsc::channel(EVENTS);
    let cancel = stop.child_token();
    let over = CancellationToken::new();
    let running = async {
        let outcome = shared.executor.run(run, events, cancel.clone()).await;
        over.cancel();
        outcome
    };
    // Beside the executor, which has the container ready by the time the commit is there.
    let checkout = async {
        let attempt = AttemptId { job: claimed.job, epoch: claimed.epoch };
        let ready = async {
            let (done, ()) = tokio::join!(
                checkout(shared, claimed, &workspace),
                heartbeat::confirmed(shared, attempt)
            );
            done
        };
        let done = tokio::select! {
            done = ready => done,
            // Ended, or there is nothing to run it in: the executor says which.
            () = cancel.cancelled() => return None,
            () = over.cancelled() => return None,
        };
        match done {
            Ok(()) => {
                filling.done();
                None
            }
            Err(outcome) => {
                cancel.cancel();
                Some(outcome)
            }
        }
    };
    let pump = async {
        let mut batch = Vec::with_capacity(EVENTS);
        while incoming.recv_many(&mut batch, EVENTS).await > 0 {
            for event in batch.drain(..) {
                if let Some(report) = log.event(event) {
                    let _ = progress.send(report).await;
                }
            }
            log.write();
            if log.stopped().is_some() {
                // Goes on to read, so that the executor isn't held up while it ends the job.
                cancel.cancel();
            }
        }
    };
    let (outcome, no_commit, ()) = tokio::join!(running, checkout, pump);
    if let Some(outcome) = no_commit {
        return outcome;
    }
    if let Some(why) = log.stopped() {
        return stopped(shared, why);
    }
    let attempt = AttemptId { job: claimed.job, epoch: claimed.epoch };
    let patterns = &claimed.spec.tests;
    if reports::wanted(outcome.conclusion, patterns) {
        let told = reports::keep(&shared.server, attempt, &workspace, patterns, masker, stop).await;
        for line in told {
            log.note(shared.clock.now(), &line);
        }
    }
    if !outcome.conclusion.is_success() || claimed.spec.artifacts.is_empty() {
        return outcome;
    }
    let kept = tokio::select! {
        kept = artifacts::keep(&shared.server, attempt, &workspace, &claimed.spec.artifacts) => kept,
        () = stop.cancelled() => return failed(Conclusion::Cancelled, "cancelled", "ended while artifacts were kept".into()),
    };
    match kept {
        Ok(kept) => {
            for line in kept {
                log.note(shared.clock.now(), &line);
            }
            outcome
        }
        Err(problem) => failed(problem.conclusion, problem.code, problem.message),
    }
}

/// The folder of the commit. Users of an image other than its owner may look into it: the folders
/// above it are closed, the container's view of it isn't.
async fn make_workspace(path: &Path) -> std::io::Result<()> {
    tokio::fs::create_dir_all(path).await?;
    tokio::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).await
}

/// Removes what is in a folder but not the folder, which a container may hold already.
async fn empty(dir: &Path) {
    let Ok(mut entries) = tokio::fs::read_dir(dir).await else { return };
    while let Ok(Some(entry)) = entries.next_entry().await {
        let path = entry.path();
        // What can't be removed makes the next checkout fail, which says so.
        let _ = match entry.file_type().await {
            Ok(kind) if kind.is_dir() => tokio::fs::remove_dir_all(path).await,
            _ => tokio::fs::remove_file(path).await,
        };
    }
}

async fn checkout(
    shared: &Shared,
    claimed: &ClaimedJob,
    workspace: &Path,
) -> Result<(), JobOutcome> {
    let error = |message: String| failed(Conclusion::Error, "checkout_failed", message);
    let sha: Sha =
        claimed.checkout.sha.parse().map_err(|_| error("the commit's SHA isn't one".into()))?;
    let auth = BasicAuth { user: "attempt".into(), password: claimed.checkout.token.clone() };
    let url = shared.server.url(&claimed.checkout.path);
    let limit = CHECKOUT.min(claimed.spec.timeout);
    let mut tried = 0;
    loop {
        tried += 1;
        match pipeyard_git::checkout(&url, &auth, &sha, workspace, pipeyard_trust::file(), limit)
            .await
        {
            Ok(()) => return Ok(()),
            Err(cause) if tried < 3 => {
                tracing::warn!(%cause, "the checkout failed; trying again");
                empty(workspace).await;
                tokio::time::sleep(Duration::from_secs(tried)).await;
            }
            Err(cause) => return Err(error(format!("failed to check out {sha}: {cause}"))),
        }
    }
}

/// Reports progress of steps, the latest of each, until the job is over.
async fn report_steps(server: Server, attempt: AttemptId, mut reports: mpsc::Receiver<StepReport>) {
    let path = format!("/api/runner/jobs/{}/{}/steps", attempt.job, attempt.epoch);
    let mut batch: Vec<StepReport> = Vec::new();
    while reports.recv_many(&mut batch, 64).await > 0 {
        let mut steps: Vec<StepReport> = Vec::new();
        for report in batch.drain(..) {
            match steps.iter_mut().find(|s| s.step == report.step) {
                Some(earlier) => earlier.finished = report.finished,
                None => steps.push(report),
            }
        }
        let body = StepsRequest { steps };
        let mut pause = PAUSE.0;
        while let Err(error) = server.post::<_, serde_json::Value>(&path, &body, CALL).await {
            if let CallError::Refused { code, message, .. } = &error {
                tracing::warn!(attempt = %attempt, %code, %message, "progress was refused");
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

pub(crate) fn failed(conclusion: Conclusion, code: &str, message: String) -> JobOutcome {
    JobOutcome { conclusion, reason: Some(Reason { code: code.to_owned(), message }) }
}

/// Why an attempt is given back of which nothing was begun.
pub(crate) fn handed_back(shared: &Shared, why: impl std::fmt::Display) -> Reason {
    let message =
        format!("the runner {} gave it back before its first step: {why}", shared.config.name);
    Reason { code: HANDED_BACK.to_owned(), message }
}

/// Gives an attempt back that was claimed and nothing else.
pub(crate) async fn hand_back(shared: &Shared, attempt: AttemptId, reason: Reason) {
    tracing::warn!(attempt = %attempt, why = reason.message, "a claimed job is handed back");
    let outcome = JobOutcome { conclusion: Conclusion::Error, reason: Some(reason) };
    finish(&shared.server, attempt, &finish_request(shared, outcome, 0, &no_mask())).await;
    remove(&folder(&shared.config.data_dir, attempt)).await;
}

/// How a job ends whose log can't go on.
fn stopped(shared: &Shared, why: &Stopped) -> JobOutcome {
    let name = &shared.config.name;
    let dir = shared.config.data_dir.display();
    match why {
        Stopped::Limit(bytes) => failed(
            Conclusion::Failure,
            "log_limit",
            format!(
                "the job wrote more log than its limit of {}: the log ends there. Write less, or to a \
                 file that is kept as an artifact; `max_log_bytes` of the runner and of the server is \
                 the limit",
                ByteSize(*bytes)
            ),
        ),
        Stopped::Disk(error) if error.kind() == std::io::ErrorKind::StorageFull => failed(
            Conclusion::Error,
            "runner_disk",
            format!(
                "the disk of the runner {name} is full: the job's log can't go on in {dir}. Free space \
                 there and start the job again"
            ),
        ),
        Stopped::Disk(error) => failed(
            Conclusion::Error,
            "runner_disk",
            format!("the runner {name} can't write the job's log in {dir}: {error}"),
        ),
    }
}

fn no_mask() -> Masker {
    Masker::new(std::iter::empty())
}

/// The reason is masked too: it may quote what the job wrote.
fn finish_request(
    shared: &Shared,
    outcome: JobOutcome,
    log_bytes: u64,
    masker: &Masker,
) -> FinishRequest {
    let reason = outcome.reason.map(|reason| {
        let mut masked = Vec::new();
        let mut masker = masker.fresh();
        masker.push(reason.message.as_bytes(), &mut masked);
        masker.flush(&mut masked);
        ReasonView { code: reason.code, message: String::from_utf8_lossy(&masked).into_owned() }
    });
    FinishRequest {
        conclusion: outcome.conclusion,
        reason,
        log_bytes,
        finished_at: shared.clock.now(),
    }
}

/// Tells the server how an attempt ended, until it has heard it.
pub(crate) async fn finish(server: &Server, attempt: AttemptId, request: &FinishRequest) {
    let path = format!("/api/runner/jobs/{}/{}/finish", attempt.job, attempt.epoch);
    let mut pause = PAUSE.0;
    loop {
        match server.post::<_, serde_json::Value>(&path, request, CALL).await {
            Ok(_) => return,
            Err(CallError::Refused { code, message, .. }) => {
                tracing::warn!(attempt = %attempt, %code, %message, "the finish was refused");
                return;
            }
            Err(CallError::Away(cause)) => {
                tracing::warn!(attempt = %attempt, %cause, "the finish waits for the server");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}
