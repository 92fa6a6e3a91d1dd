//! Running one script: an empty environment, a process group of its own, a timeout that ends the
//! whole group, and output that a detached child can't hold up.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

use super::user;
use crate::{
    appspec::Hook,
    deployment::{Diagnostics, LifecycleErrorCode},
};

/// How much of the output is kept.
const TAIL: usize = 2_048;
/// After the script ended, output that is on its way may take this long; a child that keeps the
/// pipe open isn't waited for.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Ends a process group when it is dropped: on a timeout, on a cancel, when the agent ends. A
/// script that ended by itself may leave children behind; that is how services are started.
struct Group(Option<rustix::process::Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Runs a script of the bundle, as the user that it names or else as `default`. `left` is what remains of the event's time; `running` is the file
/// that tells the next start of the agent what to end if this one is killed.
pub(super) async fn run(
    bundle: &Path,
    hook: &Hook,
    environment: &[(String, String)],
    left: Duration,
    default: Option<&str>,
    running: &Path,
) -> Diagnostics {
    let ended = |code: LifecycleErrorCode, message: String, log: String| Diagnostics {
        error_code: code,
        script_name: hook.location.clone(),
        message,
        log_tail: log,
    };
    let path = match crate::archive::relative(Path::new(&hook.location)) {
        Some(inside) => bundle.join(inside),
        None => {
            let text = format!("{} leaves the bundle", hook.location);
            return ended(LifecycleErrorCode::ScriptMissing, text, String::new());
        }
    };
    if let Err(error) = make_executable(&path) {
        let code = if error.kind() == io::ErrorKind::NotFound {
            LifecycleErrorCode::ScriptMissing
        } else {
            LifecycleErrorCode::ScriptNotExecutable
        };
        return ended(code, format!("{}: {error}", hook.location), String::new());
    }
    let become_whom = match user::resolve(hook.user.as_deref().or(default)) {
        Ok(user) => user,
        Err(text) => {
            let text = format!("{}: {text}", hook.location);
            return ended(LifecycleErrorCode::ScriptNotExecutable, text, String::new());
        }
    };
    let mut command = Command::new(&path);
    command
        .current_dir(bundle)
        .env_clear()
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .envs(become_whom.iter().flat_map(user::RunAs::environment))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = match user::spawn(&mut command, become_whom.as_ref()) {
        Ok(child) => child,
        Err(error) => {
            let text = format!("{} can't be executed: {error}", hook.location);
            return ended(LifecycleErrorCode::ScriptNotExecutable, text, String::new());
        }
    };
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(pid.and_then(rustix::process::Pid::from_raw));
    let _running = Running::note(running, pid);
    let output = Output::default();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let readers = async {
        tokio::join!(output.read(stdout), output.read(stderr));
    };
    let limit = hook.timeout.min(left);
    let began = Instant::now();
    let status = {
        let mut readers = std::pin::pin!(readers);
        let mut open = true;
        let mut deadline = std::pin::pin!(tokio::time::sleep(limit));
        let status = loop {
            tokio::select! {
                () = &mut readers, if open => open = false,
                status = child.wait() => break Some(status),
                () = &mut deadline => break None,
            }
        };
        if status.is_some() && open {
            let _ = tokio::time::timeout(LAST_WORDS, &mut readers).await;
        }
        status
    };
    let log = output.take();
    match status {
        None => {
            drop(group);
            let text = format!("{} took longer than {} s", hook.location, limit.as_secs());
            ended(LifecycleErrorCode::ScriptTimedOut, text, log)
        }
        Some(Ok(status)) if status.success() => {
            group.0 = None;
            let text = format!("{} took {:.1} s", hook.location, began.elapsed().as_secs_f64());
            ended(LifecycleErrorCode::Success, text, log)
        }
        Some(Ok(status)) => {
            let text = format!("{} ended with {status}", hook.location);
            ended(LifecycleErrorCode::ScriptFailed, text, log)
        }
        Some(Err(error)) => ended(LifecycleErrorCode::UnknownError, error.to_string(), log),
    }
}

/// Which process runs, on disk for as long as it does.
struct Running<'a>(&'a Path);

impl<'a> Running<'a> {
    fn note(path: &'a Path, pid: Option<i32>) -> Self {
        if let Some(pid) = pid
            && let Err(error) = std::fs::write(path, format!("{pid} {}", birth(pid)))
        {
            tracing::warn!(%error, "a hook's process can't be noted");
        }
        Self(path)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

/// When a process began, in clock ticks since boot: with its number it names one process.
fn birth(pid: i32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    after_name.split(' ').nth(19).unwrap_or_default().to_owned()
}

/// Ends the hook that an agent that was killed left behind.
pub(super) fn end_leftover(running: &Path) {
    let Ok(text) = std::fs::read_to_string(running) else { return };
    let _ = std::fs::remove_file(running);
    let Some((pid, born)) = text.split_once(' ') else { return };
    if let Ok(pid) = pid.parse::<i32>()
        && !born.is_empty()
        && birth(pid) == born
        && let Some(pid) = rustix::process::Pid::from_raw(pid)
    {
        tracing::warn!(pid = pid.as_raw_nonzero().get(), "a hook of the agent before is ended");
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

/// A missing execute bit is repaired, as CodeDeploy does.
fn make_executable(path: &Path) -> io::Result<()> {
    let found = std::fs::metadata(path)?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "not a file"));
    }
    let mode = found.permissions().mode();
    if mode & 0o100 == 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | 0o755))?;
    }
    Ok(())
}

/// The end of what both streams wrote.
#[derive(Default)]
struct Output(std::sync::Mutex<Vec<u8>>);

impl Output {
    async fn read(&self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut buffer = vec![0; 8 << 10];
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            let mut kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            kept.extend_from_slice(&buffer[..n]);
            let excess = kept.len().saturating_sub(TAIL);
            kept.drain(..excess);
        }
    }

    fn take(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(script: &str, timeout: u64) -> (Diagnostics, Duration) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("hook.sh"), script).unwrap();
        let hook =
            Hook { location: "hook.sh".into(), user: None, timeout: Duration::from_secs(timeout) };
        let environment = [("NAME".to_owned(), "value".to_owned())];
        let began = Instant::now();
        let (left, running) = (Duration::from_secs(3_600), folder.path().join("running"));
        let done = run(folder.path(), &hook, &environment, left, None, &running).await;
        assert!(!running.exists());
        (done, began.elapsed())
    }

    #[tokio::test]
    async fn a_hook_sees_only_what_it_was_given() {
        let (done, _) = check("#!/bin/sh\nexec /usr/bin/env\n", 10).await;
        assert_eq!(done.error_code, LifecycleErrorCode::Success, "{done:?}");
        let mut names: Vec<&str> =
            done.log_tail.lines().filter_map(|line| line.split('=').next()).collect();
        // The shell itself sets PWD.
        names.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name));
        assert_eq!(names, ["NAME"]);
    }

    #[tokio::test]
    async fn a_failure_carries_code_and_log() {
        let (done, _) = check("#!/bin/sh\necho out; echo err >&2; exit 3\n", 10).await;
        assert_eq!(done.error_code, LifecycleErrorCode::ScriptFailed);
        assert!(done.message.contains('3') && done.log_tail.contains("out"), "{done:?}");
        assert!(done.log_tail.contains("err"));
        let (done, _) = check("no interpreter \u{0}", 10).await;
        assert_eq!(done.error_code, LifecycleErrorCode::ScriptNotExecutable);
    }

    #[tokio::test]
    async fn a_timeout_ends_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!(
            "#!/bin/sh\ntrap '' TERM\n(trap '' TERM; echo $$ >/dev/null; exec sleep 600) &\n\
             echo $! > {}\nwait\n",
            file.display()
        );
        let (done, took) = check(&script, 1).await;
        assert_eq!(done.error_code, LifecycleErrorCode::ScriptTimedOut);
        assert!(took < Duration::from_secs(10), "{took:?}");
        let pid = std::fs::read_to_string(&file).unwrap().trim().to_owned();
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        for _ in 0..100 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the child {pid} lives");
    }

    #[tokio::test]
    async fn a_child_that_keeps_the_output_open_holds_nothing_up() {
        let (done, took) = check("#!/bin/sh\necho started\nsleep 5 &\n", 60).await;
        assert_eq!(done.error_code, LifecycleErrorCode::Success);
        assert!(done.log_tail.contains("started"));
        assert!(took < Duration::from_secs(4), "{took:?}");
    }

    #[tokio::test]
    async fn a_flood_of_output_is_cut_to_its_end() {
        let script = "#!/bin/sh\nfor i in $(seq 20000); do echo line $i; done\n";
        let (done, _) = check(script, 60).await;
        assert!(done.log_tail.len() <= TAIL && done.log_tail.ends_with("line 20000\n"));
    }

    #[tokio::test]
    async fn a_hook_runs_as_the_user_that_it_names() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(
            folder.path().join("hook.sh"),
            "#!/bin/sh\nid -u; id -un; id -G; echo $HOME $USER\n",
        )
        .unwrap();
        let running = folder.path().join("running");
        let as_user = async |user: Option<&str>, default: Option<&str>| {
            let hook = Hook {
                location: "hook.sh".into(),
                user: user.map(str::to_owned),
                timeout: Duration::from_secs(10),
            };
            run(folder.path(), &hook, &[], hook.timeout, default, &running).await
        };
        let missing = as_user(Some("no-such-user"), None).await;
        assert!(missing.message.contains("no-such-user"), "{missing:?}");
        if !rustix::process::geteuid().is_root() {
            assert!(as_user(Some("root"), None).await.message.contains("can't become root"));
            return;
        }
        let nobody = as_user(Some("nobody"), None).await;
        assert_eq!(nobody.error_code, LifecycleErrorCode::Success, "{nobody:?}");
        let lines: Vec<&str> = nobody.log_tail.lines().collect();
        assert_eq!(lines[1], "nobody");
        assert!(
            !lines[2].split(' ').any(|group| group == "0"),
            "root's groups are gone: {lines:?}"
        );
        assert!(lines[3].ends_with(" nobody"), "{lines:?}");
        assert_eq!(as_user(None, Some("nobody")).await.log_tail, nobody.log_tail);
        assert!(as_user(Some("root"), Some("nobody")).await.log_tail.starts_with("0\n"));
        // The agent itself is still who it was.
        assert!(rustix::process::geteuid().is_root());
        assert!(as_user(None, None).await.log_tail.starts_with("0\n"));
    }
}
