//! A runner whose Docker is away takes no job, says so, and gives back what it has taken.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use pipeyard_executor::{
    JobOutcome, Reason, StepExit,
    fake::{Act, FakeExecutor},
};
use pipeyard_model::{Clock as _, Conclusion, SystemClock};

use super::{
    ONE_STEP, Runner, World,
    world::{LONG, write},
};

fn good() -> Vec<Act> {
    vec![Act::Start(1), write(1, "made"), Act::Finish(1, StepExit::Code(0))]
}

async fn state(world: &World) -> (String, Option<String>) {
    let runners = world.state.store.runners(SystemClock.now()).await.unwrap();
    let runner = runners.into_iter().next();
    runner.map(|runner| (runner.state, runner.trouble)).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_that_can_run_nothing_takes_no_job_and_says_why() {
    let world = World::start().await;
    let unable = Arc::new(AtomicBool::new(true));
    let executor = FakeExecutor::new(|_| good()).unable_while(Arc::clone(&unable));
    let _runner = Runner::start(&world, executor.clone());
    world.push(ONE_STEP).await;
    let told = async {
        loop {
            let (state, trouble) = state(&world).await;
            if state == "unable" {
                return trouble;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let trouble = tokio::time::timeout(LONG, told).await.unwrap().unwrap();
    assert!(trouble.contains("Docker doesn't answer"), "{trouble}");
    assert!(executor.seen().started.is_empty());

    unable.store(false, Ordering::SeqCst);
    let run = world.finished().await;
    assert_eq!(run.run.conclusion, Some(Conclusion::Success));
    assert_eq!(run.jobs[0].attempts.len(), 1, "{run:#?}");
    assert_eq!(state(&world).await, ("online".to_owned(), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_of_which_nothing_was_begun_is_given_back() {
    let world = World::start().await;
    let tries = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&tries);
    let executor = FakeExecutor::new(move |_| {
        if count.fetch_add(1, Ordering::SeqCst) < 2 {
            let reason = Reason {
                code: "docker_unavailable".to_owned(),
                message: "Docker doesn't answer".to_owned(),
            };
            return vec![Act::End(JobOutcome {
                conclusion: Conclusion::Error,
                reason: Some(reason),
            })];
        }
        good()
    });
    let _runner = Runner::start(&world, executor);
    // Without a retry: a spent attempt would be the end.
    world.push(ONE_STEP).await;
    let run = world.finished().await;
    assert_eq!(run.run.conclusion, Some(Conclusion::Success), "{run:#?}");
    assert_eq!(tries.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_whose_step_has_begun_is_not_given_back() {
    let world = World::start().await;
    let executor = FakeExecutor::new(|_| {
        let reason = Reason {
            code: "docker_unavailable".to_owned(),
            message: "Docker doesn't answer".to_owned(),
        };
        let end = JobOutcome { conclusion: Conclusion::Error, reason: Some(reason) };
        vec![Act::Start(1), write(1, "begun"), Act::End(end)]
    });
    let _runner = Runner::start(&world, executor.clone());
    world.push(ONE_STEP).await;
    let run = world.finished().await;
    assert_eq!(run.run.conclusion, Some(Conclusion::Error), "{run:#?}");
    assert_eq!(executor.seen().started.len(), 1);
}
