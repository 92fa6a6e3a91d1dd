//! A runner that was away for longer than its lease comes back with what it journaled.

use std::time::{Duration, Instant};

use pipeyard_api::views::RunDetail;
use pipeyard_executor::{
    JobRun, StepExit,
    fake::{Act, FakeExecutor},
};
use pipeyard_model::{AttemptId, Clock as _, Conclusion, Epoch, Status, SystemClock};
use pipeyard_store::queue::LEASE_SECONDS;
use tokio_util::sync::CancellationToken;

use crate::world::{LONG, Line, ONE_STEP, Runner, World, texts, write};

const LINES: usize = 5_000;

/// The first attempt says `early`, and all the other lines when `go_on` is cancelled; then it hangs.
/// The second one is short.
fn executor(go_on: &CancellationToken) -> FakeExecutor {
    let go_on = go_on.clone();
    FakeExecutor::new(move |job: &JobRun| {
        if job.attempt.epoch != Epoch(1) {
            return vec![Act::Start(1), write(1, "again\n"), Act::Finish(1, StepExit::Code(0))];
        }
        let text: String = (0..LINES).map(|n| format!("line {n}\n")).collect();
        let never = CancellationToken::new();
        vec![
            Act::Start(1),
            write(1, "early\n"),
            Act::Until(go_on.clone()),
            write(1, text),
            Act::Until(never),
        ]
    })
}

/// The first attempt runs, and has written while the line was cut: its journal has every line, the
/// server one.
async fn cut_off(world: &World, line: &Line, go_on: &CancellationToken) -> RunDetail {
    world.push(ONE_STEP).await;
    let run = world.until("the start", |run| run.run.status == Status::Running).await;
    // The line about the checkout, and the first one of the step.
    world.lines(&run, 2).await;
    line.cut();
    go_on.cancel();
    let journal = world.folder.path().join(format!("runner/attempts/{}-1/log", run.jobs[0].id));
    let end = Instant::now() + LONG;
    while std::fs::read(&journal).unwrap().iter().filter(|b| **b == b'\n').count() < LINES + 2 {
        assert!(Instant::now() < end, "the lines aren't journaled");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    run
}

/// The lease ends as if its time had passed.
async fn lease_ends(world: &World) {
    let later = SystemClock.now() + Duration::from_secs(u64::from(LEASE_SECONDS) + 1);
    let lost = world.state.store.expire_leases(later).await.unwrap();
    assert_eq!(lost.len(), 1);
}

/// Both attempts have their own log, whole.
async fn both_are_whole(world: &World) {
    let run = world.finished().await;
    assert_eq!(run.run.conclusion, Some(Conclusion::Success), "{run:#?}");
    let attempts = &run.jobs[0].attempts;
    assert_eq!(attempts.len(), 2, "{run:#?}");
    assert_eq!(attempts[0].reason.as_ref().unwrap().code, "runner_lost");
    world.lines(&run, LINES as u64 + 2).await;
    let first = world.log(&run, 1).await;
    let mut expected = vec!["early".to_owned()];
    expected.extend((0..LINES).map(|n| format!("line {n}")));
    assert_eq!(texts(&first, 1), expected);
    assert_eq!(texts(&world.log(&run, 2).await, 1), ["again"]);
    let first = AttemptId { job: run.jobs[0].id, epoch: Epoch(1) };
    let bytes = world.state.logs.length(first).await.unwrap();
    let run =
        world.until("the length is told", |run| run.jobs[0].attempts[0].log_bytes == bytes).await;
    assert_eq!(run.run.conclusion, Some(Conclusion::Success), "nothing else has changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_journaled_while_the_runner_was_away_reaches_the_server() {
    let world = World::start().await;
    let line = Line::to(&world).await;
    let go_on = CancellationToken::new();
    let _runner = Runner::with(&world, executor(&go_on), |config| {
        config.server = format!("http://{}", line.address);
    });
    cut_off(&world, &line, &go_on).await;
    lease_ends(&world).await;
    line.mend();
    both_are_whole(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_that_was_killed_meanwhile_ships_its_journal_all_the_same() {
    let world = World::start().await;
    let line = Line::to(&world).await;
    let go_on = CancellationToken::new();
    let through_the_line = |config: &mut pipeyard_runner::RunnerConfig| {
        config.server = format!("http://{}", line.address);
    };
    let runner = Runner::with(&world, executor(&go_on), through_the_line);
    cut_off(&world, &line, &go_on).await;
    runner.kill();
    lease_ends(&world).await;
    line.mend();
    let _again = Runner::with(&world, executor(&go_on), through_the_line);
    both_are_whole(&world).await;
}
