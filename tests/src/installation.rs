//! One installation: a server, a runner and a signed-in profile of `pipectl`, each started from the
//! real binary, each to be killed and started again at will.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::wait::until;

/// How to start an installation.
#[derive(Debug, Clone)]
pub struct Options {
    /// `docker`, `local` or `fake`.
    pub executor: &'static str,
    /// Jobs at a time.
    pub slots: u32,
    /// Extra lines of the server's environment.
    pub env: Vec<(&'static str, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { executor: "docker", slots: 4, env: Vec::new() }
    }
}

/// A running installation. Everything that it started ends when it is dropped.
#[derive(Debug)]
pub struct Installation {
    /// Its folder.
    pub dir: TempDir,
    /// Where the server listens.
    pub listen: SocketAddr,
    options: Options,
    server: Option<Child>,
    runner: Option<Child>,
}

/// The executable under test.
#[must_use]
pub fn pipectl() -> PathBuf {
    std::env::var_os("PIPECTL").map_or_else(
        || {
            // target/debug/deps/scenarios-... -> target/debug/pipectl
            let mut path = std::env::current_exe().expect("this executable");
            path.pop();
            path.pop();
            path.join("pipectl")
        },
        PathBuf::from,
    )
}

/// An address of loopback that nobody listens on.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port")
}

impl Installation {
    /// Starts a server and a runner and signs in.
    pub async fn start(options: Options) -> Self {
        let mut it = Self::server_only(options).await;
        it.start_runner();
        until("the runner registers", Duration::from_secs(20), async || {
            it.json(&["runners", "list"]).as_array().is_some_and(|r| !r.is_empty()).then_some(())
        })
        .await;
        it
    }

    /// Starts a server and signs in.
    ///
    /// # Panics
    /// When it doesn't come up or the login is refused.
    pub async fn server_only(options: Options) -> Self {
        pipeyard_api::client::install_crypto();
        let dir = TempDir::new().expect("a temporary folder");
        let mut it = Self { dir, listen: free_address(), options, server: None, runner: None };
        let token = it.path("runner-token");
        fs::write(
            &token,
            format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()),
        )
        .expect("write the runner's token");
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600))
            .expect("close the token's file");
        it.start_server().await;
        let code =
            it.pipectl_ok(&["login-code", "--data", &it.path("server").display().to_string()]);
        let _ = it.pipectl_ok(&["login", &it.url(), "--code", code.trim()]);
        it
    }

    /// A path in the installation's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The server's address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    fn log(&self, name: &str) -> fs::File {
        fs::File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{name}.log")))
            .expect("open a log")
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Panics
    /// When it doesn't come up; its log is in the message.
    pub async fn start_server(&mut self) {
        let child = Command::new(pipectl())
            .args(["server", "--listen", &self.listen.to_string(), "--data"])
            .arg(self.path("server"))
            .arg("--runner-token-file")
            .arg(self.path("runner-token"))
            .envs(self.options.env.iter().map(|(k, v)| (*k, v.clone())))
            .stdin(Stdio::null())
            .stdout(self.log("server"))
            .stderr(self.log("server"))
            .spawn()
            .expect("start the server");
        self.server = Some(child);
        let ready = format!("{}/readyz", self.url());
        let log = self.path("server.log");
        until(
            &format!("the server is ready, see {}", log.display()),
            Duration::from_secs(30),
            async || {
                reqwest::get(&ready).await.ok().filter(|r| r.status().is_success()).map(|_| ())
            },
        )
        .await;
    }

    /// Starts the runner.
    ///
    /// # Panics
    /// When the process can't be started.
    pub fn start_runner(&mut self) {
        let child = Command::new(pipectl())
            .args(["runner", "--server", &self.url(), "--name", "test"])
            .args([
                "--executor",
                self.options.executor,
                "--slots",
                &self.options.slots.to_string(),
                "--data",
            ])
            .arg(self.path("runner"))
            .arg("--token-file")
            .arg(self.path("runner-token"))
            .stdin(Stdio::null())
            .stdout(self.log("runner"))
            .stderr(self.log("runner"))
            .spawn()
            .expect("start the runner");
        self.runner = Some(child);
    }

    /// The server's process.
    #[must_use]
    pub fn server_pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// The runner's process.
    #[must_use]
    pub fn runner_pid(&self) -> Option<u32> {
        self.runner.as_ref().map(Child::id)
    }

    /// The API with this installation's token.
    ///
    /// # Panics
    /// When nobody is signed in.
    #[must_use]
    pub fn client(&self) -> pipeyard_api::client::Client {
        let file = self.path("config/pipeyard/config.toml");
        let text = fs::read_to_string(file).expect("the profile");
        let token = text
            .lines()
            .find_map(|l| l.strip_prefix("token = "))
            .expect("a token")
            .trim_matches('"');
        pipeyard_api::client::Client::new(&self.url(), Some(token.to_owned())).expect("a client")
    }

    /// Kills the server with SIGKILL.
    pub fn kill_server(&mut self) {
        kill(&mut self.server);
    }

    /// Kills the runner with SIGKILL.
    pub fn kill_runner(&mut self) {
        kill(&mut self.runner);
    }

    /// Runs `pipectl` with this installation's profile.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn pipectl(&self, args: &[&str]) -> Output {
        Command::new(pipectl())
            .args(args)
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("HOME", self.dir.path())
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

    /// The same with `--output json`.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    #[must_use]
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        let text = self.pipectl_ok(&all);
        serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("pipectl {args:?} printed no JSON ({e}): {text}"))
    }

    /// Tells Pipeyard about a repository and installs its hook.
    pub fn add_repo(&self, bare: &Path) {
        let bare = bare.display().to_string();
        let _ = self.pipectl_ok(&["repos", "add", &bare, "--install-hook"]);
    }

    /// Waits until the run of this commit has ended; answers it.
    pub async fn finished_run(&self, commit: &str, within: Duration) -> Value {
        until(&format!("the run of {commit} ends"), within, async || {
            let runs = self.json(&["runs", "list"]);
            let run = runs
                .as_array()?
                .iter()
                .find(|r| r["commit"] == commit && r["status"] == "finished")?;
            Some(self.json(&["runs", "view", &run["id"].to_string()]))
        })
        .await
    }
}

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        self.kill_runner();
        self.kill_server();
        if std::thread::panicking() {
            for name in ["server", "runner"] {
                let log = fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(40).collect();
                eprintln!("--- the end of {name}'s log");
                for line in tail.iter().rev() {
                    eprintln!("{line}");
                }
            }
        }
    }
}
