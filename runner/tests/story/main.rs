//! A runner, a server and a Git repository, all real but for the executor, which plays a script.

#![expect(clippy::unwrap_used, reason = "a test may end by a panic")]

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use pipeyard_api::views::{Event, LogLine, RunDetail};
use pipeyard_executor::{
    JobRun, StepExit,
    fake::{Act, FakeExecutor},
};
use pipeyard_model::{
    AttemptId, Clock as _, Conclusion, Epoch, HookId, RepoId, RepoName, RunId, Status, SystemClock,
    UserId, log::Stream,
};
use pipeyard_runner::{RunnerConfig, run_with};
use pipeyard_server::{AppState, ServerConfig, http::runners::mint_registration_token, serve};
use pipeyard_store::{
    intake::{Disposition, NewDelivery, NewRunRequest},
    repos::{Forge, Repo},
};
use pipeyard_store_sqlite::SqliteStore;
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(60);

/// The server and the folder of everything.
struct World {
    folder: TempDir,
    state: AppState,
    address: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

/// A runner on a runtime of its own: dropping that is the process's sudden end.
struct Runner {
    runtime: Option<Runtime>,
    drain: CancellationToken,
}

impl Runner {
    fn start(world: &World, executor: FakeExecutor) -> Self {
        let config = RunnerConfig {
            server: format!("http://{}", world.address),
            data_dir: world.folder.path().join("runner"),
            token_file: Some(world.folder.path().join("token")),
            name: "test".into(),
            ..RunnerConfig::default()
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let drain = CancellationToken::new();
        let run =
            run_with(config, Some(Arc::new(executor)), drain.clone(), CancellationToken::new());
        runtime.spawn(async move {
            if let Err(error) = run.await {
                panic!("the runner ended: {error:#}");
            }
        });
        Self { runtime: Some(runtime), drain }
    }

    /// As SIGKILL would.
    fn kill(mut self) {
        let runtime = self.runtime.take().unwrap();
        std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5)))
            .join()
            .unwrap();
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.drain.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn open(
    folder: &Path,
    address: SocketAddr,
) -> (AppState, SocketAddr, CancellationToken, JoinHandle<()>) {
    let clock = Arc::new(SystemClock);
    let data_dir = folder.join("server");
    std::fs::create_dir_all(&data_dir).unwrap();
    let store = SqliteStore::open(&data_dir.join("pipeyard.db"), clock.clone()).await.unwrap();
    let installation = store.installation();
    let config = ServerConfig { data_dir, listen: address, ..ServerConfig::default() };
    let state = AppState::open(Arc::new(store), clock, config, installation).unwrap();
    let stop = CancellationToken::new();
    let (tell, bound) = tokio::sync::oneshot::channel();
    let serving = serve(state.clone(), move |address| tell.send(address).unwrap(), stop.clone());
    let server = tokio::spawn(async move { serving.await.unwrap() });
    (state, bound.await.unwrap(), stop, server)
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (state, address, stop, server) =
            open(folder.path(), SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let token = mint_registration_token(&state, UserId::new())
            .await
            .unwrap_or_else(|_| panic!("no token"));
        std::fs::write(folder.path().join("token"), token.token).unwrap();
        Self { folder, state, address, stop, server }
    }

    async fn stop_server(&mut self) {
        self.stop.cancel();
        (&mut self.server).await.unwrap();
    }

    /// Starts the server again where it was.
    async fn start_server(&mut self) {
        let (state, address, stop, server) = open(self.folder.path(), self.address).await;
        (self.state, self.address, self.stop, self.server) = (state, address, stop, server);
    }

    /// A repository with this pipeline, pushed.
    async fn push(&self, pipeline: &str) {
        let path = self.folder.path().join("shop");
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join(".pipeyard.yml"), pipeline).unwrap();
        git(&path, &["init", "-q", "-b", "main"]);
        git(&path, &["add", "."]);
        git(
            &path,
            &[
                "-c",
                "user.name=Ada",
                "-c",
                "user.email=ada@example.com",
                "commit",
                "-qm",
                "Sell more",
            ],
        );
        let sha = git(&path, &["rev-parse", "HEAD"]);
        let repo = Repo {
            id: RepoId::new(),
            name: RepoName::new("shop").unwrap(),
            forge: Forge::Git,
            url: path.display().to_string(),
            credentials: None,
            default_branch: "main".into(),
            hook: HookId::new(),
            hook_secret: vec![],
            forge_id: None,
            created_at: SystemClock.now(),
            problem: None,
        };
        let push = NewRunRequest {
            event: Event::Push,
            reference: "refs/heads/main".into(),
            before: None,
            after: sha,
            pull_request: None,
        };
        let delivery = NewDelivery {
            repo: repo.id,
            delivery: "d1".into(),
            event: "push".into(),
            body: vec![],
            received_at: SystemClock.now(),
            disposition: Disposition::Requests(vec![push]),
        };
        self.state.store.add_repo(repo, UserId::new()).await.unwrap();
        self.state.store.accept_delivery(delivery).await.unwrap();
        self.state.wake.compile.notify_one();
    }

    /// Waits until the run is as it should be.
    async fn until(&self, what: &str, good: impl Fn(&RunDetail) -> bool) -> RunDetail {
        let end = Instant::now() + LONG;
        loop {
            let run = self.state.store.run(RunId(1)).await.unwrap();
            match run {
                Some(run) if good(&run) => return run,
                run if Instant::now() > end => panic!("{what} didn't happen: {run:#?}"),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn finished(&self) -> RunDetail {
        self.until("the end of the run", |run| run.run.status == Status::Finished).await
    }

    async fn log(&self, run: &RunDetail, epoch: u32) -> Vec<LogLine> {
        let attempt = AttemptId { job: run.jobs[0].id, epoch: Epoch(epoch) };
        let reader = self.state.logs.reader(attempt).await.unwrap();
        let lines = reader.page(1, u64::MAX).await.unwrap();
        assert!(lines.iter().map(|line| line.n).eq(1..=reader.lines()), "numbers have no gap");
        lines
    }

    /// Waits until the server has so many lines of the first attempt.
    async fn lines(&self, run: &RunDetail, count: u64) {
        let attempt = AttemptId { job: run.jobs[0].id, epoch: Epoch(1) };
        let end = Instant::now() + LONG;
        while self.state.logs.reader(attempt).await.unwrap().lines() < count {
            assert!(Instant::now() < end, "{count} lines didn't come");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").current_dir(folder).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn texts(lines: &[LogLine], step: u16) -> Vec<&str> {
    lines.iter().filter(|line| line.step == step).map(|line| line.text.as_str()).collect()
}

fn write(step: u16, text: impl Into<String>) -> Act {
    Act::Write(step, Stream::Stdout, Bytes::from(text.into()))
}

const TWO_STEPS: &str =
    "jobs:\n  test:\n    image: busybox\n    run:\n      - echo 하나\n      - echo 둘\n";
const ONE_STEP: &str = "jobs:\n  test:\n    image: busybox\n    run: make\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_is_checked_out_run_and_kept_whole() {
    let world = World::start().await;
    let seen = Arc::new(Mutex::new(String::new()));
    let file = Arc::clone(&seen);
    let executor = FakeExecutor::new(move |job: &JobRun| {
        *file.lock().unwrap() =
            std::fs::read_to_string(job.workspace.join(".pipeyard.yml")).unwrap();
        assert_eq!(job.env.get("PIPEYARD_REPO").map(String::as_str), Some("shop"));
        vec![
            Act::Start(1),
            write(1, "하나\r\n끝이 없는 줄"),
            Act::Finish(1, StepExit::Code(0)),
            Act::Start(2),
            Act::Write(2, Stream::Stderr, Bytes::from_static(b"\xff\xfe not text\n")),
            Act::Finish(2, StepExit::Code(0)),
            Act::File("out/shop.tar.gz".into(), b"bytes".to_vec()),
        ]
    });
    let runner = Runner::start(&world, executor);
    let pipeline = format!("{TWO_STEPS}    artifacts: [out/shop.tar.gz]\n");
    world.push(&pipeline).await;
    let run = world.finished().await;
    assert_eq!(run.run.conclusion, Some(Conclusion::Success), "{run:#?}");
    assert_eq!(*seen.lock().unwrap(), pipeline, "the workspace is the commit");
    let lines = world.log(&run, 1).await;
    assert_eq!(texts(&lines, 1), ["하나\r", "끝이 없는 줄"]);
    assert_eq!(texts(&lines, 2), ["\u{fffd}\u{fffd} not text"]);
    for step in &run.jobs[0].steps {
        let line = &lines[usize::try_from(step.first_line.unwrap()).unwrap() - 1];
        assert_eq!(line.step, step.step, "a step's first line is its own");
        assert!(step.started_at <= step.finished_at);
    }
    let artifacts = world.state.store.artifacts(RunId(1)).await.unwrap();
    assert_eq!((artifacts[0].path.as_str(), artifacts[0].size), ("out/shop.tar.gz", 5));
    let left = std::fs::read_dir(world.folder.path().join("runner/attempts")).unwrap().count();
    assert!(left <= 1, "workspaces are removed");
    drop(runner);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_reaches_the_job_by_its_heartbeat() {
    let world = World::start().await;
    let never = CancellationToken::new();
    let executor = FakeExecutor::new(move |_| {
        vec![Act::Start(1), write(1, "waiting\n"), Act::Until(never.clone())]
    });
    let _runner = Runner::start(&world, executor.clone());
    world.push(ONE_STEP).await;
    let run = world.until("the start", |run| run.run.status == Status::Running).await;
    world.lines(&run, 2).await;
    let asked = Instant::now();
    world.state.store.cancel_run(RunId(1), UserId::new(), SystemClock.now()).await.unwrap();
    let run = world.finished().await;
    assert_eq!(run.run.conclusion, Some(Conclusion::Cancelled));
    assert!(asked.elapsed() < Duration::from_secs(10), "took {:?}", asked.elapsed());
    assert_eq!(executor.seen().ended.len(), 1);
    assert_eq!(texts(&world.log(&run, 1).await, 1), ["waiting"], "what was written stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_runner_gives_its_job_back_with_every_line() {
    let world = World::start().await;
    let never = CancellationToken::new();
    let first = FakeExecutor::new(move |_| {
        let text: String = (0..5_000).map(|n| format!("line {n}\n")).collect();
        vec![Act::Start(1), write(1, text), Act::Until(never.clone())]
    });
    let runner = Runner::start(&world, first);
    world.push(ONE_STEP).await;
    let run = world.until("the start", |run| run.run.status == Status::Running).await;
    world.lines(&run, 100).await;
    runner.kill();
    let _again = Runner::start(&world, FakeExecutor::echo());
    let run = world.finished().await;
    assert_eq!(run.run.conclusion, Some(Conclusion::Success), "{run:#?}");
    let attempts = &run.jobs[0].attempts;
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0].reason.as_ref().unwrap().code, "runner_lost");
    assert_eq!(texts(&world.log(&run, 1).await, 1).len(), 5_000);
    assert_eq!(texts(&world.log(&run, 2).await, 1), ["make"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_in_the_middle_loses_and_renumbers_nothing() {
    let mut world = World::start().await;
    let go_on = CancellationToken::new();
    let gate = go_on.clone();
    let executor = FakeExecutor::new(move |_| {
        let text = |from: u32| (from..from + 1_000).map(|n| format!("{n}\n")).collect::<String>();
        vec![
            Act::Start(1),
            write(1, text(0)),
            Act::Until(gate.clone()),
            write(1, text(1_000)),
            Act::Finish(1, StepExit::Code(0)),
        ]
    });
    let _runner = Runner::start(&world, executor.clone());
    world.push(ONE_STEP).await;
    let run = world.until("the start", |run| run.run.status == Status::Running).await;
    world.lines(&run, 1_000).await;
    let before = world.log(&run, 1).await;
    world.stop_server().await;
    // The job goes on while nobody listens.
    go_on.cancel();
    let end = Instant::now() + LONG;
    while executor.seen().ended.is_empty() {
        assert!(Instant::now() < end, "the job waits for the server");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.start_server().await;
    let run = world.finished().await;
    assert_eq!(run.run.conclusion, Some(Conclusion::Success), "{run:#?}");
    let after = world.log(&run, 1).await;
    assert_eq!(after[..before.len()], before[..]);
    let numbers: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
    assert_eq!(texts(&after, 1), numbers);
    assert_eq!(run.jobs[0].attempts.len(), 1);
}
