//! A server without a socket: its router, a SQLite file, a clock that the test moves.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt as _;
use pipeyard_api::{
    hooks::SIGNATURE,
    views::{AddedRepo, RunDetail},
};
use pipeyard_model::{Clock as _, ManualClock, Timestamp};
use pipeyard_server::{
    AppState, ServerConfig, http,
    intake::signature::sign,
    tasks::{compile, refs},
};
use pipeyard_store::runs::RunFilter;
use pipeyard_store_sqlite::SqliteStore;
use serde_json::{Value, json};
use tower::ServiceExt as _;

pub(crate) const ZERO: &str = "0000000000000000000000000000000000000000";

pub(crate) struct World {
    pub(crate) state: AppState,
    pub(crate) clock: ManualClock,
    pub(crate) router: Router,
    token: String,
    _folder: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Status and error code.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let code = self.json()["error"]["code"].as_str().unwrap_or_default().to_owned();
        (self.status.as_u16(), code)
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(Timestamp::from_seconds(1_772_366_400));
        let path = folder.path().join("pipeyard.sqlite");
        let store = SqliteStore::open(&path, Arc::new(clock.clone())).await.unwrap();
        let installation = store.installation();
        let mut config = ServerConfig { data_dir: folder.path().to_owned(), ..Default::default() };
        change(&mut config);
        let state =
            AppState::open(Arc::new(store), Arc::new(clock.clone()), config, installation).unwrap();
        let router = http::router(state.clone());
        let mut world = Self { state, clock, router, token: String::new(), _folder: folder };
        let code = http::login::mint_one_time_login(&world.state).await.unwrap();
        let login = json!({ "code": code, "want": "token" }).to_string();
        let answer = world.send("POST", "/api/login", &[], login).await;
        world.token = answer.json()["token"].as_str().unwrap().to_owned();
        world
    }

    /// Sends a request exactly as given, but for a content type if none is.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, body }
    }

    /// Calls the API as the administrator.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, &[("authorization", &bearer)], body).await
    }

    pub(crate) async fn add(&self, url: &str) -> AddedRepo {
        self.add_as(json!({ "url": url })).await
    }

    pub(crate) async fn add_as(&self, body: Value) -> AddedRepo {
        let answer = self.call("POST", "/api/repos", body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Sends what `pipectl hook` sends.
    pub(crate) async fn hook(&self, repo: &AddedRepo, updates: Value) -> Answer {
        let body = json!({ "updates": updates }).to_string();
        let signature = sign(repo.hook_secret.as_bytes(), body.as_bytes());
        self.send("POST", &repo.repo.hook_path, &[(SIGNATURE, &signature)], body).await
    }

    /// Tells of one ref that moved; the answer must be 202.
    pub(crate) async fn pushed(
        &self,
        repo: &AddedRepo,
        reference: &str,
        old: &str,
        new: &str,
    ) -> Value {
        let answer = self.hook(repo, json!([{ "ref": reference, "old": old, "new": new }])).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
        answer.json()
    }

    /// Sends a delivery of GitHub.
    pub(crate) async fn github(
        &self,
        repo: &AddedRepo,
        event: &str,
        delivery: &str,
        body: &str,
    ) -> Answer {
        let signature = sign(repo.hook_secret.as_bytes(), body.as_bytes());
        let headers = [
            ("x-github-event", event),
            ("x-github-delivery", delivery),
            ("x-hub-signature-256", signature.as_str()),
        ];
        self.send("POST", &repo.repo.hook_path, &headers, body.to_owned()).await
    }

    /// Handles every request that is due; answers how many.
    pub(crate) async fn compile(&self) -> usize {
        compile::run_once(&self.state).await.unwrap()
    }

    /// Compares every repository's refs; answers how many pushes were made up.
    pub(crate) async fn compare(&self) -> usize {
        refs::run_once(&self.state).await.unwrap()
    }

    /// How many requests wait.
    pub(crate) async fn due(&self) -> usize {
        self.state.store.due_run_requests(self.clock.now(), 100).await.unwrap().len()
    }

    /// How many requests have no answer yet, whenever they are due.
    pub(crate) async fn open(&self) -> usize {
        let far = self.clock.now() + std::time::Duration::from_secs(365 * 24 * 3600);
        self.state.store.due_run_requests(far, 100).await.unwrap().len()
    }

    /// Every run, oldest first.
    pub(crate) async fn runs(&self) -> Vec<RunDetail> {
        let filter = RunFilter { limit: 200, ..RunFilter::default() };
        let mut runs = Vec::new();
        for run in self.state.store.runs(filter).await.unwrap().into_iter().rev() {
            runs.push(self.state.store.run(run.id).await.unwrap().unwrap());
        }
        runs
    }

    /// The commits of all runs, oldest first.
    pub(crate) async fn commits(&self) -> Vec<String> {
        self.runs().await.into_iter().map(|detail| detail.run.commit).collect()
    }
}
