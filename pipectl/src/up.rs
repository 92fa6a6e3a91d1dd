//! `pipectl up`: the whole of Pipeyard on one machine, each part a process of its own.
//!
//! Everything is under one data folder. The parts find each other by addresses and files that are
//! decided here; nothing is passed in an argument that others could read from the process list.

use std::{fs, io::Write as _, net::SocketAddr, path::PathBuf, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::supervise::{self, Part};

/// By these an existing data folder is known as one of `up`.
pub(crate) const OURS: &[&str] = &["runner-token", "server", "runner", "fleet", "proxy"];
/// By these the folder of a part is.
const PARTS: &[&str] =
    &["routes.json", "token", "fleet.db", "credentials.json", "pipeyard.sqlite", "key", "lock"];

/// Runs everything on this machine.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Up {
    /// Where everything is kept.
    #[arg(long = "data", env = "PIPEYARD_DATA", default_value = "pipeyard-data")]
    pub(crate) data: PathBuf,
    /// UI, API and webhooks.
    #[arg(long, env = "PIPEYARD_LISTEN", default_value = "127.0.0.1:8470")]
    pub(crate) listen: SocketAddr,
    /// The embedded CodeDeploy.
    #[arg(long, env = "PIPEYARD_FLEET_LISTEN", default_value = "127.0.0.1:8471")]
    pub(crate) fleet_listen: SocketAddr,
    /// The proxy's own control address.
    #[arg(long, env = "PIPEYARD_PROXY_ADMIN", default_value = "127.0.0.1:8472")]
    pub(crate) proxy_admin: SocketAddr,
    /// How many jobs run at a time.
    #[arg(long, env = "PIPEYARD_SLOTS", default_value_t = 2)]
    pub(crate) slots: u32,
    /// What executes jobs.
    #[arg(long, env = "PIPEYARD_EXECUTOR", default_value = "docker")]
    pub(crate) executor: String,
    /// Stop the proxy too when this ends; otherwise it goes on serving.
    #[arg(long)]
    pub(crate) stop_proxy: bool,
}

/// The parts and where they keep things.
#[derive(Debug)]
pub(crate) struct Layout {
    /// In the order of their start.
    pub(crate) parts: Vec<Part>,
    /// The proxy's pid file.
    pub(crate) proxy_pid: PathBuf,
}

impl Up {
    /// Makes the folders and says which processes to run.
    ///
    /// # Errors
    /// When the data folder can't be made or written.
    pub(crate) fn layout(&self) -> anyhow::Result<Layout> {
        let data = pipeyard_private::folder(&self.data, OURS)?;
        let token = data.join("runner-token");
        if !token.exists() {
            pipeyard_private::write(&token, new_token().as_bytes())?;
        }
        let at = |name: &str| data.join(name).display().to_string();
        let part = |name: &str, args: Vec<String>, bound: bool| Part {
            name: name.to_owned(),
            args: std::iter::once(name.to_owned()).chain(args).collect(),
            env: Vec::new(),
            bound,
            pid_file: data.join(format!("{name}.pid")),
        };
        for name in ["proxy", "fleet", "server", "runner"] {
            pipeyard_private::folder(&data.join(name), PARTS)?;
        }
        let token = token.display().to_string();
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let listen = self.listen.to_string();
        let url = format!("http://{listen}");
        let slots = self.slots.to_string();
        let fleet = self.fleet_listen.to_string();
        let admin = self.proxy_admin.to_string();
        let parts = vec![
            part(
                "proxy",
                strings(&[
                    "--admin",
                    &admin,
                    "--token-file",
                    &at("proxy/token"),
                    "--state-file",
                    &at("proxy/routes.json"),
                ]),
                false,
            ),
            part(
                "fleet",
                strings(&[
                    "--data",
                    &at("fleet"),
                    "--listen",
                    &fleet,
                    "--proxy-admin",
                    &admin,
                    "--proxy-token-file",
                    &at("proxy/token"),
                    "--region",
                    "local",
                ]),
                true,
            ),
            part(
                "server",
                strings(&[
                    "--data",
                    &at("server"),
                    "--listen",
                    &listen,
                    "--runner-token-file",
                    &token,
                    "--credentials",
                    &format!("fleet={}", at("fleet/credentials.json")),
                ]),
                true,
            ),
            part(
                "runner",
                strings(&[
                    "--server",
                    &url,
                    "--data",
                    &at("runner"),
                    "--token-file",
                    &token,
                    "--slots",
                    &slots,
                    "--executor",
                    &self.executor,
                    "--name",
                    "local",
                ]),
                true,
            ),
        ];
        Ok(Layout { proxy_pid: data.join("proxy.pid"), parts })
    }

    /// Runs every part until `shutdown`.
    ///
    /// # Errors
    /// When a part can't be started at all.
    pub(crate) async fn run(&self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let layout = self.layout()?;
        let tasks = TaskTracker::new();
        for part in layout.parts {
            let stop = shutdown.clone();
            if part.name == "proxy" {
                if let Some(pid) = supervise::running(&layout.proxy_pid, "proxy") {
                    tracing::info!(
                        pid = pid.as_raw_nonzero().get(),
                        "the proxy of an earlier start serves on"
                    );
                    tasks.spawn(adopt(part, pid, stop, self.stop_proxy));
                    continue;
                }
                if !self.stop_proxy {
                    tasks.spawn(keep_unbound(part, stop));
                    continue;
                }
            }
            let server = self.address();
            tasks.spawn(async move {
                // It would ask a server that isn't there yet, and complain.
                if part.name == "runner" {
                    ready(&server, &stop).await;
                }
                if let Err(error) = supervise::keep_running(part, stop.clone()).await {
                    tracing::error!(error = format!("{error:#}"), "a part can't be run");
                    stop.cancel();
                }
            });
        }
        shutdown.cancelled().await;
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
}

impl Up {
    /// Where the server is asked from this machine.
    fn address(&self) -> String {
        let mut listen = self.listen;
        if listen.ip().is_unspecified() {
            listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{listen}")
    }

    /// Says, once the server is ready, where everything is and what comes next.
    pub(crate) async fn announce(&self, shutdown: &CancellationToken) {
        let address = self.address();
        if !ready(&address, shutdown).await {
            return;
        }
        let data = fs::canonicalize(&self.data).unwrap_or_else(|_| self.data.clone());
        let proxy = if self.stop_proxy { "" } else { "; the proxy goes on serving" };
        let _ = writeln!(
            std::io::stderr().lock(),
            "\nPipeyard is ready: {address}\n  \
             data     {}\n  \
             sign in  by the link above, or: pipectl login {address}\n  \
             next     pipectl repos add PATH-OR-URL\n  \
             stop     Ctrl-C{proxy}\n",
            data.display()
        );
    }
}

/// How long the server may take to become ready before nobody waits for it any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the server is ready; `false` if it isn't in time, or everything ends before.
async fn ready(address: &str, shutdown: &CancellationToken) -> bool {
    let Ok(client) = pipeyard_api::client::Client::new(address, None) else { return false };
    let asked = async {
        while client.open("/readyz", &[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        asked = tokio::time::timeout(PATIENCE, asked) => asked.is_ok(),
        () = shutdown.cancelled() => false,
    }
}

/// Keeps an unbound part running; at the end it is left alone.
async fn keep_unbound(part: Part, shutdown: CancellationToken) {
    let name = part.name.clone();
    tokio::select! {
        ended = supervise::keep_running(part, CancellationToken::new()) => {
            if let Err(error) = ended {
                tracing::error!(part = %name, error = format!("{error:#}"), "a part can't be run");
                shutdown.cancel();
            }
        }
        () = shutdown.cancelled() => {}
    }
}

/// Watches a proxy that an earlier `up` started, and takes over when it dies.
async fn adopt(part: Part, pid: rustix::process::Pid, shutdown: CancellationToken, stop: bool) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                if supervise::running(&part.pid_file, &part.name).is_none() {
                    return keep_unbound(part, shutdown).await;
                }
            }
            () = shutdown.cancelled() => {
                if stop {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                }
                return;
            }
        }
    }
}

/// 32 random bytes in hex: two UUIDs of version 4 hold 244 random bits.
fn new_token() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}
