//! A fleet and a proxy for tests, in this process, and a client that signs.

#![expect(clippy::unwrap_used, reason = "a test ends where its surroundings fail")]
#![allow(dead_code, clippy::allow_attributes, reason = "not every test uses all of it")]

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use http::{HeaderMap, Method};
use pipeyard_fleet::{
    Credentials, FleetConfig, http_client,
    proxy::{self, ProxyConfig},
    sigv4::{self, Scope, Signed},
};
use pipeyard_model::{
    Clock, SystemClock,
    fleet::{ServiceDefinition, TrafficReport},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub(crate) async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port().await))
}

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) fleet: FleetConfig,
    pub(crate) proxy: ProxyConfig,
    pub(crate) http: reqwest::Client,
    fleet_task: Option<(CancellationToken, JoinHandle<anyhow::Result<()>>)>,
    proxy_task: Option<(CancellationToken, JoinHandle<anyhow::Result<()>>)>,
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
            allow_public: false,
        };
        let http = http_client().unwrap();
        Self { folder, fleet, proxy, http, fleet_task: None, proxy_task: None }
    }

    pub(crate) fn start_proxy(&mut self) {
        let stop = CancellationToken::new();
        let task = tokio::spawn(proxy::run(self.proxy.clone(), stop.clone()));
        self.proxy_task = Some((stop, task));
    }

    pub(crate) async fn start_fleet(&mut self) {
        let stop = CancellationToken::new();
        let task = tokio::spawn(pipeyard_fleet::run(self.fleet.clone(), stop.clone()));
        self.fleet_task = Some((stop, task));
        self.answers().await;
    }

    pub(crate) async fn answers(&self) {
        let url = format!("{}/healthz", self.endpoint());
        until("the fleet answers", Duration::from_secs(20), async || {
            self.http.get(&url).send().await.ok().map(drop)
        })
        .await;
    }

    /// Drops the fleet where it is, as a kill would.
    pub(crate) async fn kill_fleet(&mut self) {
        let (_, task) = self.fleet_task.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    pub(crate) async fn end(mut self) {
        for (stop, task) in [self.fleet_task.take(), self.proxy_task.take()].into_iter().flatten() {
            stop.cancel();
            task.await.unwrap().unwrap();
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.fleet.listen)
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::load(&self.fleet.data_dir).unwrap()
    }

    /// Calls an operation; an error is its code and message.
    pub(crate) async fn try_aws(&self, operation: &str, input: Value) -> Result<Value, String> {
        let body = input.to_string().into_bytes();
        let mut headers = HeaderMap::new();
        let now = sigv4::stamp(SystemClock.now());
        let target = format!("CodeDeploy_20141006.{operation}");
        headers.insert("host", self.fleet.listen.to_string().parse().unwrap());
        headers.insert("x-amz-date", now.parse().unwrap());
        headers.insert("x-amz-target", target.parse().unwrap());
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
