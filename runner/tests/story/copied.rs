//! A data folder that was copied, with the runner of the original alive.

use std::{path::Path, sync::Arc};

use pipeyard_executor::fake::{Act, FakeExecutor};
use pipeyard_model::{Conclusion, Status};
use pipeyard_runner::{RunnerConfig, run_with};
use tokio_util::sync::CancellationToken;

use crate::world::{ONE_STEP, Runner, World, write};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_runner_is_refused_before_it_touches_anything() {
    let world = World::start().await;
    let go_on = CancellationToken::new();
    let gate = go_on.clone();
    let executor = FakeExecutor::new(move |_| {
        vec![
            Act::Start(1),
            write(1, "working\n"),
            Act::Until(gate.clone()),
            Act::Finish(1, pipeyard_executor::StepExit::Code(0)),
        ]
    });
    let _runner = Runner::start(&world, executor);
    world.push(ONE_STEP).await;
    let run = world.until("the start", |run| run.run.status == Status::Running).await;
    world.lines(&run, 2).await;
    let folder = world.folder.path().join("copy");
    copy(&world.folder.path().join("runner"), &folder);
    let second = FakeExecutor::echo();
    let config = RunnerConfig {
        server: format!("http://{}", world.address),
        data_dir: folder,
        name: "copy".into(),
        ..RunnerConfig::default()
    };
    let (drain, cancel) = (CancellationToken::new(), CancellationToken::new());
    let ended = run_with(config, Some(Arc::new(second.clone())), drain, cancel).await;
    let said = format!("{:#}", ended.unwrap_err());
    assert!(said.contains("runner_is_live") && said.contains("pipectl runners token"), "{said}");
    assert!(second.seen().reconciled.is_empty(), "it removed what the first one works with");
    // The first one never noticed.
    go_on.cancel();
    let run = world.finished().await;
    assert_eq!(run.run.conclusion, Some(Conclusion::Success));
    assert_eq!(run.jobs[0].attempts.len(), 1);
}
