//! Docker going away in the middle of a job, and coming back. The daemon is the test's own.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use pipeyard_executor::{Executor, JobEvent, Renewing};
use pipeyard_model::Conclusion;
use tokio_util::sync::CancellationToken;

use crate::{
    lease::{LEASE, LEDGER, renew},
    support::{BUSYBOX, Stage, spec},
};

/// The bridge of the machine's own Docker.
const BRIDGE: &str = "/sys/class/net/docker0";

/// A second Docker daemon with all its state in one folder and a network namespace of its own: in the
/// machine's it would take down the first one's bridge and rules.
struct Daemon {
    folder: PathBuf,
    process: Child,
}

impl Daemon {
    fn start(folder: &Path) -> Self {
        let process = Self::spawn(folder);
        let daemon = Self { folder: folder.to_owned(), process };
        daemon.wait();
        daemon
    }

    fn spawn(folder: &Path) -> Child {
        let path = |name: &str| folder.join(name).display().to_string();
        let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
        // unshare becomes dockerd, so the child's pid is the daemon's.
        Command::new("unshare")
            .args(["--net", "--", "dockerd", "--bridge=none"])
            .arg(format!("--host=unix://{}", path("sock")))
            .arg(format!("--data-root={}", path("root")))
            .arg(format!("--exec-root={}", path("exec")))
            .arg(format!("--pidfile={}", path("pid")))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn wait(&self) {
        let begun = Instant::now();
        while !self.docker(&["version"]).0 {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let log: Vec<&str> = log.lines().rev().take(5).collect();
            assert!(begun.elapsed() < Duration::from_secs(60), "dockerd doesn't start: {log:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The daemon's containerd dies with it. Where nobody reaps orphans its pid stays taken, which
    /// would keep the next daemon waiting for it.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let file = self.folder.join("exec/containerd/containerd.pid");
        let pid = std::fs::read_to_string(&file).unwrap();
        let begun = Instant::now();
        while is_alive(&pid) {
            assert!(begun.elapsed() < Duration::from_secs(20), "containerd lives on");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::remove_file(file).unwrap();
    }

    fn restart(&mut self) {
        self.process = Self::spawn(&self.folder);
        self.wait();
    }

    fn host(&self) -> String {
        format!("unix://{}", self.folder.join("sock").display())
    }

    fn docker(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new("docker").arg("-H").arg(self.host()).args(arguments).output();
        let output = output.unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn load(&self, image: &str) {
        let mut save =
            Command::new("docker").args(["save", image]).stdout(Stdio::piped()).spawn().unwrap();
        let load = Command::new("docker")
            .args(["-H", &self.host(), "load", "-q"])
            .stdin(save.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(save.wait().unwrap().success() && load.status.success(), "{load:?}");
    }
}

impl Drop for Daemon {
    /// SIGTERM, so that it ends its containerd and its mounts.
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
        let _ = Command::new("umount").arg(self.folder.join("root")).output();
    }
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_going_away_is_an_error_and_it_works_again_when_docker_is_back() {
    let test = "docker_going_away_is_an_error_and_it_works_again_when_docker_is_back";
    if !pipeyard_needs::root(test) {
        return;
    }
    // Short: the path of a socket has at most 107 bytes.
    let folder = tempfile::Builder::new().prefix("dockerd").tempdir().unwrap();
    let Some(outer) = Stage::set(test).await else { return };
    outer.end().await;
    let had_bridge = Path::new(BRIDGE).exists();
    let mut daemon = Daemon::start(folder.path());
    daemon.load(BUSYBOX);
    let host = daemon.host();
    let Some(stage) = Stage::set_with(test, |config| config.host = Some(host)).await else {
        return;
    };

    let mut is_away = false;
    let mut job = stage.job(spec(BUSYBOX, &[LEDGER]));
    let (renewing, lease) = Renewing::begin(tokio::time::Instant::now() + LEASE);
    job.lease = lease;
    let silent = CancellationToken::new();
    tokio::spawn(renew(renewing, silent.clone()));
    let seen = stage
        .run_job(job, CancellationToken::new(), |event| {
            if matches!(event, JobEvent::Output { .. }) && !is_away {
                is_away = true;
                silent.cancel();
                daemon.kill();
            }
        })
        .await;
    seen.is(Conclusion::Error, "docker_lost");
    // Its containers live on without their Docker; the job ended only when they were dead.
    let ledger = stage.workspace().join("ledger");
    let size = std::fs::metadata(&ledger).unwrap().len();
    let seen = stage.run(spec(BUSYBOX, &["echo not reached"])).await;
    seen.is(Conclusion::Error, "docker_unavailable");

    assert_eq!(std::fs::metadata(&ledger).unwrap().len(), size, "a step runs after the job's end");
    daemon.restart();
    let seen = stage.run(spec(BUSYBOX, &["echo back"])).await;
    seen.succeeded();
    assert_eq!(seen.stdout(), "back\n");
    stage.executor.reconcile(&[]).await.unwrap();
    let left = daemon.docker(&["ps", "-aq"]).1;
    assert_eq!(left, "", "containers are left");
    stage.executor.remove_everything().await.unwrap();
    drop(daemon);
    assert_eq!(Path::new(BRIDGE).exists(), had_bridge, "the machine's own Docker lost its bridge");
}
