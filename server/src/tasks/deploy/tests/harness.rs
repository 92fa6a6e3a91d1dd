//! A server's state over a real SQLite file, two services, a provider in memory.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, header},
};
use http_body_util::BodyExt as _;
use pipeyard_api::{
    deploys::{EnvironmentsFile, ProviderSpec},
    views::Event,
};
use pipeyard_deploy::{
    fake::FakeProvider,
    provider::{GroupName, ProviderError},
};
use pipeyard_model::{
    Actor, Clock as _, DeploymentId, HookId, ManualClock, ReleaseId, RepoId, RunId, Timestamp,
    UserId,
    deployment::{Outcome, Purpose, Release, State},
    plan::{HealthLimit, Node, Otherwise, Plan, Strategy},
};
use pipeyard_store::{
    deployments::{NewDeployment, Stored},
    repos::{Forge, Repo},
    runs::{NewRun, RunContent},
};
use pipeyard_store_sqlite::SqliteStore;
use serde_json::Value;
use tower::ServiceExt as _;

use super::super::run_once;
use crate::{
    AppState, ServerConfig,
    http::{self, login},
    providers::{Providers, Reach},
};

pub(super) const START: Timestamp = Timestamp::from_seconds(1_772_366_400);

#[derive(Debug)]
struct OneProvider(FakeProvider);

#[async_trait::async_trait]
impl Providers for OneProvider {
    async fn reach(&self, _: &ProviderSpec) -> Result<Reach, ProviderError> {
        let fake = Arc::new(self.0.clone());
        Ok(Reach { provider: fake.clone(), traffic: Some(fake) })
    }
}

pub(super) struct Harness {
    pub(super) state: AppState,
    pub(super) clock: ManualClock,
    pub(super) fake: FakeProvider,
    router: Router,
    token: String,
    _folder: tempfile::TempDir,
}

impl Harness {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(START);
        let shared = Arc::new(clock.clone());
        let path = folder.path().join("pipeyard.sqlite");
        let store = SqliteStore::open(&path, shared.clone()).await.unwrap();
        let installation = store.installation();
        let mut config = ServerConfig { data_dir: folder.path().to_owned(), ..Default::default() };
        change(&mut config);
        let mut state =
            AppState::open(Arc::new(store), shared.clone(), config, installation).unwrap();
        let fake = FakeProvider::new(shared);
        state.providers = Arc::new(OneProvider(fake.clone()));
        let router = http::router(state.clone());
        let mut h = Self { state, clock, fake, router, token: String::new(), _folder: folder };
        let code = login::mint_one_time_login(&h.state).await.unwrap();
        let body = serde_json::json!({ "code": code, "want": "token" }).to_string();
        h.token = h.post("/api/login", &body).await["token"].as_str().unwrap().to_owned();
        h.apply(environments()).await;
        h.add_repo("shop").await;
        // Every deployment of these tests is of this run, unless they say otherwise.
        let run = h.run_on("shop", Event::Push, "refs/heads/main", vec![]).await;
        assert_eq!(run, RunId(1));
        h
    }

    /// As `pipectl envs apply` does it, past the checks of the server.
    pub(super) async fn apply(&self, file: Value) {
        let file: EnvironmentsFile = serde_json::from_value(file).unwrap();
        self.state
            .store
            .apply_environments(file, false, Actor::user(UserId::new()), START)
            .await
            .unwrap();
    }

    /// The environments with these rules for production.
    pub(super) async fn rules(&self, rules: Value) {
        let mut file = environments();
        let production = file["environments"]["production"].as_object_mut().unwrap();
        production.extend(rules.as_object().unwrap().clone());
        self.apply(file).await;
    }

    pub(super) async fn add_repo(&self, name: &str) {
        let repo = Repo {
            id: RepoId::new(),
            name: name.parse().unwrap(),
            forge: Forge::Github,
            url: format!("https://example.com/{name}.git"),
            credentials: None,
            default_branch: "main".into(),
            hook: HookId::new(),
            hook_secret: vec![1],
            forge_id: None,
            created_at: START,
            problem: None,
        };
        self.state.store.add_repo(repo, Actor::user(UserId::new())).await.unwrap();
    }

    /// A run of these nodes that octocat's push started, or so.
    pub(super) async fn run_on(
        &self,
        repo: &str,
        event: Event,
        reference: &str,
        nodes: Vec<Node>,
    ) -> RunId {
        let repo = self.state.store.repo_by_name(&repo.parse().unwrap()).await.unwrap().unwrap();
        let run = NewRun {
            repo: repo.id,
            request: None,
            pipeline: "pipeyard".into(),
            event,
            reference: reference.into(),
            pull_request: None,
            commit: "c".repeat(40),
            before: None,
            title: "Sell more".into(),
            author: "Ada".into(),
            forge_user: (event == Event::Push).then(|| "octocat".to_owned()),
            started_by: None,
            received_at: self.now(),
            origin: pipeyard_model::origin::Origin::Branch("main".into()),
            overtaken: false,
            content: RunContent::Plan {
                plan: Plan { pipeline: "pipeyard".into(), nodes },
                diagnostics: vec![],
            },
        };
        self.state.store.create_runs(vec![run], Actor::pipeyard(), self.now()).await.unwrap()[0]
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn group(&self, service: &str) -> GroupName {
        GroupName::new(&"production".parse().unwrap(), &service.parse().unwrap())
    }

    pub(super) async fn new_deployment(
        &self,
        service: &str,
        commit: &str,
        strategy: Strategy,
    ) -> NewDeployment {
        let bytes = bytes::Bytes::from(format!("bundle of {commit}"));
        let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes)]);
        let blob = self.state.blobs.put_stream(stream, 1 << 20, None).await.unwrap();
        NewDeployment {
            environment: "production".parse().unwrap(),
            service: service.parse().unwrap(),
            purpose: Purpose::Ship,
            release: Release {
                id: ReleaseId::new(),
                repo: RepoId::new(),
                repo_name: "shop".parse().unwrap(),
                commit: commit.repeat(40),
                run: RunId(1),
                job: "package".parse().unwrap(),
                artifact: "shop.tar.gz".into(),
                sha256: blob.sha256,
                size: blob.size,
            },
            strategy,
            limits: vec![HealthLimit::ErrorRate(0.01)],
            otherwise: Otherwise::Rollback,
            job: None,
            requested_by: "ann".into(),
            needs_approval: false,
            asks_approval: false,
            waits: None,
            comment: None,
            by: Actor::pipeyard(),
        }
    }

    pub(super) async fn ship(
        &self,
        service: &str,
        commit: &str,
        strategy: Strategy,
    ) -> DeploymentId {
        let new = self.new_deployment(service, commit, strategy).await;
        self.state.store.create_deployment(new, self.now()).await.unwrap().id
    }

    /// Ships all at once and waits for it.
    pub(super) async fn shipped(&self, service: &str, commit: &str) -> DeploymentId {
        let id = self.ship(service, commit, Strategy::AllAtOnce).await;
        assert_eq!(self.until_over(id).await, Outcome::Succeeded);
        id
    }

    /// One pass, then a second goes by.
    pub(super) async fn pass(&self) {
        run_once(&self.state).await.unwrap();
        self.clock.advance(Duration::from_secs(1));
    }

    pub(super) async fn stored(&self, id: DeploymentId) -> Stored {
        self.state.store.deployment(id).await.unwrap().unwrap()
    }

    pub(super) async fn outcome(&self, id: DeploymentId) -> Option<Outcome> {
        self.stored(id).await.deployment.state.outcome()
    }

    pub(super) async fn until(&self, id: DeploymentId, wanted: impl Fn(&State) -> bool) {
        for _ in 0..800 {
            if wanted(&self.stored(id).await.deployment.state) {
                return;
            }
            self.pass().await;
        }
        panic!("deployment {id} is still {:?}", self.stored(id).await.deployment);
    }

    pub(super) async fn until_over(&self, id: DeploymentId) -> Outcome {
        self.until(id, |state| state.outcome().is_some()).await;
        self.outcome(id).await.unwrap()
    }

    pub(super) async fn timeline(&self, id: DeploymentId) -> Vec<String> {
        let entries = self.state.store.timeline(id).await.unwrap();
        entries.into_iter().map(|entry| entry.code).collect()
    }

    /// Deployments in the order in which the provider got them.
    pub(super) async fn started_order(&self) -> Vec<DeploymentId> {
        let made = self.fake.made();
        made.iter()
            .filter(|m| m.restores.is_none())
            .map(|m| m.request.note.split(' ').nth(1).unwrap().parse().unwrap())
            .collect()
    }

    /// Somebody new, who is this at GitHub: their token.
    pub(super) async fn user(&self, name: &str, login: Option<&str>) -> String {
        let identities: Vec<String> =
            login.map(|login| format!("github={login}")).into_iter().collect();
        let body = serde_json::json!({ "name": name, "identities": identities }).to_string();
        let (status, added) = self.send("POST", "/api/users", &body).await;
        assert_eq!(status, 201, "{added}");
        let body = serde_json::json!({ "code": added["code"], "want": "token" }).to_string();
        self.post("/api/login", &body).await["token"].as_str().unwrap().to_owned()
    }

    pub(super) async fn send(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.send_as(&self.token, method, path, body).await
    }

    pub(super) async fn send_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(text.into())))
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.send("GET", path, "").await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> Value {
        let (status, answer) = self.send("POST", path, body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The code of a refusal.
    pub(super) async fn refused(&self, path: &str, body: &str) -> (u16, String) {
        let (status, answer) = self.send("POST", path, body).await;
        (status, answer["error"]["code"].as_str().unwrap_or_default().to_owned())
    }
}

pub(super) fn environments() -> Value {
    serde_json::json!({"environments": {"production": {
        "production": true,
        "accepts": [{"repo": "shop", "branches": "main"}],
        "provider": {"endpoint": "http://127.0.0.1:1", "credentials": "fleet"},
        "services": {
            "web": {"listen": 8480, "container": {"image": "shop", "port": 80, "replicas": 2}},
            "worker": {"listen": 8481, "hosts": {"tags": {"role": "worker"}, "count": 3}}
        }
    }}})
}
