//! `pipectl up`: the whole of Pipeyard on one machine, each part a process of its own.
//!
//! Everything is under one data folder. The parts find each other by addresses and files that are
//! decided here; nothing is passed in an argument that others could read from the process list.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use pipeyard_home::{Hold, Process, Role};
use pipeyard_model::address::may_listen;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    roles::{TlsFiles, claim, coded},
    supervise::{self, Part},
};

/// By these an existing data folder is known as one of `up`.
pub(crate) const OURS: &[&str] =
    &["runner-token", "server", "runner", "fleet", "proxy", pipeyard_home::HOME];
/// By these the folder of a part is.
const PARTS: &[&str] = &[
    "routes.json",
    "token",
    "fleet.db",
    "credentials.json",
    "pipeyard.sqlite",
    "key",
    "lock",
    pipeyard_home::HOME,
];

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
    #[command(flatten)]
    pub(crate) tls: TlsFiles,
    /// How people, forges and the runner of this machine reach the server; needed with TLS unless the
    /// certificate names 127.0.0.1.
    #[arg(long, env = "PIPEYARD_PUBLIC_URL", value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// A proxy that ends TLS stands in front.
    #[arg(long, env = "PIPEYARD_TRUSTED_PROXY")]
    pub(crate) trusted_proxy: bool,
    /// How many jobs run at a time.
    #[arg(long, env = "PIPEYARD_SLOTS", default_value_t = 2)]
    pub(crate) slots: u32,
    /// What executes jobs.
    #[arg(long, env = "PIPEYARD_EXECUTOR", default_value = "docker")]
    pub(crate) executor: String,
    #[command(flatten)]
    pub(crate) limits: crate::roles::RunnerLimits,
    /// Stop the proxy too when this ends; otherwise it goes on serving.
    #[arg(long)]
    pub(crate) stop_proxy: bool,
}

/// The parts and where they keep things.
#[derive(Debug)]
pub(crate) struct Layout {
    /// In the order of their start.
    pub(crate) parts: Vec<Part>,
    /// The proxy's folder.
    pub(crate) proxy: PathBuf,
}

/// Tells the server which start of it this is; its `/readyz` says it again, so that nobody takes
/// another's server on the same port for the one that was started.
pub(crate) const START: &str = "PIPEYARD_START";
/// The header with which `/readyz` says it.
const START_HEADER: &str = "x-pipeyard-start";

impl Up {
    /// Refuses addresses that would send credentials over a network in clear text.
    ///
    /// # Errors
    /// When one would.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for address in [self.listen, self.fleet_listen] {
            may_listen(address, self.tls.tls_cert.is_some(), self.trusted_proxy)?;
        }
        may_listen(self.proxy_admin, false, false).context("--proxy-admin")
    }

    /// Makes the folders and says which processes to run.
    ///
    /// # Errors
    /// When the data folder can't be made or written.
    pub(crate) fn layout(&self) -> anyhow::Result<Layout> {
        let data = pipeyard_private::folder(&self.data, OURS)?;
        let token = data.join("runner-token");
        // It registers one runner, so the runner of this folder needs one until it is registered.
        if !data.join("runner/identity.json").exists() || !token.exists() {
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
        let url = self.address();
        let slots = self.slots.to_string();
        let fleet = self.fleet_listen.to_string();
        let admin = self.proxy_admin.to_string();
        let mut parts = vec![
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
                ])
                .into_iter()
                .chain(self.limits.arguments())
                .collect(),
                true,
            ),
        ];
        for part in parts.iter_mut().filter(|part| part.name == "server" || part.name == "fleet") {
            part.args.extend(self.reached());
        }
        if let Some(url) = &self.public_url {
            for part in parts.iter_mut().filter(|part| part.name == "server") {
                part.args.extend(["--public-url".to_owned(), url.clone()]);
            }
        }
        Ok(Layout { proxy: data.join("proxy"), parts })
    }

    /// Takes the data folder, and refuses one that is a copy, in whole or in part, before anything in
    /// it is touched.
    ///
    /// # Errors
    /// When the folder is a copy, in use, or can't be written.
    pub(crate) fn claim(&self) -> anyhow::Result<Hold> {
        for folder in pipeyard_home::parts(&self.data) {
            pipeyard_home::check(&folder).map_err(|error| coded(&error))?;
        }
        claim(&self.data, Role::Up)
    }

    /// Runs every part until `shutdown`. `start` names this start of the server.
    ///
    /// # Errors
    /// When the data folder can't be used, or a part can't be started or refuses to work at its first
    /// start.
    pub(crate) async fn run(&self, start: &str, shutdown: CancellationToken) -> anyhow::Result<()> {
        let _hold = self.claim().inspect_err(|_| shutdown.cancel())?;
        let mut layout = self.layout().inspect_err(|_| shutdown.cancel())?;
        for part in layout.parts.iter_mut().filter(|part| part.name == "server") {
            part.env.push((START.to_owned(), start.to_owned()));
        }
        let tasks = TaskTracker::new();
        let end = End { shutdown: shutdown.clone(), problem: Arc::default() };
        let log = self.data.join("proxy.log");
        tasks.spawn(crate::rotate::keep_small(log, shutdown.clone()));
        for part in layout.parts {
            let end = end.clone();
            if part.name == "proxy" {
                let running = supervise::running(&layout.proxy, Role::Proxy, &part.pid_file);
                if let Some(process) = running {
                    tracing::info!(pid = process.pid(), "the proxy of an earlier start serves on");
                    let folder = layout.proxy.clone();
                    tasks.spawn(adopt(part, folder, process, end, self.stop_proxy));
                    continue;
                }
                if !self.stop_proxy {
                    tasks.spawn(keep_unbound(part, end));
                    continue;
                }
            }
            let (server, start) = (self.address(), start.to_owned());
            tasks.spawn(async move {
                // It would ask a server that isn't there yet, and complain.
                if part.name == "runner" {
                    ready(&server, &start, &end.shutdown).await;
                }
                let kept = supervise::keep_running(part, end.shutdown.clone()).await;
                end.unless_good(kept);
            });
        }
        shutdown.cancelled().await;
        tasks.close();
        tasks.wait().await;
        let problem = end.problem.lock().unwrap_or_else(PoisonError::into_inner).take();
        problem.map_or(Ok(()), Err)
    }
}

/// How everything ends: asked to, or because a part can't work.
#[derive(Debug, Clone)]
struct End {
    shutdown: CancellationToken,
    /// The first problem; what follows from it isn't told.
    problem: Arc<Mutex<Option<anyhow::Error>>>,
}

impl End {
    fn unless_good(&self, kept: anyhow::Result<()>) {
        let Err(error) = kept else { return };
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.shutdown.is_cancelled() {
            problem.get_or_insert(error);
        }
        self.shutdown.cancel();
    }

    fn is_bad(&self) -> bool {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl Up {
    /// Where the server is asked from this machine.
    fn address(&self) -> String {
        let mut listen = self.listen;
        if listen.ip().is_unspecified() {
            listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        match (&self.tls.tls_cert, &self.public_url) {
            (Some(_), Some(url)) => url.trim_end_matches('/').to_owned(),
            (Some(_), None) => format!("https://{listen}"),
            (None, _) => format!("http://{listen}"),
        }
    }

    /// What server and fleet are told about who reaches them how.
    fn reached(&self) -> Vec<String> {
        let mut args = Vec::new();
        if let (Some(certificate), Some(key)) = (&self.tls.tls_cert, &self.tls.tls_key) {
            args.extend(["--tls-cert".to_owned(), certificate.display().to_string()]);
            args.extend(["--tls-key".to_owned(), key.display().to_string()]);
        }
        if self.trusted_proxy {
            args.push("--trusted-proxy".to_owned());
        }
        args
    }

    /// Says, once the server is ready, where everything is and what comes next.
    pub(crate) async fn announce(&self, start: &str, shutdown: &CancellationToken) {
        let address = self.address();
        if !ready(&address, start, shutdown).await {
            if !shutdown.is_cancelled() {
                tracing::warn!(address, "the server isn't ready yet; its lines say why");
            }
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

/// Waits until the server of this start is ready; `false` if it isn't in time, or everything ends
/// before.
async fn ready(address: &str, start: &str, shutdown: &CancellationToken) -> bool {
    let Ok(client) = pipeyard_api::client::Client::new(address, None) else { return false };
    let is_ours = |answer: &reqwest::Response| {
        answer.headers().get(START_HEADER).is_some_and(|said| said.as_bytes() == start.as_bytes())
    };
    let asked = async {
        while !client.open("/readyz", &[]).await.is_ok_and(|answer| is_ours(&answer)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        asked = tokio::time::timeout(PATIENCE, asked) => asked.is_ok(),
        () = shutdown.cancelled() => false,
    }
}

/// Keeps an unbound part running; at the end it is left alone, unless nothing came of this start.
async fn keep_unbound(part: Part, end: End) {
    let stop = CancellationToken::new();
    let keeping = supervise::keep_running(part, stop.clone());
    tokio::pin!(keeping);
    tokio::select! {
        kept = keeping.as_mut() => return end.unless_good(kept),
        () = end.shutdown.cancelled() => {}
    }
    if end.is_bad() {
        stop.cancel();
        if let Err(error) = keeping.await {
            tracing::warn!(error = format!("{error:#}"), "a part didn't end well");
        }
    }
}

/// Watches a proxy that an earlier `up` started, and takes over when it dies.
async fn adopt(part: Part, folder: PathBuf, process: Process, end: End, stop: bool) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                if !process.is_alive() {
                    return match supervise::running(&folder, Role::Proxy, &part.pid_file) {
                        // Somebody else started one there meanwhile.
                        Some(other) => Box::pin(adopt(part, folder, other, end, stop)).await,
                        None => keep_unbound(part, end).await,
                    };
                }
            }
            () = end.shutdown.cancelled() => {
                if stop {
                    let _ = process.signal(rustix::process::Signal::TERM);
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
