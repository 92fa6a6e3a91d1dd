//! What the tests put into a store.

use std::{collections::BTreeMap, time::Duration};

use pipeyard_api::{deploys::EnvironmentsFile, views::Event};
use pipeyard_model::{
    Actor, Clock as _, EnvironmentName, HookId, ManualClock, NodeName, ReleaseId, RepoId, RepoName,
    RequestId, RunId, RunnerId, ServiceName, UserId,
    deployment::{Purpose, Release},
    origin::Origin,
    plan::{
        DeploySpec, JobSpec, Node, NodeKind, Otherwise, Plan, ReleaseSource, StepSpec, Strategy,
    },
    runner::Grant,
};

use crate::{
    Store,
    deployments::NewDeployment,
    queue::Claimed,
    repos::{Forge, Repo},
    runners::{NewEnrolment, NewRunner},
    runs::{NewRun, RunContent},
};

/// A repository and a runner without labels.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    /// The repository, `shop`.
    pub repo: RepoId,
    /// The runner, `one`.
    pub runner: RunnerId,
}

/// A repository and a runner.
pub async fn setup<S: Store + ?Sized>(store: &S, clock: &ManualClock) -> Made {
    let repo = RepoId::new();
    store
        .add_repo(
            Repo {
                id: repo,
                name: RepoName::new("shop").unwrap(),
                forge: Forge::Git,
                url: "/srv/shop.git".into(),
                credentials: None,
                default_branch: "main".into(),
                hook: HookId::new(),
                hook_secret: vec![1, 2, 3],
                forge_id: None,
                created_at: clock.now(),
                problem: None,
            },
            Actor::user(UserId::new()),
        )
        .await
        .unwrap();
    Made { repo, runner: runner(store, clock, "one", &[]).await }
}

/// Registers a runner.
pub async fn runner<S: Store + ?Sized>(
    store: &S,
    clock: &ManualClock,
    name: &str,
    labels: &[&str],
) -> RunnerId {
    let id = RunnerId::new();
    let token = *sha(&format!("token of {id}"));
    store
        .add_enrolment(
            NewEnrolment {
                hash: token,
                expires_at: clock.now() + Duration::from_secs(60),
                grant: Grant::everything(),
            },
            Actor::pipeyard(),
            clock.now(),
        )
        .await
        .unwrap();
    let labels = labels.iter().map(|l| (*l).to_owned()).collect();
    let new = NewRunner {
        id,
        name: name.into(),
        labels,
        version: "0.1.0".into(),
        key_hash: *sha(&id.to_string()),
    };
    store.register_runner(token, new, None, clock.now()).await.unwrap();
    id
}

/// Some 32 bytes that differ with the text; no hash is needed here.
pub(crate) fn sha(text: &str) -> Box<[u8; 32]> {
    let mut bytes = Box::new([0_u8; 32]);
    for (i, b) in text.bytes().enumerate() {
        bytes[i % 32] = bytes[i % 32].rotate_left(3) ^ b;
    }
    bytes
}

/// A job of one step.
pub fn job(name: &str, change: impl FnOnce(&mut JobSpec)) -> Node {
    let mut spec = JobSpec {
        image: "busybox".into(),
        steps: vec![StepSpec {
            name: "true".into(),
            run: "true".into(),
            image: None,
            env: BTreeMap::new(),
            timeout: None,
        }],
        env: BTreeMap::new(),
        secrets: vec![],
        services: vec![],
        timeout: Duration::from_secs(600),
        artifacts: vec![],
        tests: vec![],
        retry: 0,
        once: false,
        labels: vec![],
    };
    change(&mut spec);
    Node { name: NodeName::new(name).unwrap(), needs: vec![], kind: NodeKind::Job(spec) }
}

/// A deploy to production.
#[must_use]
pub fn deploy(name: &str) -> Node {
    let spec = DeploySpec {
        release: ReleaseSource::Artifact {
            job: NodeName::new("package").unwrap(),
            path: "shop.tar.gz".into(),
        },
        environment: EnvironmentName::new("production").unwrap(),
        service: ServiceName::new("web").unwrap(),
        strategy: Strategy::AllAtOnce,
        healthy_when: vec![],
        otherwise: Otherwise::Rollback,
        approve: false,
    };
    Node { name: NodeName::new(name).unwrap(), needs: vec![], kind: NodeKind::Deploy(spec) }
}

/// An environments file: production with these services, and testing with `web`, which nobody
/// depends on.
pub(crate) fn environments(services: &[&str]) -> EnvironmentsFile {
    let service = serde_json::json!({ "listen": 8480,
        "container": { "image": "shop", "port": 80, "replicas": 2 } });
    let of = |names: &[&str]| -> serde_json::Value {
        names.iter().map(|name| ((*name).to_owned(), service.clone())).collect()
    };
    let provider = serde_json::json!({ "endpoint": "http://127.0.0.1:1" });
    serde_json::from_value(serde_json::json!({ "environments": {
        "production": { "production": true, "provider": provider, "services": of(services) },
        "testing": { "provider": provider, "services": of(&["web"]) },
    }}))
    .unwrap()
}

/// Makes production's services exactly these.
pub async fn places<S: Store + ?Sized>(store: &S, clock: &ManualClock, services: &[&str]) {
    let file = environments(services);
    store.apply_environments(file, false, Actor::user(UserId::new()), clock.now()).await.unwrap();
}

/// A deployment to be asked for, at the commit whose letter is repeated.
#[must_use]
pub fn new_deployment(environment: &str, service: &str, commit: &str) -> NewDeployment {
    NewDeployment {
        environment: environment.parse().unwrap(),
        service: service.parse().unwrap(),
        purpose: Purpose::Ship,
        release: Release {
            id: ReleaseId::new(),
            repo: RepoId::new(),
            repo_name: RepoName::new("shop").unwrap(),
            commit: commit.repeat(40),
            run: RunId(1),
            job: NodeName::new("package").unwrap(),
            artifact: "shop.tar.gz".into(),
            sha256: commit.repeat(64),
            size: 1,
        },
        strategy: Strategy::AllAtOnce,
        limits: vec![],
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

/// The same node with needs.
#[must_use]
pub fn need(mut node: Node, needs: &[&str]) -> Node {
    node.needs = needs.iter().map(|n| NodeName::new(*n).unwrap()).collect();
    node
}

/// A run request's worth of one pipeline, not yet created.
pub fn plan(repo: RepoId, nodes: Vec<Node>, clock: &ManualClock) -> NewRun {
    NewRun {
        repo,
        request: None,
        pipeline: "pipeyard".into(),
        event: Event::Push,
        reference: "refs/heads/main".into(),
        pull_request: None,
        commit: "0123456789abcdef0123456789abcdef01234567".into(),
        before: None,
        title: "Sell more".into(),
        author: "Ada".into(),
        forge_user: None,
        started_by: None,
        origin: Origin::Branch("main".into()),
        overtaken: false,
        received_at: clock.now(),
        content: RunContent::Plan {
            plan: Plan { pipeline: "pipeyard".into(), nodes },
            diagnostics: vec![],
        },
    }
}

/// Creates a run of these nodes.
pub(crate) async fn run<S: Store + ?Sized>(
    store: &S,
    clock: &ManualClock,
    repo: RepoId,
    nodes: Vec<Node>,
) -> RunId {
    store.create_runs(vec![plan(repo, nodes, clock)], Actor::pipeyard(), clock.now()).await.unwrap()
        [0]
}

/// Creates a run of one job.
pub async fn one_job<S: Store + ?Sized>(store: &S, clock: &ManualClock, repo: RepoId) -> RunId {
    run(store, clock, repo, vec![job("test", |_| {})]).await
}

/// Claims exactly one job.
pub(crate) async fn claim<S: Store + ?Sized>(
    store: &S,
    clock: &ManualClock,
    runner: RunnerId,
) -> Claimed {
    let claimed = store.claim_jobs(runner, RequestId::new(), 1, clock.now()).await.unwrap();
    assert_eq!(claimed.len(), 1, "a job should have been offered");
    claimed.into_iter().next().unwrap()
}
