//! This machine: the programs that are started, and which `pipectl` this is.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::Check;

/// A program that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether a server's address is this machine's own.
pub(super) fn is_here(base: &str) -> bool {
    let rest = base.split_once("://").map_or(base, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    ["127.", "localhost", "[::1]"].iter().any(|own| host.starts_with(own))
}

/// Everything of this machine. Docker and Git matter where jobs run.
pub(super) fn checks(runs_jobs: bool) -> Vec<Check> {
    let mut checks = vec![own(), git(runs_jobs), docker(runs_jobs)];
    let folder = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let data = folder("PIPEYARD_SERVER_DATA").unwrap_or_else(|| {
        folder("PIPEYARD_DATA").unwrap_or_else(|| "pipeyard-data".into()).join("server")
    });
    checks.extend(key(&data, folder("PIPEYARD_KEY_FILE")));
    checks
}

/// Whether the master key of a server's data folder on this machine is there: without it the server
/// doesn't start. Nothing if there is no such folder, or the key comes from systemd.
fn key(data: &Path, named: Option<PathBuf>) -> Option<Check> {
    if !data.join("pipeyard.sqlite").is_file()
        || std::env::var_os("CREDENTIALS_DIRECTORY").is_some()
    {
        return None;
    }
    let file = named.unwrap_or_else(|| data.join("key"));
    if file.is_file() {
        return Some(Check::ok("key", format!("the master key is {}", file.display())));
    }
    let problem = format!(
        "key_missing: the master key isn't at {}; the server in {} can't start, and opens no secret without it",
        file.display(),
        data.display()
    );
    let fix = "put the file back from your backup, or name it in PIPEYARD_KEY_FILE; pipectl explain key_missing";
    Some(Check::failed("key", problem, fix))
}

/// Why a program gave no answer.
enum Silent {
    NotThere,
    /// It said this, or this happened to it.
    Failed(String),
}

/// The first line that a program prints.
fn ask(program: &str, args: &[&str]) -> Result<String, Silent> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => Silent::NotThere,
            _ => Silent::Failed(format!("failed to start {program}: {error}")),
        })?;
    let end = Instant::now() + PATIENCE;
    while child.try_wait().is_ok_and(|status| status.is_none()) {
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            let seconds = PATIENCE.as_secs();
            return Err(Silent::Failed(format!("{program} doesn't answer within {seconds} s")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().map_err(|error| Silent::Failed(error.to_string()))?;
    let text = if output.status.success() { &output.stdout } else { &output.stderr };
    let line = String::from_utf8_lossy(text).lines().next().unwrap_or("").trim().to_owned();
    if output.status.success() { Ok(line) } else { Err(Silent::Failed(line)) }
}

fn git(needed: bool) -> Check {
    match ask("git", &["--version"]) {
        Ok(version) => Check::ok("git", version),
        Err(Silent::NotThere) => Check::missing(needed, "git", "not installed", "install Git"),
        Err(Silent::Failed(why)) => {
            Check::missing(needed, "git", why, "git --version should answer")
        }
    }
}

fn docker(needed: bool) -> Check {
    match ask("docker", &["version", "--format", "Docker Engine {{.Server.Version}}"]) {
        Ok(version) => Check::ok("docker", version),
        Err(Silent::NotThere) => Check::missing(
            needed,
            "docker",
            "not installed",
            "install Docker Engine; only a machine that runs jobs needs it",
        ),
        Err(Silent::Failed(why)) => {
            let fix = docker_fix(&why);
            Check::missing(needed, "docker", why, fix)
        }
    }
}

/// What usually helps against what Docker says.
fn docker_fix(why: &str) -> &'static str {
    let why = why.to_lowercase();
    if why.contains("permission denied") {
        "let your user use Docker's socket: sudo usermod -aG docker $USER, then sign in anew"
    } else if why.contains("is the docker daemon running") || why.contains("cannot connect") {
        "start the daemon: sudo systemctl start docker"
    } else {
        "docker version should answer"
    }
}

/// Which `pipectl` this is. Other projects have programs of this name.
fn own() -> Check {
    let version = env!("CARGO_PKG_VERSION");
    let own = match std::env::current_exe().and_then(std::fs::canonicalize) {
        Ok(own) => own,
        Err(error) => return Check::warning("pipectl", error.to_string(), "reinstall it"),
    };
    match first_in_path() {
        Some(other) if other != own => Check::failed(
            "pipectl",
            format!("{} comes first in PATH", other.display()),
            format!("another program is called pipectl too: put {} first", own.display()),
        ),
        Some(_) | None => Check::ok("pipectl", format!("{version}, {}", own.display())),
    }
}

fn first_in_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found =
        std::env::split_paths(&path).map(|dir| dir.join("pipectl")).find(|p| p.is_file())?;
    std::fs::canonicalize(found).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_told_from_others() {
        for here in ["http://127.0.0.1:8470", "http://localhost:1", "http://[::1]:8470"] {
            assert!(is_here(here), "{here}");
        }
        assert!(!is_here("https://ci.example.com"));
    }

    #[test]
    fn dockers_words_lead_to_what_helps() {
        let cases = [
            ("permission denied while trying to connect to the Docker daemon socket", "usermod"),
            ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "systemctl"),
            ("something else", "docker version"),
        ];
        for (said, fix) in cases {
            assert!(docker_fix(said).contains(fix), "{said}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_told_from_one_that_fails() {
        assert!(matches!(ask("pipeyard-no-such-program", &[]), Err(Silent::NotThere)));
        assert!(matches!(ask("false", &[]), Err(Silent::Failed(_))));
        assert!(matches!(ask("echo", &["hello"]), Ok(line) if line == "hello"));
    }
}
