//! What a user expects of steps.

use std::{fs, os::unix::fs::MetadataExt, time::Duration};

use pipeyard_executor::{JobEvent, StepExit};
use pipeyard_model::{Conclusion, log::Stream};
use tokio_util::sync::CancellationToken;

use crate::support::{BUSYBOX, Stage, secret, spec, step};

#[tokio::test]
async fn steps_share_the_workspace_and_keep_their_order() {
    let Some(stage) = Stage::set("steps_share_the_workspace_and_keep_their_order").await else {
        return;
    };
    fs::write(stage.workspace().join("input"), "from the commit\n").unwrap();
    let mut job =
        spec(BUSYBOX, &["cat input; echo $A$B$CI; pwd > made", "cat made; echo 경고 >&2"]);
    job.env.insert("A".to_owned(), "job".to_owned());
    job.env.insert("B".to_owned(), "job".to_owned());
    job.steps[0].env.insert("B".to_owned(), "step".to_owned());
    let seen = stage.run(job).await;
    seen.succeeded();
    assert_eq!(seen.stdout(), "from the commit\njobsteptrue\n/workspace\n");
    assert_eq!(seen.bytes(Stream::Stderr), "경고\n".as_bytes());
    assert_eq!(seen.exits(), [(1, StepExit::Code(0)), (2, StepExit::Code(0))]);
    let order: Vec<u16> = seen
        .events
        .iter()
        .filter_map(|event| match event {
            JobEvent::StepStarted { step, .. }
            | JobEvent::Output { step, .. }
            | JobEvent::StepFinished { step, .. } => Some(*step),
            JobEvent::Note { .. } => None,
        })
        .collect();
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(fs::read_to_string(stage.workspace().join("made")).unwrap(), "/workspace\n");
    stage.end().await;
}

#[tokio::test]
async fn a_failed_command_ends_the_step_and_the_job() {
    let Some(stage) = Stage::set("a_failed_command_ends_the_step_and_the_job").await else {
        return;
    };
    let seen =
        stage.run(spec(BUSYBOX, &["true", "false\necho not reached", "echo nor this"])).await;
    seen.is(Conclusion::Failure, "step_failed");
    assert!(seen.message().contains("Step 2 (false) exited with 1"), "{}", seen.message());
    assert_eq!(seen.stdout(), "");
    assert_eq!(seen.exits(), [(1, StepExit::Code(0)), (2, StepExit::Code(1))]);
    stage.end().await;
}

#[tokio::test]
async fn an_image_without_a_shell_is_told_by_its_code() {
    let Some(stage) = Stage::set("an_image_without_a_shell_is_told_by_its_code").await else {
        return;
    };
    let seen = stage.run(spec("pipeyard/noshell:test", &["echo hello"])).await;
    seen.is(Conclusion::Error, "no_shell");
    let message = seen.message();
    assert!(message.contains("the image pipeyard/noshell:test has no /bin/sh"), "{message}");
    stage.end().await;
}

#[tokio::test]
async fn an_image_with_a_user_runs_as_that_user_and_can_write_the_workspace() {
    let test = "an_image_with_a_user_runs_as_that_user_and_can_write_the_workspace";
    let Some(stage) = Stage::set(test).await else { return };
    fs::create_dir(stage.workspace().join("src")).unwrap();
    fs::write(stage.workspace().join("src/file"), "old").unwrap();
    let before = fs::metadata(stage.workspace()).unwrap().uid();
    let script = "id -u; echo $HOME; echo new > src/file; mkdir out; echo x > out/made\n\
                  cat /proc/1/environ 2>/dev/null && echo readable; true";
    let seen = stage.run(spec("pipeyard/user:test", &[script])).await;
    seen.succeeded();
    assert_eq!(seen.stdout(), "1000\n/home/app\n");
    assert_eq!(fs::read_to_string(stage.workspace().join("src/file")).unwrap(), "new\n");
    for path in ["", "src/file", "out/made"] {
        let owner = fs::metadata(stage.workspace().join(path)).unwrap().uid();
        assert_eq!(owner, before, "{path:?} belongs to its first owner again");
    }
    stage.end().await;
}

#[tokio::test]
async fn a_step_may_have_an_image_of_its_own() {
    let Some(stage) = Stage::set("a_step_may_have_an_image_of_its_own").await else { return };
    let mut job =
        spec(BUSYBOX, &["echo one > file; touch /tmp/mine", "", "cat file; ls /tmp/mine"]);
    job.steps[1] =
        step("bash -c 'cat file; echo ${BASH_VERSION:0:1} | tr 0-9 n; echo two >> file'");
    job.steps[1].image = Some("pipeyard/bash:test".to_owned());
    let seen = stage.run(job).await;
    seen.succeeded();
    assert_eq!(seen.stdout(), "one\nn\none\ntwo\n/tmp/mine\n");
    assert_eq!(seen.exits().iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1, 2, 3]);

    let mut job = spec(BUSYBOX, &["true", "exit 4", "echo not reached"]);
    job.steps[1].image = Some("pipeyard/bash:test".to_owned());
    let seen = stage.run(job).await;
    seen.is(Conclusion::Failure, "step_failed");
    assert_eq!(seen.exits(), [(1, StepExit::Code(0)), (2, StepExit::Code(4))]);
    assert_eq!(seen.stdout(), "");
    stage.end().await;
}

#[tokio::test]
async fn a_steps_timeout_ends_the_job_with_what_it_started() {
    let Some(stage) = Stage::set("a_steps_timeout_ends_the_job_with_what_it_started").await else {
        return;
    };
    let mut job = spec(BUSYBOX, &["sleep 1000 & echo begun; sleep 1000", "echo not reached"]);
    job.steps[0].timeout = Some(Duration::from_secs(1));
    let seen = stage.run(job).await;
    seen.is(Conclusion::TimedOut, "step_timeout");
    assert_eq!(seen.exits(), [(1, StepExit::TimedOut)]);
    assert_eq!(seen.stdout(), "begun\n");
    stage.end().await;
}

#[tokio::test]
async fn the_jobs_timeout_ends_it_too() {
    let Some(stage) = Stage::set("the_jobs_timeout_ends_it_too").await else { return };
    let mut job = spec(BUSYBOX, &["sleep 1000"]);
    job.timeout = Duration::from_secs(2);
    let seen = stage.run(job).await;
    seen.is(Conclusion::TimedOut, "job_timeout");
    stage.end().await;
}

#[tokio::test]
async fn a_cancelled_step_gets_its_grace_period() {
    let Some(stage) = Stage::set("a_cancelled_step_gets_its_grace_period").await else { return };
    let script = "trap 'echo cleaned up; exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    let cancel = CancellationToken::new();
    let job = stage.job(spec(BUSYBOX, &[script, "echo not reached"]));
    let seen = stage
        .run_job(job, cancel.clone(), |event| {
            if matches!(event, JobEvent::Output { .. }) {
                cancel.cancel();
            }
        })
        .await;
    seen.is(Conclusion::Cancelled, "cancelled");
    assert_eq!(seen.stdout(), "ready\ncleaned up\n");
    assert_eq!(seen.exits(), [(1, StepExit::Cancelled)]);
    stage.end().await;
}

#[tokio::test]
async fn a_cancel_reaches_a_step_in_an_image_of_its_own() {
    let Some(stage) = Stage::set("a_cancel_reaches_a_step_in_an_image_of_its_own").await else {
        return;
    };
    let cancel = CancellationToken::new();
    let mut job = spec(BUSYBOX, &["echo ready; sleep 1000"]);
    job.steps[0].image = Some("pipeyard/bash:test".to_owned());
    let job = stage.job(job);
    let seen = stage
        .run_job(job, cancel.clone(), |event| {
            if matches!(event, JobEvent::Output { .. }) {
                cancel.cancel();
            }
        })
        .await;
    seen.is(Conclusion::Cancelled, "cancelled");
    assert_eq!(seen.exits(), [(1, StepExit::Cancelled)]);
    stage.end().await;
}

#[tokio::test]
async fn a_secret_is_in_the_steps_environment_and_nowhere_in_docker() {
    let test = "a_secret_is_in_the_steps_environment_and_nowhere_in_docker";
    let Some(stage) = Stage::set(test).await else { return };
    let value = "s3cr3t-7f1c9a-value";
    let mut job = stage.job(spec(BUSYBOX, &["echo ready; read x < /workspace/go; echo $TOKEN"]));
    job.secrets.extend([secret("TOKEN", value)]);
    crate::support::docker(&["version"]);
    std::process::Command::new("mkfifo").arg(stage.workspace().join("go")).status().unwrap();
    let mut record = String::new();
    let go = stage.workspace().join("go");
    let seen = stage
        .run_job(job, CancellationToken::new(), |event| {
            if matches!(event, JobEvent::Output { .. }) && record.is_empty() {
                for name in stage.containers() {
                    record += &crate::support::docker(&["inspect", &name]);
                    record += &crate::support::docker(&["top", &name, "-ef"]);
                    record += &crate::support::docker(&["diff", &name]);
                }
                fs::write(&go, "go\n").unwrap();
            }
        })
        .await;
    seen.succeeded();
    assert_eq!(seen.stdout(), format!("ready\n{value}\n"));
    assert!(record.contains("/.pipeyard-shim"), "{record}");
    assert!(!record.contains(value), "{record}");
    stage.end().await;
}

#[tokio::test]
async fn running_out_of_memory_is_told() {
    let Some(stage) = Stage::set_with("running_out_of_memory_is_told", |config| {
        config.limits.memory_bytes = 64 * 1024 * 1024;
    })
    .await
    else {
        return;
    };
    let seen = stage.run(spec(BUSYBOX, &["exec tail -c 400000000 /dev/zero"])).await;
    seen.is(Conclusion::Failure, "out_of_memory");
    assert_eq!(seen.exits(), [(1, StepExit::Signal(9))]);
    stage.end().await;
}

#[tokio::test]
async fn steps_have_few_capabilities_and_bounded_processes() {
    let Some(stage) =
        Stage::set_with("steps_have_few_capabilities_and_bounded_processes", |config| {
            config.limits.pids = 50;
        })
        .await
    else {
        return;
    };
    let script = "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; mknod /tmp/n c 1 3 || echo no mknod";
    let seen = stage.run(spec(BUSYBOX, &[script])).await;
    seen.succeeded();
    // Docker's default set is a80425fb; without MKNOD (27), AUDIT_WRITE (29) and NET_RAW (13) it is:
    assert!(seen.stdout().contains("CapEff:\t00000000800405fb"), "{}", seen.stdout());
    assert!(seen.stdout().contains("NoNewPrivs:\t1"), "{}", seen.stdout());
    assert!(seen.stdout().contains("no mknod"), "{}", seen.stdout());
    let bomb = "i=0; while [ $i -lt 100 ]; do sleep 100 & i=$((i+1)); done";
    let seen = stage.run(spec(BUSYBOX, &[bomb])).await;
    assert_eq!(seen.outcome.conclusion, Conclusion::Failure, "{seen:#?}");
    stage.end().await;
}
