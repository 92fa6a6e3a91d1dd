//! The queue alone: enqueue, claim and finish durable one-step jobs in SQLite, from many tasks at
//! once, without HTTP.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pipeyard_api::{runner::FinishRequest, views::Event};
use pipeyard_model::{
    Actor, AttemptId, Clock, Conclusion, HookId, RepoId, RequestId, RunnerId, SystemClock,
    Timestamp,
    plan::{JobSpec, Node, NodeKind, Plan, StepSpec},
    runner::Grant,
};
use pipeyard_store::{
    Store,
    repos::{Forge, Repo},
    runners::{NewEnrolment, NewRunner},
    runs::{NewRun, RunContent},
};
use pipeyard_store_sqlite::SqliteStore;

/// Jobs in all, and tasks that work at the same time.
const JOBS: usize = 6000;
const TASKS: usize = 32;
/// Jobs of one claim.
const SLOTS: u32 = 8;

/// Jobs a second, each enqueued, claimed and finished durably.
pub(crate) async fn jobs_per_second() -> anyhow::Result<f64> {
    let dir = tempfile::tempdir()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open(&dir.path().join("queue.sqlite"), Arc::clone(&clock)).await?);
    let now = clock.now();
    let repo = RepoId::new();
    let admin = store.ensure_admin(now).await?.id;
    store.add_repo(bench_repo(repo, now)?, Actor::user(admin)).await?;
    let began = Instant::now();
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let runner = RunnerId::new();
        let mut key_hash = [0; 32];
        key_hash[0] = u8::try_from(task)?;
        let new = NewRunner {
            id: runner,
            name: "bench".into(),
            labels: Vec::new(),
            version: "0".into(),
            key_hash,
        };
        let (hash, expires_at) = (key_hash, now + Duration::from_secs(3600));
        let token = NewEnrolment { hash, expires_at, grant: Grant::everything() };
        store.add_enrolment(token, Actor::pipeyard(), now).await?;
        store.register_runner(hash, new, None, now).await?;
        tasks.push(tokio::spawn(work(Arc::clone(&store), Arc::clone(&clock), repo, runner)));
    }
    let mut done = 0;
    for task in tasks {
        done += task.await??;
    }
    anyhow::ensure!(done == JOBS / TASKS * TASKS, "{done} jobs were done");
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

async fn work(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    repo: RepoId,
    runner: RunnerId,
) -> anyhow::Result<usize> {
    let mut done = 0;
    let mut made = 0;
    let share = JOBS / TASKS;
    while done < share {
        let now = clock.now();
        if made < share {
            let count = usize::try_from(SLOTS)?.min(share - made);
            let runs = (0..count).map(|_| run(repo, now)).collect::<anyhow::Result<Vec<_>>>()?;
            store.create_runs(runs, Actor::pipeyard(), now).await?;
            made += count;
        }
        let left = u32::try_from(share - done)?;
        for job in store.claim_jobs(runner, RequestId::new(), SLOTS.min(left), now).await? {
            let attempt = AttemptId { job: job.job, epoch: job.epoch };
            let finish = FinishRequest {
                conclusion: Conclusion::Success,
                reason: None,
                log_bytes: 0,
                finished_at: now,
            };
            store.finish_attempt(runner, attempt, finish, now).await?;
            done += 1;
        }
    }
    Ok(done)
}

fn bench_repo(id: RepoId, now: Timestamp) -> anyhow::Result<Repo> {
    Ok(Repo {
        id,
        name: "bench".parse()?,
        forge: Forge::Git,
        url: "/nowhere".into(),
        default_branch: "main".into(),
        hook: HookId::new(),
        hook_secret: Vec::new(),
        credentials: None,
        forge_id: None,
        created_at: now,
        problem: None,
    })
}

fn run(repo: RepoId, now: Timestamp) -> anyhow::Result<NewRun> {
    let step = StepSpec {
        name: "true".into(),
        run: "true".into(),
        image: None,
        env: Default::default(),
        timeout: None,
    };
    let spec = JobSpec {
        image: "busybox".into(),
        steps: vec![step],
        env: Default::default(),
        secrets: Vec::new(),
        services: Vec::new(),
        timeout: Duration::from_secs(60),
        artifacts: Vec::new(),
        tests: vec![],
        retry: 0,
        once: false,
        labels: Vec::new(),
    };
    let node = Node { name: "one".parse()?, needs: Vec::new(), kind: NodeKind::Job(spec) };
    Ok(NewRun {
        repo,
        request: None,
        pipeline: "pipeyard".into(),
        event: Event::Push,
        reference: "refs/heads/main".into(),
        pull_request: None,
        commit: "0".repeat(40),
        before: None,
        title: "Measure".into(),
        author: "Ada".into(),
        forge_user: None,
        started_by: None,
        origin: pipeyard_model::origin::Origin::Branch("main".into()),
        overtaken: false,
        received_at: now,
        content: RunContent::Plan {
            plan: Plan { pipeline: "pipeyard".into(), nodes: vec![node] },
            diagnostics: Vec::new(),
        },
    })
}
