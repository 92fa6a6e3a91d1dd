//! Starts parts of Pipeyard as processes of this executable and keeps them running.
//!
//! A part that dies is started again, after a pause that grows while it keeps dying; one that refuses
//! to work at its very first start, say because its port is taken, ends everything with its reason.
//! A part that is bound to its parent holds the read end of a pipe: when this process is gone,
//! however it ended, the part sees the end of its standard input and stops by itself. The proxy isn't
//! bound: it goes on serving, and the next `up` finds it by the lock that it holds in its folder. The
//! files with process ids are for people; nobody is signalled because of one.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use pipeyard_home::{Process, Role};
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
    /// Where its process id is written, for people.
    pub(crate) pid_file: PathBuf,
}

/// The exit status of a part that refuses to work: a port that is taken, a folder in use.
const REFUSED: i32 = 2;

/// Keeps one part running until `shutdown`, then ends it.
///
/// # Errors
/// When this executable can't be started at all, or the part refuses to work at its first start.
pub(crate) async fn keep_running(part: Part, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut pause = PAUSE.0;
    let mut is_first = true;
    loop {
        let began = Instant::now();
        let (mut child, said) = start(&part)?;
        // Held until the part has ended: waiting for a child would close its standard input.
        let parent_pipe = child.stdin.take();
        tokio::select! {
            status = child.wait() => {
                let status = status.with_context(|| format!("failed to wait for {}", part.name))?;
                if shutdown.is_cancelled() {
                    return Ok(());
                }
                if is_first && status.code() == Some(REFUSED) {
                    let reason = said.last_error(&part).await;
                    anyhow::bail!("{} can't work: {reason}", part.name);
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
        is_first = false;
        drop(parent_pipe);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// What a part said before it ended.
struct Said {
    last: Arc<Mutex<String>>,
    relays: Vec<tokio::task::JoinHandle<()>>,
}

impl Said {
    /// Its last error, in its own words.
    async fn last_error(self, part: &Part) -> String {
        for relay in self.relays {
            // A process that it started may hold the pipe open.
            let _ = tokio::time::timeout(Duration::from_secs(1), relay).await;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !part.bound {
            let log = std::fs::read_to_string(log_of(part)).unwrap_or_default();
            last = log.lines().rev().find_map(error_of).unwrap_or_default().to_owned();
        }
        if last.is_empty() { "it didn't say why; look at its lines above".to_owned() } else { last }
    }
}

/// How every role says why it ends.
fn error_of(line: &str) -> Option<&str> {
    line.strip_prefix("error: ")
}

fn log_of(part: &Part) -> PathBuf {
    part.pid_file.with_extension("log")
}

fn start(part: &Part) -> anyhow::Result<(Child, Said)> {
    let executable = std::env::current_exe().context("failed to find this executable")?;
    let mut command = Command::new(executable);
    command.args(&part.args).envs(part.env.iter().cloned());
    // Named by a flag perhaps, which the parts weren't given.
    if let Some(file) = pipeyard_trust::file() {
        command.env("PIPEYARD_CA_FILE", file);
    }
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
        let log = log_of(part);
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
    let last: Arc<Mutex<String>> = Arc::default();
    let mut relays = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        relays.push(tokio::spawn(relay(part.name.clone(), stdout, Arc::clone(&last))));
    }
    if let Some(stderr) = child.stderr.take() {
        relays.push(tokio::spawn(relay(part.name.clone(), stderr, Arc::clone(&last))));
    }
    Ok((child, Said { last, relays }))
}

/// Passes a part's lines on to standard error, each with the part's name.
async fn relay(name: String, from: impl AsyncRead + Unpin, last: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(error) = error_of(&line) {
            error.clone_into(&mut last.lock().unwrap_or_else(PoisonError::into_inner));
        }
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
    // Not waited for yet, so its id is still its own.
    if let Some(process) = child.id().and_then(|id| Process::of(id).ok()) {
        let _ = process.signal(rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        tracing::warn!(part = %part.name, "a part didn't end in time; killing it");
        child.kill().await.with_context(|| format!("failed to kill {}", part.name))?;
    }
    let _ = std::fs::remove_file(&part.pid_file);
    Ok(())
}

/// The process that works in this folder in this role. `pid_file` is only looked at for a process of
/// a version that held no lock: then its command line must name the folder.
#[must_use]
pub(crate) fn running(folder: &Path, role: Role, pid_file: &Path) -> Option<Process> {
    pipeyard_home::holder(folder, role).or_else(|| unlocked(folder, role, pid_file))
}

fn unlocked(folder: &Path, role: Role, pid_file: &Path) -> Option<Process> {
    let pid: u32 = std::fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let process = Process::of(pid).ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|b| *b == 0).map(String::from_utf8_lossy).skip(1);
    let is_role = words.next().is_some_and(|arg| arg == role.as_str());
    let is_here = words.any(|arg| Path::new(arg.as_ref()).starts_with(folder));
    // Looked at again: the id may have passed on meanwhile.
    (is_role && is_here && process.is_alive()).then_some(process)
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
