//! What ends a log before its job does: its limit, or the runner's disk.

use std::process::Command;

use pipeyard_executor::fake::{Act, FakeExecutor};
use pipeyard_model::Conclusion;
use tokio_util::sync::CancellationToken;

use crate::world::{ONE_STEP, Runner, World, texts, write};

/// A job that writes and writes until it is ended.
fn endless() -> FakeExecutor {
    FakeExecutor::new(|_| {
        let block = "a row of a log that has no end\n".repeat(1000);
        let mut acts = vec![Act::Start(1)];
        acts.extend((0..2000).map(|_| write(1, block.clone())));
        acts.push(Act::Until(CancellationToken::new()));
        acts
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_writes_too_much_ends_with_the_limit_and_keeps_what_fits() {
    let world = World::start().await;
    let executor = endless();
    let _runner = Runner::with(&world, executor.clone(), |config| config.max_log_bytes = 3 << 20);
    world.push(ONE_STEP).await;
    let run = world.finished().await;
    assert_eq!(run.run.conclusion, Some(Conclusion::Failure), "{run:#?}");
    let reason = run.jobs[0].reason.clone().unwrap();
    assert_eq!(reason.code, "log_limit");
    assert!(reason.message.contains("3 MiB"), "{}", reason.message);
    assert_eq!(executor.seen().ended.len(), 1, "the job was ended");
    let lines = world.log(&run, 1).await;
    assert!(texts(&lines, 1).iter().all(|text| *text == "a row of a log that has no end"));
    let last = lines.last().unwrap();
    assert_eq!(last.text, format!("log_limit: {}", reason.message));
    let bytes = run.jobs[0].attempts[0].log_bytes;
    assert!((3_000_000..(3 << 20) + 1000).contains(&bytes), "{bytes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_runner_is_told_and_harms_no_later_job() {
    let world = World::start().await;
    let disk = Disk::of_8_mb(&world);
    let found = disk.as_ref().map(drop).ok_or_else(|| "no tmpfs can be mounted".to_owned());
    let test = "a_full_disk_of_the_runner_is_told_and_harms_no_later_job";
    if !pipeyard_needs::met(test, pipeyard_needs::Need::Root, found) {
        return;
    }
    let disk = disk.unwrap();
    let _runner = Runner::with(&world, endless(), |config| config.data_dir.clone_from(&disk.0));
    world.push(ONE_STEP).await;
    let run = world.finished().await;
    assert_eq!(run.run.conclusion, Some(Conclusion::Error), "{run:#?}");
    let reason = run.jobs[0].reason.clone().unwrap();
    assert_eq!(reason.code, "runner_disk");
    assert!(reason.message.contains("the disk of the runner test is full"), "{}", reason.message);
    // What fitted is whole lines, all of them at the server.
    let lines = world.log(&run, 1).await;
    let rows = texts(&lines, 1);
    assert!(rows.len() > 10_000, "{}", rows.len());
    assert!(rows.iter().all(|text| *text == "a row of a log that has no end"));
}

/// A small file system of its own.
struct Disk(std::path::PathBuf);

impl Disk {
    fn of_8_mb(world: &World) -> Option<Self> {
        let path = world.folder.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(&path)
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
