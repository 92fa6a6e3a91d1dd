//! A runner, a server and a Git repository, all real but for the executor, which plays a script.

#![expect(clippy::unwrap_used, reason = "a test may end by a panic")]

mod copied;
mod late;
mod limit;
mod unable;
mod world;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use pipeyard_executor::{
    JobRun, StepExit,
    fake::{Act, FakeExecutor},
};
use pipeyard_model::{
    Actor, Clock as _, Conclusion, RunId, Status, SystemClock, UserId, log::Stream,
};
use tokio_util::sync::CancellationToken;

use world::{LONG, ONE_STEP, Runner, World, texts, write};

const TWO_STEPS: &str =
    "jobs:\n  test:\n    image: busybox\n    run:\n      - echo 하나\n      - echo 둘\n";

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
    world
        .state
        .store
        .cancel_run(RunId(1), Actor::user(UserId::new()), SystemClock.now())
        .await
        .unwrap();
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
