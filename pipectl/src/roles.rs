//! The roles as subcommands: settings from file, environment and flags, then the role's own crate.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use pipeyard_fleet::{FleetConfig, agent::AgentConfig, proxy::ProxyConfig};
use pipeyard_home::{Hold, HomeError, Role};
use pipeyard_model::ByteSize;
use pipeyard_runner::RunnerConfig;
use pipeyard_server::{ServerConfig, boot, http::login};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::{
    config::{ConfigFile, Given},
    supervise::shutdown_signal,
    up::Up,
};

/// Says why it can't go on.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
    ExitCode::from(2)
}

/// Takes a role's folder.
pub(crate) fn claim(folder: &Path, role: Role) -> anyhow::Result<Hold> {
    pipeyard_home::claim(folder, role).map_err(|error| coded(&error))
}

/// With the code behind which there is a page.
pub(crate) fn coded(error: &HomeError) -> anyhow::Error {
    let code = error.code();
    anyhow::anyhow!("{error} (pipectl explain {code})")
}

/// Logs to standard error; `PIPEYARD_LOG=debug` says more, `PIPEYARD_LOG_FORMAT=json` for machines.
fn init_logs() {
    let filter = EnvFilter::try_from_env("PIPEYARD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let json = std::env::var("PIPEYARD_LOG_FORMAT").is_ok_and(|f| f == "json");
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(layer.json()).init();
    } else {
        use std::io::IsTerminal as _;
        registry.with(layer.with_ansi(std::io::stderr().is_terminal())).init();
    }
}

fn text(path: &Option<PathBuf>) -> Option<String> {
    path.as_ref().map(|p| p.display().to_string())
}

impl Up {
    pub(crate) async fn main(self) -> anyhow::Result<()> {
        init_logs();
        self.check()?;
        let shutdown = shutdown_signal()?;
        let start = uuid::Uuid::new_v4().simple().to_string();
        let (ended, ()) =
            tokio::join!(self.run(&start, shutdown.clone()), self.announce(&start, &shutdown));
        ended
    }
}

/// Run the server.
#[derive(Debug, clap::Args)]
pub(crate) struct Server {
    #[command(flatten)]
    file: ConfigFile,
    /// UI, API and webhooks.
    #[arg(long, env = "PIPEYARD_LISTEN")]
    listen: Option<SocketAddr>,
    /// Database, logs, blobs, mirrors, key.
    #[arg(long, env = "PIPEYARD_SERVER_DATA")]
    data: Option<PathBuf>,
    /// Holds the master key of all secrets: better not beside the database. Systemd's credential
    /// `pipeyard-key` if absent, or else `key` in the data folder.
    #[arg(long, env = "PIPEYARD_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// How people and forges reach it, for links.
    #[arg(long, env = "PIPEYARD_PUBLIC_URL")]
    public_url: Option<String>,
    #[command(flatten)]
    tls: TlsFiles,
    /// A proxy that ends TLS stands in front.
    #[arg(long, env = "PIPEYARD_TRUSTED_PROXY")]
    trusted_proxy: bool,
    /// Remove logs and artifacts so many days after their run has ended; 0 keeps them for ever. 90 if
    /// absent.
    #[arg(long, env = "PIPEYARD_KEEP_DAYS", value_name = "DAYS")]
    keep_days: Option<u32>,
    /// One runner may register with the token in this file, as whatever it says.
    #[arg(long, env = "PIPEYARD_RUNNER_TOKEN_FILE")]
    runner_token_file: Option<PathBuf>,
    /// Credentials for deploy providers, NAME=FILE; may be repeated.
    #[arg(long, value_name = "NAME=FILE", value_parser = name_and_file)]
    credentials: Vec<(String, PathBuf)>,
}

/// The files of TLS; they are read again when they change.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TlsFiles {
    /// Speak TLS with the certificate chain in this PEM file.
    #[arg(long, env = "PIPEYARD_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key, a PEM file that others can't read.
    #[arg(long, env = "PIPEYARD_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
}

fn name_and_file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or_else(|| format!("{text:?} isn't NAME=FILE"))?;
    Ok((name.to_owned(), file.into()))
}

impl Server {
    fn config(&self) -> anyhow::Result<ServerConfig> {
        let credentials: toml::Table = self
            .credentials
            .iter()
            .map(|(name, file)| (name.clone(), file.display().to_string().into()))
            .collect();
        let given = Given::default()
            .with("listen", self.listen.map(|l| l.to_string()))
            .with("data_dir", text(&self.data))
            .with("key_file", text(&self.key_file))
            .with("public_url", self.public_url.clone())
            .with("tls_cert", text(&self.tls.tls_cert))
            .with("tls_key", text(&self.tls.tls_key))
            .with("trusted_proxy", self.trusted_proxy.then_some(true))
            .with("keep_days", self.keep_days.map(i64::from))
            .with("credentials", (!credentials.is_empty()).then_some(credentials))
            .table();
        self.file.settings("server", given)
    }

    pub(crate) async fn main(self) -> anyhow::Result<()> {
        init_logs();
        let config = self.config()?;
        // Before anything is made.
        config.check()?;
        let url = config.url();
        let scheme = if config.tls_cert.is_some() { "https" } else { "http" };
        let shutdown = shutdown_signal()?;
        let _hold = claim(&config.data_dir, Role::Server)?;
        let mut state = boot::boot(config).await?;
        state.start = std::env::var(crate::up::START).ok();
        if let Some(file) = &self.runner_token_file {
            boot::accept_runner_token(&state, file).await?;
        }
        let first = login::first_login(&state).await?;
        pipeyard_server::serve(
            state,
            move |address| {
                let mut out = std::io::stdout().lock();
                let _ = writeln!(out, "Pipeyard listens on {scheme}://{address}");
                if let Some(code) = first {
                    let _ = writeln!(out, "First login (once): {url}/login#code={code}");
                }
            },
            shutdown,
        )
        .await
    }
}

/// Print a new one-time login. Needs the server's data folder, not a running server.
#[derive(Debug, clap::Args)]
pub(crate) struct LoginCode {
    #[command(flatten)]
    file: ConfigFile,
    /// The server's data folder.
    #[arg(long, env = "PIPEYARD_SERVER_DATA")]
    data: Option<PathBuf>,
    /// The server's master key, if it isn't in the data folder.
    #[arg(long, env = "PIPEYARD_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl LoginCode {
    pub(crate) async fn main(self) -> anyhow::Result<()> {
        let given = Given::default()
            .with("data_dir", text(&self.data))
            .with("key_file", text(&self.key_file))
            .table();
        let config: ServerConfig = self.file.settings("server", given)?;
        anyhow::ensure!(
            config.data_dir.join("pipeyard.sqlite").is_file(),
            "{} holds no server's data: name the folder with --data",
            config.data_dir.display()
        );
        pipeyard_home::check(&config.data_dir).map_err(|error| coded(&error))?;
        let state = boot::boot(config).await?;
        let code = login::mint_one_time_login(&state).await?;
        writeln!(std::io::stdout().lock(), "{code}").context("failed to print the code")
    }
}

/// Run the embedded CodeDeploy, or manage one that runs.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Fleet {
    #[command(subcommand)]
    pub(crate) command: Option<pipeyard_cli::commands::fleet::Fleet>,
    #[command(flatten)]
    file: ConfigFile,
    /// The endpoint.
    #[arg(long, env = "PIPEYARD_FLEET_LISTEN")]
    listen: Option<SocketAddr>,
    /// Database, credentials and bundles.
    #[arg(long, env = "PIPEYARD_FLEET_DATA")]
    data: Option<PathBuf>,
    /// The proxy's control address.
    #[arg(long, env = "PIPEYARD_PROXY_ADMIN")]
    proxy_admin: Option<SocketAddr>,
    /// The proxy's token; made if it isn't there.
    #[arg(long, env = "PIPEYARD_PROXY_TOKEN_FILE")]
    proxy_token_file: Option<PathBuf>,
    /// The region that requests are signed for.
    #[arg(long, env = "PIPEYARD_FLEET_REGION")]
    region: Option<String>,
    #[command(flatten)]
    tls: TlsFiles,
    /// A proxy that ends TLS stands in front.
    #[arg(long, env = "PIPEYARD_TRUSTED_PROXY")]
    trusted_proxy: bool,
}

impl Fleet {
    pub(crate) async fn main(self) -> anyhow::Result<()> {
        init_logs();
        let given = Given::default()
            .with("listen", self.listen.map(|l| l.to_string()))
            .with("data_dir", text(&self.data))
            .with("proxy_admin", self.proxy_admin.map(|l| l.to_string()))
            .with("proxy_token_file", text(&self.proxy_token_file))
            .with("region", self.region)
            .with("tls_cert", text(&self.tls.tls_cert))
            .with("tls_key", text(&self.tls.tls_key))
            .with("trusted_proxy", self.trusted_proxy.then_some(true))
            .table();
        let config: FleetConfig = self.file.settings("fleet", given)?;
        config.check()?;
        let _hold = claim(&config.data_dir, Role::Fleet)?;
        pipeyard_fleet::run(config, shutdown_signal()?).await
    }
}

/// Run the weighted proxy.
#[derive(Debug, clap::Args)]
pub(crate) struct Proxy {
    #[command(flatten)]
    file: ConfigFile,
    /// The control address.
    #[arg(long, env = "PIPEYARD_PROXY_ADMIN")]
    admin: Option<SocketAddr>,
    /// Its token; made if it isn't there.
    #[arg(long, env = "PIPEYARD_PROXY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The routes, kept over restarts.
    #[arg(long, env = "PIPEYARD_PROXY_STATE")]
    state_file: Option<PathBuf>,
}

impl Proxy {
    pub(crate) async fn main(self) -> anyhow::Result<()> {
        init_logs();
        let given = Given::default()
            .with("admin_listen", self.admin.map(|l| l.to_string()))
            .with("token_file", text(&self.token_file))
            .with("state_file", text(&self.state_file))
            .table();
        let config: ProxyConfig = self.file.settings("proxy", given)?;
        config.check()?;
        let folder = config.state_file.parent().filter(|folder| *folder != Path::new(""));
        let _hold = claim(folder.unwrap_or(Path::new(".")), Role::Proxy)?;
        pipeyard_fleet::proxy::run(config, shutdown_signal()?).await
    }
}

/// Run the deploy agent of a host.
#[derive(Debug, clap::Args)]
pub(crate) struct Agent {
    #[command(flatten)]
    file: ConfigFile,
    /// The fleet's address.
    #[arg(long = "fleet", alias = "endpoint", env = "PIPEYARD_FLEET", value_name = "URL")]
    fleet: Option<String>,
    /// A file with the code that `pipectl fleet enroll NAME` printed; needed until the host has its
    /// key.
    #[arg(long, alias = "token-file", env = "PIPEYARD_AGENT_ENROLL_FILE", value_name = "FILE")]
    enroll_file: Option<PathBuf>,
    /// The folder that the agent may fill.
    #[arg(long, env = "PIPEYARD_AGENT_ROOT")]
    root: Option<PathBuf>,
    /// The user that hooks run as which name none (`runas`). Needs an agent that runs as root.
    #[arg(long, env = "PIPEYARD_AGENT_HOOKS_AS", value_name = "USER")]
    hooks_as: Option<String>,
    /// What the fleet knows of a host since hosts enrol; refused, so that nobody relies on it.
    #[arg(long, hide = true, env = "PIPEYARD_AGENT_NAME")]
    name: Option<String>,
    #[arg(long, hide = true, env = "PIPEYARD_AGENT_ADDRESS")]
    address: Option<String>,
    #[arg(long = "tag", hide = true)]
    tags: Vec<String>,
}

impl Agent {
    pub(crate) async fn main(self) -> anyhow::Result<()> {
        init_logs();
        anyhow::ensure!(
            self.name.is_none() && self.address.is_none() && self.tags.is_empty(),
            "--name, --tag and --address aren't the agent's to say any more: the fleet keeps them. \
             Say them to `pipectl fleet enroll NAME --tags KEY=VALUE --address IP:PORT`, and start \
             the agent with the code that this prints: --enroll-file FILE"
        );
        let given = Given::default()
            .with("endpoint", self.fleet)
            .with("enroll_file", text(&self.enroll_file))
            .with("root", text(&self.root))
            .with("hooks_as", self.hooks_as)
            .table();
        let config: AgentConfig = self.file.settings("agent", given).context(
            "an agent has endpoint, enroll_file, root and hooks_as; a host's name, tags and address are \
             said to `pipectl fleet enroll`",
        )?;
        let _hold = claim(&config.root, Role::Agent)?;
        pipeyard_fleet::agent::run(config, shutdown_signal()?).await
    }
}

/// Run a runner.
#[derive(Debug, clap::Args)]
pub(crate) struct Runner {
    #[command(flatten)]
    file: ConfigFile,
    /// Identity, journals, workspaces.
    #[arg(long, env = "PIPEYARD_RUNNER_DATA")]
    data: Option<PathBuf>,
    /// Holds the enrolment token; needed until the runner has an identity.
    #[arg(long, env = "PIPEYARD_RUNNER_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Shown to people.
    #[arg(long, env = "PIPEYARD_RUNNER_NAME")]
    name: Option<String>,
    /// Jobs at a time.
    #[arg(long, env = "PIPEYARD_SLOTS")]
    slots: Option<u32>,
    /// `docker` or `local`.
    #[arg(long, env = "PIPEYARD_EXECUTOR")]
    executor: Option<String>,
    /// Labels that jobs can ask for, of those that the token gives; all of them if absent. May be
    /// repeated.
    #[arg(long = "label")]
    labels: Vec<String>,
    #[command(flatten)]
    limits: RunnerLimits,
}

/// What jobs may use of the runner's machine.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct RunnerLimits {
    /// Memory of a job, such as 4g; without it a share of the machine by --slots, 0 for no limit.
    #[arg(long, env = "PIPEYARD_MEMORY", value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Memory of each service beside a job; half of the job's without it.
    #[arg(long, env = "PIPEYARD_SERVICE_MEMORY", value_name = "SIZE")]
    service_memory: Option<ByteSize>,
    /// Processors of a job, such as 1.5; without it all but a quarter of one, 0 for no limit.
    #[arg(long, env = "PIPEYARD_CPUS", value_name = "NUMBER")]
    cpus: Option<f64>,
    /// Processes and threads of a job; 4096 without it.
    #[arg(long, env = "PIPEYARD_PIDS", value_name = "NUMBER")]
    pids: Option<u32>,
    /// What a job may put on the disk, such as 20g; without it a share of the free space, 0 for no
    /// limit.
    #[arg(long, env = "PIPEYARD_DISK", value_name = "SIZE")]
    disk: Option<ByteSize>,
    /// Where jobs may connect to: `guarded` (not to this machine and its cloud's metadata service;
    /// needs root and iptables) or `open`.
    #[arg(long, env = "PIPEYARD_EGRESS", value_name = "RULE")]
    egress: Option<String>,
    /// An address that jobs may connect to all the same, ADDRESS, ADDRESS:PORT or CIDR; may be
    /// repeated.
    #[arg(long, value_name = "ADDRESS")]
    egress_allow: Vec<String>,
    /// Repositories that may use this machine's `docker login` for images, IMAGES=REPO,... such as
    /// ghcr.io/acme=acme/shop; may be repeated.
    #[arg(long, value_name = "IMAGES=REPO")]
    registry_auth: Vec<String>,
}

impl RunnerLimits {
    fn given(self, given: Given) -> Given {
        let size = |size: Option<ByteSize>| size.and_then(|size| i64::try_from(size.0).ok());
        let list = |list: Vec<String>| (!list.is_empty()).then_some(list);
        given
            .with("memory", size(self.memory))
            .with("service_memory", size(self.service_memory))
            .with("cpus", self.cpus)
            .with("pids", self.pids.map(i64::from))
            .with("disk", size(self.disk))
            .with("egress", self.egress)
            .with("egress_allow", list(self.egress_allow))
            .with("registry_auth", list(self.registry_auth))
    }

    /// The same as arguments of `pipectl runner`.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let size = |size: Option<ByteSize>| size.map(|size| size.0.to_string());
        let single = [
            ("--memory", size(self.memory)),
            ("--service-memory", size(self.service_memory)),
            ("--cpus", self.cpus.map(|cpus| cpus.to_string())),
            ("--pids", self.pids.map(|pids| pids.to_string())),
            ("--disk", size(self.disk)),
            ("--egress", self.egress.clone()),
        ];
        let single = single.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let lists =
            [("--egress-allow", &self.egress_allow), ("--registry-auth", &self.registry_auth)];
        let lists =
            lists.into_iter().flat_map(|(name, all)| all.iter().map(move |v| (name, v.clone())));
        single.chain(lists).map(|(name, value)| format!("{name}={value}")).collect()
    }
}

impl Runner {
    /// `server` is the global option of that name.
    pub(crate) async fn main(self, server: Option<String>) -> anyhow::Result<()> {
        init_logs();
        let labels = (!self.labels.is_empty()).then_some(self.labels);
        let given = Given::default()
            .with("server", server)
            .with("data_dir", text(&self.data))
            .with("token_file", text(&self.token_file))
            .with("name", self.name)
            .with("slots", self.slots)
            .with("executor", self.executor)
            .with("labels", labels);
        let given = self.limits.given(given).table();
        let config: RunnerConfig = self.file.settings("runner", given)?;
        let _hold = claim(&config.data_dir, Role::Runner)?;
        let drain = shutdown_signal()?;
        pipeyard_runner::run(config, drain.clone(), second_signal(drain)).await
    }
}

/// Cancelled by the second signal, or when a bound process's parent is gone.
fn second_signal(first: CancellationToken) -> CancellationToken {
    let second = CancellationToken::new();
    let cancel = second.clone();
    tokio::spawn(async move {
        first.cancelled().await;
        if let Ok(again) = shutdown_signal() {
            again.cancelled().await;
        }
        cancel.cancel();
    });
    second
}
