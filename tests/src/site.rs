//! Everything on one machine, as `pipectl up` runs it: server, runner, fleet and proxy, each a
//! process that can be killed alone and is started again by its supervisor.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    installation::{free_address, pipectl},
    wait::until,
};

/// A running `pipectl up`.
#[derive(Debug)]
pub struct Site {
    /// Its folder.
    pub dir: TempDir,
    /// Where the server listens.
    pub listen: SocketAddr,
    /// Where the fleet listens.
    pub fleet: SocketAddr,
    up: Child,
    hosts: Vec<Child>,
}

impl Site {
    /// Starts everything and signs in.
    ///
    /// # Panics
    /// When it doesn't come up.
    pub async fn start() -> Self {
        pipeyard_api::client::install_crypto();
        let dir = TempDir::new().expect("a temporary folder");
        let (listen, fleet) = (free_address(), free_address());
        let log = fs::File::create(dir.path().join("up.log")).expect("a log");
        let up = Command::new(pipectl())
            .args(["up", "--stop-proxy", "--data"])
            .arg(dir.path().join("data"))
            .args(["--listen", &listen.to_string(), "--fleet-listen", &fleet.to_string()])
            .args(["--proxy-admin", &free_address().to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("start up");
        let it = Self { dir, listen, fleet, up, hosts: Vec::new() };
        until("everything is ready", Duration::from_secs(60), async || {
            let fleet = it.data("fleet/credentials.json").is_file();
            let ready = reqwest::get(format!("http://{listen}/readyz")).await;
            (fleet && ready.is_ok_and(|r| r.status().is_success())).then_some(())
        })
        .await;
        let code =
            it.pipectl_ok(&["login-code", "--data", &it.data("server").display().to_string()]);
        let _ = it.pipectl_ok(&["login", &format!("http://{listen}"), "--code", code.trim()]);
        it
    }

    fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    /// Starts the agent of a host with the tag `role=worker`; answers where its program listens.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn host(&mut self) -> SocketAddr {
        // Where "throw this away" looks for hosts and for what was deployed to them.
        let name = format!("host{}", self.hosts.len() + 1);
        let root = self.data("hosts").join(&name);
        fs::create_dir_all(&root).expect("the host's folder");
        let address = free_address();
        let log = fs::File::create(root.join("agent.log")).expect("a log");
        let fleet = format!("http://{}", self.fleet);
        let credentials = self.data("fleet/credentials.json").display().to_string();
        let at = address.to_string();
        let mut enroll = vec!["fleet", "enroll", &name, "--tags", "role=worker", "--address", &at];
        enroll.extend(["--fleet", &fleet, "--credentials", &credentials]);
        let enrolment = root.join("enrolment");
        fs::write(&enrolment, self.pipectl_ok(&enroll)).expect("the enrolment");
        let agent = Command::new(pipectl())
            .args(["agent", "--fleet", &fleet, "--root"])
            .arg(&root)
            .arg("--enroll-file")
            .arg(enrolment)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("start the agent");
        fs::write(self.data(&format!("{name}.pid")), agent.id().to_string()).expect("its id");
        self.hosts.push(agent);
        address
    }

    /// Kills a part with SIGKILL, by its own process id.
    ///
    /// # Panics
    /// When it isn't running.
    pub fn kill(&self, part: &str) {
        assert!(self.try_kill(part), "{part} wasn't running");
    }

    /// The same; false when it wasn't running.
    ///
    /// # Panics
    /// When it never ran.
    #[must_use]
    pub fn try_kill(&self, part: &str) -> bool {
        let pid = fs::read_to_string(self.data(&format!("{part}.pid"))).expect("a process id");
        Command::new("kill").args(["-9", pid.trim()]).status().expect("kill").success()
    }

    /// Runs `pipectl` with this site's profile.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn pipectl(&self, args: &[&str]) -> Output {
        Command::new(pipectl())
            .args(args)
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .stdin(Stdio::null())
            .output()
            .expect("start pipectl")
    }

    /// The same; answers standard output.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn pipectl_ok(&self, args: &[&str]) -> String {
        let output = self.pipectl(args);
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "pipectl {args:?} ended with {}: {problem}",
            output.status
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same with `--output json`; `None` while the server can't answer.
    #[must_use]
    pub fn json(&self, args: &[&str]) -> Option<Value> {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        let output = self.pipectl(&all);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// Applies environments.
    ///
    /// # Panics
    /// When they are refused.
    pub fn apply(&self, yaml: &str) {
        let file = self.dir.path().join("envs.yml");
        fs::write(&file, yaml).expect("write the environments");
        let _ = self.pipectl_ok(&["envs", "apply", &file.display().to_string()]);
    }

    /// Tells Pipeyard about a repository and installs its hook.
    pub fn add_repo(&self, bare: &Path) {
        let _ = self.pipectl_ok(&["repos", "add", &bare.display().to_string(), "--install-hook"]);
    }

    /// The deployment of this commit, once its state is one of `states`.
    pub async fn deployment(&self, commit: &str, states: &[&str], within: Duration) -> Value {
        until(&format!("the deployment of {commit} is one of {states:?}"), within, async || {
            let list = self.json(&["deploy", "list", "--limit", "100"])?;
            let of_commit = |d: &&Value| d["release"]["commit"] == commit;
            let found = list.as_array()?.iter().find(of_commit)?.clone();
            states.contains(&found["state"].as_str()?).then_some(found)
        })
        .await
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("up.log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
        let _ = Command::new("kill").arg(self.up.id().to_string()).status();
        let _ = self.up.wait();
        for mut host in self.hosts.drain(..) {
            let _ = Command::new("kill").arg(host.id().to_string()).status();
            let _ = host.wait();
        }
        // The program's own words for "throw this away": containers and networks too.
        let _ = Command::new(pipectl())
            .args(["demo", "--down", "--data"])
            .arg(self.dir.path().join("data"))
            .output();
    }
}
