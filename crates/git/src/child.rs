//! The `git` child process: an environment made from nothing, configuration that is ours alone, a
//! deadline, capped output, and a process group that ends with its owner.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use base64::Engine as _;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
};

use crate::{Credentials, GitError, GitResult, RemoteUrl};

/// Kept of what git says on stderr: its end, where the reason is.
const STDERR_KEPT: usize = 16 * 1024;
/// Variables that may pass from our environment: how to find programs, proxies, CAs, SSH's agent.
const PASSED: [&str; 16] = [
    "PATH",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "SYSTEMROOT",
];

/// One git command.
#[derive(Debug)]
pub(crate) struct Git {
    what: &'static str,
    command: Command,
    config: Vec<(String, String)>,
    deadline: Duration,
    max_output: usize,
}

/// What a command that ended gave.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    /// The end of stderr, on one line, without control characters.
    pub(crate) stderr: String,
}

impl Git {
    /// `git <what>`, allowed to use no transport at all.
    pub(crate) fn new(what: &'static str, deadline: Duration) -> Self {
        Self::by(Command::new("git"), what, deadline)
    }

    /// The same with the usual file mask, whatever ours is: files of a workspace keep the modes that
    /// people know, and what is built from them is readable where it is deployed.
    pub(crate) fn for_others(what: &'static str, deadline: Duration) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "umask 022; exec git \"$@\"", "git"]);
        Self::by(shell, what, deadline)
    }

    /// The same, and no file that it writes becomes larger than this: a pack is one file.
    pub(crate) fn limited(what: &'static str, deadline: Duration, bytes: u64) -> Self {
        let mut shell = Command::new("/bin/sh");
        // In blocks of 512 bytes.
        shell.args(["-c", "ulimit -f \"$0\" && exec git \"$@\""]).arg((bytes / 512).to_string());
        // Few objects would be written one by one otherwise.
        Self::by(shell, what, deadline).config("fetch.unpackLimit", "1")
    }

    fn by(mut command: Command, what: &'static str, deadline: Duration) -> Self {
        command
            .arg(what)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in PASSED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("LC_ALL", "C")
            .env("HOME", "/nonexistent")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "false")
            .env("GIT_ALLOW_PROTOCOL", "none")
            .env(
                "GIT_SSH_COMMAND",
                "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oConnectTimeout=20",
            )
            .env("GIT_SSH_VARIANT", "ssh")
            .current_dir("/")
            .process_group(0)
            .kill_on_drop(true);
        let config = [
            ("core.hooksPath", "/dev/null"),
            ("core.attributesFile", "/dev/null"),
            ("core.excludesFile", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.protectHFS", "true"),
            ("core.protectNTFS", "true"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("protocol.version", "2"),
            ("credential.helper", ""),
            ("http.followRedirects", "false"),
            ("http.lowSpeedLimit", "100"),
            ("http.lowSpeedTime", "60"),
            ("submodule.recurse", "false"),
            ("advice.detachedHead", "false"),
        ];
        let config = config.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        Self { what, command, config, deadline, max_output: 64 * 1024 }
    }

    /// Believes the authorities in this file. Those in the system's folder are believed beside it.
    pub(crate) fn believe(mut self, ca_file: Option<&Path>) -> Self {
        if let Some(file) = ca_file {
            self.command.env("GIT_SSL_CAINFO", file);
        }
        self
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.command.args(args);
        self
    }

    /// The bare repository to work on; it may belong to another user of the machine.
    pub(crate) fn repository(mut self, path: &Path) -> Self {
        self.command.env("GIT_DIR", path);
        self.trust(path)
    }

    /// Where to run.
    pub(crate) fn current_dir(mut self, path: &Path) -> Self {
        self.command.current_dir(path);
        self
    }

    /// Reads this repository although another user owns it.
    pub(crate) fn trust(self, path: &Path) -> Self {
        self.config("safe.directory", path.to_string_lossy())
    }

    /// Sets a configuration variable for this command, by the environment.
    pub(crate) fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.push((key.into(), value.into()));
        self
    }

    /// Asks the remote itself and no proxy, whatever the environment says.
    pub(crate) fn direct_if(self, direct: bool) -> Self {
        if direct { self.config("http.proxy", "") } else { self }
    }

    pub(crate) fn env(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.command.env(key, value.into());
        self
    }

    /// Allows exactly these transports, separated by colons.
    pub(crate) fn protocols(self, names: &str) -> Self {
        self.env("GIT_ALLOW_PROTOCOL", names)
    }

    /// Allows the remote's transport, and gives its credentials by the environment.
    pub(crate) fn remote(mut self, url: &RemoteUrl, credentials: Option<&Credentials>) -> Self {
        self = self.protocols(url.protocol());
        if let Some(resolved) = url.resolved() {
            self = self.config("http.curloptResolve", resolved);
        }
        match credentials {
            Some(credentials) => self.basic_auth(&credentials.user, &credentials.password),
            None => self,
        }
    }

    /// Sends an Authorization header to HTTP remotes.
    pub(crate) fn basic_auth(self, user: &str, password: &str) -> Self {
        let encoded =
            base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.config("http.extraHeader", format!("Authorization: Basic {encoded}"))
    }

    /// How many bytes of stdout are read before the command is ended.
    pub(crate) fn max_output(mut self, bytes: usize) -> Self {
        self.max_output = bytes;
        self
    }

    pub(crate) fn piped_input(mut self) -> Self {
        self.command.stdin(Stdio::piped());
        self
    }

    /// Starts it; it ends with the value that is returned.
    pub(crate) fn spawn(mut self) -> GitResult<Running> {
        self.command.env("GIT_CONFIG_COUNT", self.config.len().to_string());
        for (i, (key, value)) in self.config.iter().enumerate() {
            self.command.env(format!("GIT_CONFIG_KEY_{i}"), key);
            self.command.env(format!("GIT_CONFIG_VALUE_{i}"), value);
        }
        let child = self.command.spawn().map_err(GitError::NoGit)?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Running { group: Group(group), child })
    }

    /// Runs it to its end.
    pub(crate) async fn run(self) -> GitResult<Output> {
        let (what, deadline, max_output) = (self.what, self.deadline, self.max_output);
        let mut running = self.spawn()?;
        let stdout = running.child.stdout.take();
        let stderr = running.child.stderr.take();
        let work = async {
            let read = async {
                let (stdout, stderr) =
                    tokio::join!(read_capped(stdout, max_output), read_end(stderr));
                stdout.map(|stdout| (stdout, stderr))
            };
            // Over the cap: the rest is not waited for.
            let (stdout, stderr) = read.await.map_err(|_| GitError::TooLarge {
                what: format!("the output of git {what}"),
                limit: max_output,
            })?;
            let status = running
                .child
                .wait()
                .await
                .map_err(|e| GitError::io(format!("wait for git {what}"), e))?;
            Ok(Output { status, stdout, stderr: printable(&stderr) })
        };
        let ended = tokio::time::timeout(deadline, work).await;
        if matches!(ended, Ok(Ok(_))) {
            running.group.disarm();
        }
        ended.unwrap_or(Err(GitError::TimedOut { what, seconds: deadline.as_secs() }))
    }
}

/// A command at work. Dropping it ends it and everything that it started.
#[derive(Debug)]
pub(crate) struct Running {
    // Before the child: the group is ended while its leader isn't reaped, so that the number can't
    // belong to anybody else.
    group: Group,
    pub(crate) child: Child,
}

impl Running {
    /// Waits for its end, which then needs no force.
    pub(crate) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.group.disarm();
        Ok(status)
    }
}

#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone already: fine.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Everything, or an error beyond `limit` bytes.
async fn read_capped(from: Option<impl AsyncRead + Unpin>, limit: usize) -> Result<Vec<u8>, ()> {
    let Some(from) = from else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    let cap = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    // A pipe that breaks is an end; the exit status tells whether it was a good one.
    let _ = from.take(cap).read_to_end(&mut bytes).await;
    if bytes.len() > limit { Err(()) } else { Ok(bytes) }
}

/// The last bytes.
async fn read_end(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut from) = from else { return Vec::new() };
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(n) = from.read(&mut chunk).await {
        if n == 0 {
            break;
        }
        kept.extend_from_slice(&chunk[..n]);
        if kept.len() > 2 * STDERR_KEPT {
            kept.drain(..kept.len() - STDERR_KEPT);
        }
    }
    kept
}

/// The last lines as one, for a message: a remote's words are hostile text.
fn printable(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> =
        text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(6)..].join("; ");
    last.chars().filter(|c| !c.is_control()).take(800).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_beyond_the_cap_and_a_passed_deadline_end_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let git = |deadline| {
            Git::new("-c", Duration::from_millis(deadline))
                .args(["alias.x=!yes", "x"])
                .current_dir(dir.path())
        };
        assert!(matches!(git(20_000).run().await, Err(GitError::TooLarge { .. })));
        let slow = Git::new("-c", Duration::from_millis(200))
            .args(["alias.x=!sleep 100", "x"])
            .current_dir(dir.path());
        assert!(matches!(slow.run().await, Err(GitError::TimedOut { .. })));
    }

    #[tokio::test]
    async fn the_users_configuration_is_not_read() {
        let output = Git::new("config", Duration::from_secs(20))
            .args(["--list", "--show-scope"])
            .run()
            .await
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().all(|line| line.starts_with("command")), "{text}");
    }

    #[test]
    fn a_remotes_words_lose_their_escape_codes() {
        assert_eq!(printable(b"remote: \x1b[31mno\x07\nfatal: x\n"), "remote: [31mno; fatal: x");
    }
}
