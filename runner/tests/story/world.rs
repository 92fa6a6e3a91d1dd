//! A server, a repository and runners of a test, and the line between them.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pipeyard_api::views::{Event, LogLine, RunDetail};
use pipeyard_executor::fake::{Act, FakeExecutor};
use pipeyard_model::{
    Actor, AttemptId, Clock as _, Epoch, HookId, RepoId, RepoName, RunId, Status, SystemClock,
    UserId, log::Stream, runner::Grant,
};
use pipeyard_runner::{RunnerConfig, run_with};
use pipeyard_server::{AppState, ServerConfig, http::runners::mint_registration_token, serve};
use pipeyard_store::{
    intake::{Disposition, NewDelivery, NewRunRequest},
    repos::{Forge, Repo},
};
use pipeyard_store_sqlite::SqliteStore;
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The server and the folder of everything.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) state: AppState,
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

/// A runner on a runtime of its own: dropping that is the process's sudden end.
pub(crate) struct Runner {
    runtime: Option<Runtime>,
    drain: CancellationToken,
}

impl Runner {
    pub(crate) fn start(world: &World, executor: FakeExecutor) -> Self {
        Self::with(world, executor, |_| {})
    }

    /// The same with other settings.
    pub(crate) fn with(
        world: &World,
        executor: FakeExecutor,
        change: impl FnOnce(&mut RunnerConfig),
    ) -> Self {
        let mut config = RunnerConfig {
            server: format!("http://{}", world.address),
            data_dir: world.folder.path().join("runner"),
            token_file: Some(world.folder.path().join("token")),
            name: "test".into(),
            ..RunnerConfig::default()
        };
        change(&mut config);
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
    pub(crate) fn kill(mut self) {
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
    let store = SqliteStore::open(&data_dir.join("pipeyard.sqlite"), clock.clone()).await.unwrap();
    let installation = store.installation();
    let config = ServerConfig { data_dir, listen: address, ..ServerConfig::default() };
    let state = AppState::open(Arc::new(store), clock, config, installation).unwrap();
    let stop = CancellationToken::new();
    let (tell, bound) = tokio::sync::oneshot::channel();
    let serving = serve(state.clone(), move |address| tell.send(address).unwrap(), stop.clone());
    let server = tokio::spawn(async move { serving.await.unwrap() });
    (state, bound.await.unwrap(), stop, server)
}

/// A line to the server that the test can cut.
pub(crate) struct Line {
    pub(crate) address: SocketAddr,
    is_open: watch::Sender<bool>,
}

impl Line {
    pub(crate) async fn to(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, server) = (listener.local_addr().unwrap(), world.address);
        let is_open = watch::Sender::new(true);
        let watched = is_open.subscribe();
        tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let mut watched = watched.clone();
                tokio::spawn(async move {
                    let carry = async {
                        let mut there = TcpStream::connect(server).await?;
                        tokio::io::copy_bidirectional(&mut here, &mut there).await
                    };
                    tokio::select! {
                        _ = watched.wait_for(|is_open| !is_open) => {}
                        _ = carry => {}
                    }
                });
            }
        });
        Self { address, is_open }
    }

    /// Ends every connection, and new ones at once.
    pub(crate) fn cut(&self) {
        self.is_open.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.is_open.send_replace(true);
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (state, address, stop, server) =
            open(folder.path(), SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let token = mint_registration_token(
            &state,
            Grant::everything(),
            Duration::from_secs(3600),
            Actor::user(UserId::new()),
        )
        .await
        .unwrap_or_else(|_| panic!("no token"));
        std::fs::write(folder.path().join("token"), token.token).unwrap();
        Self { folder, state, address, stop, server }
    }

    pub(crate) async fn stop_server(&mut self) {
        self.stop.cancel();
        (&mut self.server).await.unwrap();
    }

    /// Starts the server again where it was.
    pub(crate) async fn start_server(&mut self) {
        let (state, address, stop, server) = open(self.folder.path(), self.address).await;
        (self.state, self.address, self.stop, self.server) = (state, address, stop, server);
    }

    /// A repository with this pipeline, pushed.
    pub(crate) async fn push(&self, pipeline: &str) {
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
            forge_user: None,
        };
        let delivery = NewDelivery {
            body_hash: None,
            repo: repo.id,
            delivery: "d1".into(),
            event: "push".into(),
            body: vec![],
            received_at: SystemClock.now(),
            disposition: Disposition::Requests(vec![push]),
        };
        self.state.store.add_repo(repo, Actor::user(UserId::new())).await.unwrap();
        self.state.store.accept_delivery(delivery).await.unwrap();
        self.state.wake.compile.notify_one();
    }

    /// Waits until the run is as it should be.
    pub(crate) async fn until(&self, what: &str, good: impl Fn(&RunDetail) -> bool) -> RunDetail {
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

    pub(crate) async fn finished(&self) -> RunDetail {
        self.until("the end of the run", |run| run.run.status == Status::Finished).await
    }

    pub(crate) async fn log(&self, run: &RunDetail, epoch: u32) -> Vec<LogLine> {
        let attempt = AttemptId { job: run.jobs[0].id, epoch: Epoch(epoch) };
        let reader = self.state.logs.reader(attempt).await.unwrap();
        let lines = reader.page(1, u64::MAX, usize::MAX).await.unwrap();
        assert!(lines.iter().map(|line| line.n).eq(1..=reader.lines()), "numbers have no gap");
        lines
    }

    /// Waits until the server has so many lines of the first attempt.
    pub(crate) async fn lines(&self, run: &RunDetail, count: u64) {
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

pub(crate) fn texts(lines: &[LogLine], step: u16) -> Vec<&str> {
    lines.iter().filter(|line| line.step == step).map(|line| line.text.as_str()).collect()
}

pub(crate) fn write(step: u16, text: impl Into<String>) -> Act {
    Act::Write(step, Stream::Stdout, Bytes::from(text.into()))
}

/// The shortest pipeline.
pub(crate) const ONE_STEP: &str = "jobs:\n  test:\n    image: busybox\n    run: make\n";
