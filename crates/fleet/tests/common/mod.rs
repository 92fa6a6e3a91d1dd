//! A fleet, a proxy and agents for tests, each a process that can be killed, and a client that
//! signs.

#![expect(clippy::unwrap_used, reason = "a test ends where its surroundings fail")]
#![allow(dead_code, clippy::allow_attributes, reason = "not every test uses all of it")]

pub(crate) mod docker;

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, Method};
use pipeyard_fleet::{
    Credentials, FleetConfig,
    agent::{self, AgentConfig},
    http_client,
    proxy::{self, ProxyConfig},
    sigv4::{self, Scope, Signed},
};
use pipeyard_model::{
    Clock, ManualClock, SystemClock,
    fleet::{ServiceDefinition, TrafficReport},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub(crate) async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port().await))
}

/// What a process of a test does.
#[derive(Serialize, Deserialize)]
pub(crate) enum Role {
    Fleet(FleetConfig),
    Proxy(ProxyConfig),
    Agent(AgentConfig),
}

const ROLE: &str = "PIPEYARD_TEST_ROLE";

/// Not a test: what this program does when a test starts it again in a role.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    if let Some(file) = std::env::var_os("PIPEYARD_CA_FILE") {
        pipeyard_trust::trust(file.as_ref()).unwrap();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut asked = signal(SignalKind::terminate()).unwrap();
        let ended = shutdown.clone();
        tokio::spawn(async move {
            asked.recv().await;
            ended.cancel();
        });
        match serde_json::from_str(&role).unwrap() {
            Role::Fleet(config) => pipeyard_fleet::run(config, shutdown).await.unwrap(),
            Role::Proxy(config) => proxy::run(config, shutdown).await.unwrap(),
            Role::Agent(config) => agent::run(config, shutdown).await.unwrap(),
        }
    });
}

/// A process in a role; killed when it is dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(role: &Role) -> Self {
        Self::start_with(role, &[])
    }

    /// The same with files named in its environment.
    pub(crate) fn start_with(role: &Role, environment: &[(&str, &Path)]) -> Self {
        let name = match role {
            Role::Fleet(_) => "fleet",
            Role::Proxy(_) => "proxy",
            Role::Agent(_) => "agent",
        };
        let path = target().join(format!("tmp/{name}-{}.log", std::process::id()));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "common::role", "--nocapture"])
            .env(ROLE, serde_json::to_string(role).unwrap())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self(child)
    }

    pub(crate) async fn kill(mut self) {
        self.0.kill().await.unwrap();
    }

    /// Asks it to end, and expects that it does well.
    pub(crate) async fn end(mut self) {
        let pid = i32::try_from(self.0.id().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.0.wait().await.unwrap().success());
    }
}

static ATTEMPTS: AtomicU64 = AtomicU64::new(1);

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) fleet: FleetConfig,
    pub(crate) proxy: ProxyConfig,
    pub(crate) http: reqwest::Client,
    /// What requests are signed by.
    clock: Arc<dyn Clock>,
    fleet_inside: Option<JoinHandle<()>>,
    fleet_process: Option<Process>,
    proxy_process: Option<Process>,
}

impl World {
    pub(crate) async fn start() -> Self {
        let mut world = Self::prepare().await;
        world.start_proxy();
        world.start_fleet().await;
        world
    }

    /// Configurations only; nothing runs.
    pub(crate) async fn prepare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("proxy-token");
        let proxy = ProxyConfig {
            admin_listen: free_address().await,
            host: [127, 0, 0, 1].into(),
            token_file: token_file.clone(),
            state_file: folder.path().join("routes.json"),
            allow_public: false,
        };
        let fleet = FleetConfig {
            listen: free_address().await,
            data_dir: folder.path().join("fleet"),
            region: "us-east-1".into(),
            proxy_admin: proxy.admin_listen,
            proxy_token_file: token_file,
            docker_host: None,
            tls_cert: None,
            tls_key: None,
            trusted_proxy: false,
        };
        let http = http_client().unwrap();
        Self {
            folder,
            fleet,
            proxy,
            http,
            clock: Arc::new(SystemClock),
            fleet_inside: None,
            fleet_process: None,
            proxy_process: None,
        }
    }

    /// A fleet inside of this process that goes by this clock; the proxy is a process as always.
    pub(crate) async fn start_by(clock: &ManualClock) -> Self {
        let path = target().join(format!("tmp/inside-{}.log", std::process::id()));
        let log = std::fs::File::create(path).unwrap();
        let _ = tracing_subscriber::fmt().with_writer(log).with_ansi(false).try_init();
        let mut world = Self::prepare().await;
        world.clock = Arc::new(clock.clone());
        world.start_proxy();
        world.start_inside().await;
        world
    }

    pub(crate) async fn start_inside(&mut self) {
        let (clock, config) = (Arc::clone(&self.clock), self.fleet.clone());
        self.fleet_inside = Some(tokio::spawn(async move {
            pipeyard_fleet::run_by(clock, config, CancellationToken::new()).await.unwrap();
        }));
        self.answers().await;
    }

    /// Drops it where it is, between two of its steps or in one.
    pub(crate) async fn abort_inside(&mut self) {
        let inside = self.fleet_inside.take().unwrap();
        inside.abort();
        assert!(inside.await.unwrap_err().is_cancelled());
        // Connections outlive it here; in a process of its own they would not.
        self.http = http_client().unwrap();
    }

    pub(crate) fn start_proxy(&mut self) {
        self.proxy_process = Some(Process::start(&Role::Proxy(self.proxy.clone())));
    }

    pub(crate) async fn start_fleet(&mut self) {
        self.fleet_process = Some(Process::start(&Role::Fleet(self.fleet.clone())));
        self.answers().await;
    }

    pub(crate) async fn answers(&self) {
        let url = format!("{}/healthz", self.endpoint());
        until("the fleet answers", Duration::from_secs(20), async || {
            self.http.get(&url).send().await.ok().map(drop)
        })
        .await;
    }

    /// `kill -9`.
    pub(crate) async fn kill_fleet(&mut self) {
        self.fleet_process.take().unwrap().kill().await;
    }

    /// `kill -9`.
    pub(crate) async fn kill_proxy(&mut self) {
        self.proxy_process.take().unwrap().kill().await;
    }

    /// Ends everything; the data stays as long as the folder that is returned.
    pub(crate) async fn end(mut self) -> tempfile::TempDir {
        if self.fleet_inside.is_some() {
            self.abort_inside().await;
        }
        for process in [self.fleet_process.take(), self.proxy_process.take()].into_iter().flatten()
        {
            process.end().await;
        }
        self.folder
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(crate) fn endpoint(&self) -> String {
        let scheme = if self.fleet.tls_cert.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.fleet.listen)
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::load(&self.fleet.data_dir).unwrap()
    }

    /// Calls an operation; an error is its code and message.
    pub(crate) async fn try_aws(&self, operation: &str, input: Value) -> Result<Value, String> {
        self.invoke(operation, input, &uuid::Uuid::new_v4().to_string()).await
    }

    /// The same with the id that an SDK keeps over its retries.
    pub(crate) async fn invoke(
        &self,
        operation: &str,
        input: Value,
        invocation: &str,
    ) -> Result<Value, String> {
        let body = input.to_string().into_bytes();
        let mut headers = HeaderMap::new();
        let now = sigv4::stamp(self.clock.now());
        let target = format!("CodeDeploy_20141006.{operation}");
        headers.insert("host", self.fleet.listen.to_string().parse().unwrap());
        headers.insert("x-amz-date", now.parse().unwrap());
        headers.insert("x-amz-target", target.parse().unwrap());
        headers.insert("amz-sdk-invocation-id", invocation.parse().unwrap());
        // As SDKs do: every try is another request.
        let attempt = format!("attempt={}; max=3", ATTEMPTS.fetch_add(1, Ordering::Relaxed));
        headers.insert("amz-sdk-request", attempt.parse().unwrap());
        let request =
            Signed { method: &Method::POST, path: "/", query: "", headers: &headers, body: &body };
        let scope = Scope { region: &self.fleet.region, service: "codedeploy" };
        let header = sigv4::authorization(&request, &self.credentials().key, scope);
        headers.insert("authorization", header.parse().unwrap());
        let sent = self.http.post(self.endpoint()).headers(headers).body(body).send().await;
        let response = sent.map_err(|error| error.to_string())?;
        let good = response.status().is_success();
        let answer: Value = response.json().await.map_err(|error| error.to_string())?;
        if good { Ok(answer) } else { Err(format!("{}: {}", answer["__type"], answer["message"])) }
    }

    pub(crate) async fn aws(&self, operation: &str, input: Value) -> Value {
        self.try_aws(operation, input).await.unwrap()
    }

    pub(crate) async fn put_service(&self, name: &str, definition: &ServiceDefinition) {
        let url = format!("{}/services/{name}", self.endpoint());
        let request = self.http.put(url).bearer_auth(self.credentials().token.reveal());
        let response = request.json(definition).send().await.unwrap();
        let status = response.status();
        assert!(status.is_success(), "{status}: {}", response.text().await.unwrap());
    }

    /// Uploads a bundle and returns the revision that names it.
    pub(crate) async fn put_bundle(&self, key: &str, bundle: Vec<u8>) -> Value {
        let url = format!("{}/bundles/releases/{key}", self.endpoint());
        let request = self.http.put(url).bearer_auth(self.credentials().token.reveal());
        let response = request.body(bundle).send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.status());
        let tag = response.headers()["etag"].to_str().unwrap().trim_matches('"').to_owned();
        json!({"revisionType": "S3", "s3Location":
            {"bucket": "releases", "key": key, "bundleType": "tgz", "eTag": tag}})
    }

    /// Lets a host enrol; answers the code.
    pub(crate) async fn enrol(&self, host: &Value) -> String {
        let url = format!("{}/hosts", self.endpoint());
        let request = self.http.post(url).bearer_auth(self.credentials().token.reveal());
        let response = request.json(host).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{status}: {text}");
        let made: Value = serde_json::from_str(&text).unwrap();
        made["code"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn hosts(&self) -> Vec<Value> {
        let url = format!("{}/hosts", self.endpoint());
        let request = self.http.get(url).bearer_auth(self.credentials().token.reveal());
        request.send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn deploy(&self, group: &str, revision: &Value) -> String {
        let (application, group) = group.split_once('/').unwrap();
        let made = self
            .aws(
                "CreateDeployment",
                json!({"applicationName": application, "deploymentGroupName": group,
                       "revision": revision}),
            )
            .await;
        made["deploymentId"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn info(&self, id: &str) -> Value {
        self.aws("GetDeployment", json!({"deploymentId": id})).await["deploymentInfo"].clone()
    }

    /// Waits until the deployment has one of these states, and returns its description.
    pub(crate) async fn reaches(&self, id: &str, states: &[&str]) -> Value {
        let what = format!("{id} reaches {states:?}");
        let last = std::cell::RefCell::new(Value::Null);
        let reached = async || {
            let found = self.try_aws("GetDeployment", json!({"deploymentId": id})).await.ok()?;
            let info = found["deploymentInfo"].clone();
            *last.borrow_mut() = info.clone();
            states.contains(&info["status"].as_str().unwrap()).then_some(info)
        };
        let began = Instant::now();
        loop {
            if let Some(info) = reached().await {
                return info;
            }
            assert!(began.elapsed() < Duration::from_secs(90), "{what}: {}", last.borrow());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn set_weight(&self, name: &str, id: &str, weight: u8) -> TrafficReport {
        let url = format!("{}/traffic/{name}", self.endpoint());
        let request = self.http.post(url).bearer_auth(self.credentials().token.reveal());
        let body = json!({"deployment": id, "weight": weight});
        let response = request.json(&body).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) async fn traffic(&self, name: &str) -> TrafficReport {
        let url = format!("{}/traffic/{name}", self.endpoint());
        let request = self.http.get(url).bearer_auth(self.credentials().token.reveal());
        request.send().await.unwrap().json().await.unwrap()
    }
}

/// Looks until there is an answer.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> F,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < within, "{what}: not within {within:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A tar.gz of files: path, mode, content.
pub(crate) fn bundle(files: &[(&str, u32, &str)]) -> Vec<u8> {
    let gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(gz);
    for (path, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

/// Where cargo builds; the Python environment lies there.
pub(crate) fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

pub(crate) fn manifest() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
