//! Starts parts of Pipeyard as processes of this executable and keeps them running.
//!
//! A part that dies is started again, after a pause that grows while it keeps dying. A part that is
//! bound to its parent holds the read end of a pipe: when this process is gone, however it ended,
//! the part sees the end of its standard input and stops by itself. The proxy isn't bound: it goes
//! on serving, and the next `up` finds it by its pid file.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
};
use tokio_util::sync::CancellationToken;

/// The pause before a restart, doubled up to the second value while the part keeps dying.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A part that ran for so long starts over with the short pause.
const STABLE: Duration = Duration::from_secs(30);
/// How long a part may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(30);
/// Tells a part that its standard input is the pipe to its parent.
pub(crate) const PARENT_PIPE: &str = "PIPEYARD_PARENT_PIPE";

/// One process to keep running.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Shown before its lines.
    pub(crate) name: String,
    /// Arguments to this executable.
    pub(crate) args: Vec<String>,
    /// Environment besides the parent's.
    pub(crate) env: Vec<(String, String)>,
    /// Whether it ends with its parent.
    pub(crate) bound: bool,
    /// Where its process id is written.
    pub(crate) pid_file: PathBuf,
}

/// Keeps one part running until `shutdown`, then ends it.
///
/// # Errors
/// When this executable can't be started at all.
pub(crate) async fn keep_running(part: Part, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut pause = PAUSE.0;
    loop {
        let began = Instant::now();
        let mut child = start(&part)?;
        // Held until the part has ended: waiting for a child would close its standard input.
        let parent_pipe = child.stdin.take();
        tokio::select! {
            status = child.wait() => {
                let status = status.with_context(|| format!("failed to wait for {}", part.name))?;
                if shutdown.is_cancelled() {
                    return Ok(());
                }
                if began.elapsed() > STABLE {
                    pause = PAUSE.0;
                }
                tracing::warn!(part = %part.name, %status, pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX), "a part ended; starting it again");
            }
            () = shutdown.cancelled() => {
                let ended = end(&part, child).await;
                drop(parent_pipe);
                return ended;
            }
        }
        drop(parent_pipe);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

fn start(part: &Part) -> anyhow::Result<Child> {
    let executable = std::env::current_exe().context("failed to find this executable")?;
    let mut command = Command::new(executable);
    command.args(&part.args).envs(part.env.iter().cloned());
    if part.bound {
        command.stdin(Stdio::piped()).env(PARENT_PIPE, "1");
    } else {
        // Of its own process group, so that Ctrl-C at the terminal doesn't reach it.
        command.stdin(Stdio::null()).process_group(0);
    }
    if part.bound {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    } else {
        // A pipe would break when its reader is gone.
        let log = part.pid_file.with_extension("log");
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("failed to open {}", log.display()))?;
        command.stdout(file.try_clone()?).stderr(file);
    }
    let mut child = command.spawn().with_context(|| format!("failed to start {}", part.name))?;
    if let Some(pid) = child.id() {
        std::fs::write(&part.pid_file, pid.to_string())
            .with_context(|| format!("failed to write {}", part.pid_file.display()))?;
    }
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(relay(part.name.clone(), stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(relay(part.name.clone(), stderr));
    }
    Ok(child)
}

/// Passes a part's lines on to standard error, each with the part's name.
async fn relay(name: String, from: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        put_line(&name, &line);
    }
}

/// Where the parts' lines go instead of standard error.
static RELAY: OnceLock<Mutex<std::fs::File>> = OnceLock::new();

/// Sends the parts' lines to a file from now on. The first call counts.
pub(crate) fn relay_to(file: std::fs::File) {
    let _ = RELAY.set(Mutex::new(file));
}

fn put_line(name: &str, line: &str) {
    use std::io::Write as _;
    let _ = match RELAY.get() {
        Some(file) => {
            writeln!(file.lock().unwrap_or_else(PoisonError::into_inner), "{name:>7} | {line}")
        }
        None => writeln!(std::io::stderr().lock(), "{name:>7} | {line}"),
    };
}

async fn end(part: &Part, mut child: Child) -> anyhow::Result<()> {
    if let Some(pid) =
        child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?))
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        tracing::warn!(part = %part.name, "a part didn't end in time; killing it");
        child.kill().await.with_context(|| format!("failed to kill {}", part.name))?;
    }
    let _ = std::fs::remove_file(&part.pid_file);
    Ok(())
}

/// The process in this file, if it still runs this executable's subcommand `name`.
#[must_use]
pub(crate) fn running(pid_file: &Path, name: &str) -> Option<rustix::process::Pid> {
    let pid: i32 = std::fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let same = line.split(|b| *b == 0).nth(1).is_some_and(|arg| arg == name.as_bytes());
    if same { rustix::process::Pid::from_raw(pid) } else { None }
}

/// Cancelled by SIGINT, SIGTERM, or the end of the parent when this process is bound to one.
///
/// # Errors
/// When signals can't be watched.
pub(crate) fn shutdown_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let token = CancellationToken::new();
    let cancel = token.clone();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let bound = std::env::var_os(PARENT_PIPE).is_some();
    tokio::spawn(async move {
        let (gone, parent_gone) = tokio::sync::oneshot::channel::<()>();
        let mut unbound = None;
        if bound {
            // A thread of its own: a blocked read of standard input can't be cancelled.
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                drop(gone);
            });
        } else {
            unbound = Some(gone);
        }
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = parent_gone => {}
        }
        drop(unbound);
        cancel.cancel();
    });
    Ok(token)
}
