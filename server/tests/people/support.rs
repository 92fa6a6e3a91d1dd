//! A server without a socket: its router, a SQLite file, a clock that the test moves.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use http_body_util::BodyExt as _;
use pipeyard_model::{
    Actor, AttemptId, HookId, ManualClock, RepoId, RepoName, RequestId, RunId, RunnerId, Timestamp,
    UserId, runner::Grant,
};
use pipeyard_pipelines::{Context, Source, compile};
use pipeyard_server::{AppState, ServerConfig, http, tokens};
use pipeyard_store::{
    repos::{Forge, Repo},
    runners::{NewEnrolment, NewRunner},
    runs::{NewRun, RunContent},
};
use pipeyard_store_sqlite::SqliteStore;
use serde_json::Value;
use tower::ServiceExt as _;

pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_772_366_400);
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const RUNNER_KEY: &str = "ppk_test";

/// A server, and the token of somebody who is signed in.
pub(crate) struct Server {
    pub(crate) state: AppState,
    pub(crate) clock: ManualClock,
    pub(crate) token: String,
    pub(crate) folder: tempfile::TempDir,
    router: Router,
}

/// An answer with its whole body.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("an error's code").to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(NOW);
        let path = folder.path().join("pipeyard.sqlite");
        let store = SqliteStore::open(&path, Arc::new(clock.clone())).await.unwrap();
        let installation = store.installation();
        let mut config = ServerConfig { data_dir: folder.path().to_owned(), ..Default::default() };
        change(&mut config);
        let clock_for_state = Arc::new(clock.clone());
        let state = AppState::open(Arc::new(store), clock_for_state, config, installation).unwrap();
        let router = http::router(state.clone());
        let mut server = Self { state, clock, token: String::new(), folder, router };
        server.sign_in().await;
        server
    }

    /// Signs in as the administrator, for the longest time there is.
    pub(crate) async fn sign_in(&mut self) {
        let code = http::login::mint_one_time_login(&self.state).await.unwrap();
        let login = serde_json::json!({ "code": code, "want": "token", "days": 365 });
        let answer = self.send("POST", "/api/login", &[], login.to_string()).await;
        self.token = answer.json()["token"].as_str().unwrap().to_owned();
    }

    /// The same data, opened by another process.
    pub(crate) async fn restarted(self) -> Self {
        let Self { state, clock, token, folder, .. } = self;
        let config = (*state.config).clone();
        drop(state);
        let path = folder.path().join("pipeyard.sqlite");
        let store = SqliteStore::open(&path, Arc::new(clock.clone())).await.unwrap();
        let installation = store.installation();
        let shared = Arc::new(clock.clone());
        let state = AppState::open(Arc::new(store), shared, config, installation).unwrap();
        let router = http::router(state.clone());
        Self { state, clock, token, folder, router }
    }

    /// Sends a request exactly as given.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method.parse::<Method>().unwrap()).uri(path);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// The status of an answer and, if it is an error, its code; the body of a good one isn't read.
    pub(crate) async fn status(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> (StatusCode, String) {
        let mut request = Request::builder().method(method.parse::<Method>().unwrap()).uri(path);
        request = request.header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        if status.is_success() {
            return (status, String::new());
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    /// Sends a request with the token; an answer that never ends is left to the caller.
    pub(crate) async fn open(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> axum::response::Response {
        let mut request = Request::builder().uri(path).header("authorization", self.bearer());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    pub(crate) fn now(&self) -> Timestamp {
        pipeyard_model::Clock::now(&self.clock)
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[("authorization", &self.bearer())], Body::empty()).await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, &[("authorization", &self.bearer())], body).await
    }

    pub(crate) async fn add_repo(&self, name: &str, forge: Forge, url: &str) -> RepoId {
        let id = RepoId::new();
        let repo = Repo {
            id,
            name: RepoName::new(name).unwrap(),
            forge,
            url: url.to_owned(),
            credentials: None,
            default_branch: "main".to_owned(),
            hook: HookId::new(),
            hook_secret: vec![1],
            forge_id: None,
            created_at: NOW,
            problem: None,
        };
        self.state.store.add_repo(repo, Actor::user(UserId::new())).await.unwrap();
        id
    }

    /// A run of this pipeline file.
    pub(crate) async fn add_run(&self, repo: RepoId, yaml: &str) -> RunId {
        let compiled = compile(&Source::new(".pipeyard.yml", yaml), &Context::example());
        let plan = compiled.plan.expect("the test's pipeline compiles");
        let run = NewRun {
            repo,
            request: None,
            pipeline: "pipeyard".to_owned(),
            event: pipeyard_api::views::Event::Push,
            reference: "refs/heads/main".to_owned(),
            pull_request: None,
            commit: COMMIT.to_owned(),
            before: None,
            title: "Change".to_owned(),
            author: "Ada Lovelace".to_owned(),
            forge_user: None,
            started_by: None,
            origin: pipeyard_model::origin::Origin::Branch("main".to_owned()),
            overtaken: false,
            received_at: NOW,
            content: RunContent::Plan { plan, diagnostics: Vec::new() },
        };
        let runs = self.state.store.create_runs(vec![run], Actor::pipeyard(), NOW).await.unwrap();
        assert_eq!(runs.len(), 1);
        runs[0]
    }

    /// A runner that holds [`RUNNER_KEY`].
    pub(crate) async fn add_runner(&self) -> RunnerId {
        let store = &self.state.store;
        store
            .add_enrolment(
                NewEnrolment {
                    hash: [9; 32],
                    expires_at: NOW + std::time::Duration::from_secs(60),
                    grant: Grant::everything(),
                },
                Actor::pipeyard(),
                NOW,
            )
            .await
            .unwrap();
        let runner = NewRunner {
            id: RunnerId::new(),
            name: "one".to_owned(),
            labels: Vec::new(),
            version: "1".to_owned(),
            key_hash: tokens::hash(RUNNER_KEY),
        };
        let id = runner.id;
        store.register_runner([9; 32], runner, None, NOW).await.unwrap();
        id
    }

    /// Claims the one job that is ready.
    pub(crate) async fn claim(&self, runner: RunnerId) -> AttemptId {
        let store = &self.state.store;
        let now = pipeyard_model::Clock::now(&self.clock);
        let jobs = store.claim_jobs(runner, RequestId::new(), 1, now).await.unwrap();
        AttemptId { job: jobs[0].job, epoch: jobs[0].epoch }
    }
}

/// The shortest pipeline.
pub(crate) const ONE_JOB: &str = "jobs:\n  test:\n    image: busybox\n    run: make test\n";
