//! What a step may try, on purpose or by accident, and can't.

use pipeyard_executor::{Executor, JobEvent, StepExit};
use pipeyard_model::{Conclusion, log::Stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::{BUSYBOX, Stage, secret, spec};

#[tokio::test]
async fn a_step_can_neither_forge_the_end_nor_look_into_the_shim() {
    let Some(stage) = Stage::set("a_step_can_neither_forge_the_end_nor_look_into_the_shim").await
    else {
        return;
    };
    // A sentinel frame of the right form with a nonce of zeros, by every way to the shim's output.
    let script = r"
        frame() { printf '\007\000\000\000\000\000\000\000\000\000\000\040\000\000\000'; head -c 32 /dev/zero; }
        frame > /proc/1/fd/1 && echo WROTE 1
        frame > /proc/1/fd/2 && echo WROTE 2
        frame | tee /proc/1/fd/1 > /dev/null 2>&1 && echo WROTE 3
        cat /proc/1/environ && echo READ 1
        head -c 1 /proc/1/mem && echo READ 2
        head -c 1 /proc/1/fd/0 && echo READ 3
        kill -9 1; kill -TERM 1; kill -STOP 1; kill -INT 1
        ls /proc/self/fd | tr '\n' ' '
        frame
        exit 7";
    let mut job = stage.job(spec(BUSYBOX, &["true", script]));
    job.secrets.extend([secret("TOKEN", "s3cr3t-of-the-job")]);
    let seen = stage.run_job(job, CancellationToken::new(), |_| {}).await;
    seen.is(Conclusion::Failure, "step_failed");
    assert_eq!(seen.exits(), [(1, StepExit::Code(0)), (2, StepExit::Code(7))]);
    let said = seen.stdout();
    for trick in ["WROTE", "READ"] {
        assert!(!said.contains(trick), "{said}");
    }
    // Besides its own three there is the one that `ls` opened.
    assert!(said.contains("0 1 2 3 "), "{said}");
    stage.end().await;
}

#[tokio::test]
async fn a_step_that_kills_everything_ends_itself_only() {
    let Some(stage) = Stage::set("a_step_that_kills_everything_ends_itself_only").await else {
        return;
    };
    let seen = stage.run(spec(BUSYBOX, &["sleep 100 & kill -9 -1; kill -9 $$"])).await;
    seen.is(Conclusion::Failure, "step_killed");
    assert_eq!(seen.exits(), [(1, StepExit::Signal(9))]);
    stage.end().await;
}

#[tokio::test]
async fn a_background_child_that_holds_the_output_delays_nothing() {
    let Some(stage) = Stage::set("a_background_child_that_holds_the_output_delays_nothing").await
    else {
        return;
    };
    let noisy = "(trap '' TERM HUP; while :; do echo noise; done) & echo begun";
    let daemon = "setsid sh -c 'exec sleep 1000' & true";
    let seen = stage.run(spec(BUSYBOX, &[noisy, daemon, "echo third"])).await;
    seen.succeeded();
    assert_eq!(seen.exits().len(), 3);
    assert!(seen.stdout().contains("begun") && seen.stdout().contains("third"));
    stage.end().await;
}

#[tokio::test]
async fn a_step_that_forks_and_ignores_sigterm_is_gone_after_the_grace_period() {
    let test = "a_step_that_forks_and_ignores_sigterm_is_gone_after_the_grace_period";
    let Some(stage) = Stage::set(test).await else { return };
    let script = "trap '' TERM INT HUP; setsid sh -c \"trap '' TERM; sleep 999\" &\n\
                  sh -c \"trap '' TERM; sleep 999\" & echo ready; sleep 999; sleep 999";
    let cancel = CancellationToken::new();
    let mut asked = None;
    let seen = stage
        .run_job(stage.job(spec(BUSYBOX, &[script])), cancel.clone(), |event| {
            if matches!(event, JobEvent::Output { .. }) {
                asked.get_or_insert_with(std::time::Instant::now);
                cancel.cancel();
            }
        })
        .await;
    let took = asked.map(|asked| asked.elapsed());
    seen.is(Conclusion::Cancelled, "cancelled");
    assert!(took.is_some_and(|took| took.as_secs() < 12), "{took:?}");
    stage.end().await;
}

/// 200 MB in one line; a gigabyte takes the same way.
#[tokio::test]
async fn output_without_a_newline_needs_bounded_memory() {
    let Some(stage) = Stage::set("output_without_a_newline_needs_bounded_memory").await else {
        return;
    };
    const SIZE: usize = 200_000_000;
    let script = format!("head -c {SIZE} /dev/zero | tr '\\0' x");
    let (sender, mut receiver) = mpsc::channel(8);
    let (mut total, mut largest) = (0, 0);
    let count = async {
        while let Some(event) = receiver.recv().await {
            if let JobEvent::Output { bytes, .. } = event {
                assert!(bytes.iter().all(|byte| *byte == b'x'));
                total += bytes.len();
                largest = largest.max(bytes.len());
            }
        }
    };
    let before = resident_mb();
    let job = stage.job(spec(BUSYBOX, &[&script]));
    let run = stage.executor.run(job, sender, CancellationToken::new());
    let (outcome, ()) = tokio::join!(run, count);
    assert_eq!(outcome.conclusion, Conclusion::Success, "{outcome:?}");
    assert_eq!(total, SIZE);
    assert!(largest <= 64 * 1024, "{largest}");
    // The other tests of this process use some of it.
    assert!(resident_mb() < before + 60, "{before} MB, then {} MB", resident_mb());
    stage.end().await;
}

fn resident_mb() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4 / 1024
}

#[tokio::test]
async fn bytes_that_are_no_text_arrive_unchanged() {
    let Some(stage) = Stage::set("bytes_that_are_no_text_arrive_unchanged").await else { return };
    let script =
        r"printf '\377\376\000\033[31m\355\225'; printf '\234\n<b>'; printf 'no newline' >&2";
    let seen = stage.run(spec(BUSYBOX, &[script])).await;
    seen.succeeded();
    assert_eq!(seen.bytes(Stream::Stdout), b"\xff\xfe\0\x1b[31m\xed\x95\x9c\n<b>");
    assert_eq!(seen.bytes(Stream::Stderr), b"no newline");
    stage.end().await;
}

#[tokio::test]
async fn a_container_that_is_killed_from_outside_is_no_success() {
    let Some(stage) = Stage::set("a_container_that_is_killed_from_outside_is_no_success").await
    else {
        return;
    };
    let script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    let seen = stage
        .run_job(stage.job(spec(BUSYBOX, &[script])), CancellationToken::new(), |event| {
            if matches!(event, JobEvent::Output { .. }) {
                for name in stage.containers() {
                    crate::support::docker(&["kill", &name]);
                }
            }
        })
        .await;
    seen.is(Conclusion::Error, "no_sentinel");
    stage.end().await;
}

#[tokio::test]
async fn jobs_cant_reach_each_other() {
    let Some(stage) = Stage::set("jobs_cant_reach_each_other").await else { return };
    let server = "hostname -i > address.new; (httpd -f -p 8080 -h /etc) &\n\
                  while ! wget -qO /dev/null http://127.0.0.1:8080/passwd; do sleep 0.1; done\n\
                  mv address.new address; while [ ! -e done ]; do sleep 0.1; done";
    let client = "while [ ! -e address ]; do sleep 0.1; done\n\
                  wget -T 2 -qO /dev/null http://$(cat address):8080/passwd && echo REACHED\n\
                  touch done";
    let (server, client) =
        tokio::join!(stage.run(spec(BUSYBOX, &[server])), stage.run(spec(BUSYBOX, &[client])));
    server.succeeded();
    client.succeeded();
    assert_eq!(client.stdout(), "");
    stage.end().await;
}
