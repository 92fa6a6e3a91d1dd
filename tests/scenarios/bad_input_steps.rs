//! Images that can't run and steps that misbehave, as jobs of two runs: each says what is wrong
//! where the person looks, its log is whole, and nothing is left in Docker.

use std::{
    fmt::Write as _,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use pipeyard_tests::{Installation, Options, TestRepo, docker, installation, until};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

const SOON: Duration = Duration::from_secs(180);
/// Bytes that one step writes without a newline.
const FLOOD: usize = 1_000_000_000;
/// What server and runner may need for it at most, in MB above what they needed before.
const FLOOD_MB: u64 = 64;

/// A job of a finished run.
fn job<'a>(run: &'a Value, name: &str) -> &'a Value {
    let jobs = run["jobs"].as_array().expect("jobs");
    jobs.iter().find(|j| j["name"] == name).unwrap_or_else(|| panic!("no job {name}: {run:#}"))
}

/// How the job ended: conclusion, code, message.
fn end<'a>(run: &'a Value, name: &str) -> (&'a str, &'a str, &'a str) {
    let job = job(run, name);
    let text = |value: &'a Value| value.as_str().unwrap_or_default();
    (text(&job["conclusion"]), text(&job["reason"]["code"]), text(&job["reason"]["message"]))
}

/// Every job is over and its containers are gone.
async fn nothing_is_left(run: &Value) {
    for job in run["jobs"].as_array().expect("jobs") {
        assert_eq!(job["status"], "finished", "{job:#}");
        let label = format!("label=pipeyard.job={}", job["id"].as_str().expect("an id"));
        until("no container is left", Duration::from_secs(30), async || {
            let left = Command::new("docker").args(["ps", "-aq", "--filter", &label]).output();
            left.ok()?.stdout.is_empty().then_some(())
        })
        .await;
    }
}

/// A registry that has nothing; answers its address.
async fn empty_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = vec![0; 8192];
                let length = stream.read(&mut head).await.unwrap_or(0);
                let (status, body) = if head[..length].starts_with(b"GET /v2/ ") {
                    ("200 OK", "{}")
                } else {
                    (
                        "404 Not Found",
                        r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
                    )
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n\
                     docker-distribution-api-version: registry/2.0\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_can_not_run_say_why_and_leave_nothing() {
    if !docker("images_that_can_not_run_say_why_and_leave_nothing") {
        return;
    }
    let pipeyard = Installation::start(Options::default()).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "shop");
    pipeyard.add_repo(&repo.bare);
    let (registry, closed) = (empty_registry().await, installation::free_address());
    let sha = repo.push_pipeline(&format!(
        "jobs:\n  absent:\n    image: {registry}/nobody/made-this:v1\n    run: echo never\n  \
           away:\n    image: {closed}/nobody/made-this:v1\n    run: echo never\n  \
           noshell:\n    image: pipeyard/noshell:test\n    run: echo never\n  \
           after:\n    needs: absent\n    image: pipeyard/busybox:test\n    run: echo never\n  \
           good:\n    image: pipeyard/busybox:test\n    run: echo it works\n"
    ));
    let run = pipeyard.finished_run(&sha, SOON).await;
    let id = run["id"].to_string();
    let said = pipeyard.pipectl_ok(&["runs", "view", &id]);
    for (name, code, words) in [
        ("absent", "image_not_found", "made-this:v1"),
        ("away", "registry_unreachable", "made-this:v1"),
        ("noshell", "no_shell", "pipeyard/noshell:test has no /bin/sh"),
    ] {
        let (conclusion, is, message) = end(&run, name);
        assert_eq!((conclusion, is), ("error", code), "{name}: {run:#}");
        assert!(message.contains(words), "{name}: {message}");
        // Both where the run is looked at and where its log is read.
        assert!(said.contains(message.lines().next().expect("a line")), "{name}: {said}");
        let log = pipeyard.pipectl_ok(&["logs", &id, name]);
        assert!(log.contains(code) && !log.contains("never\n"), "{name}: {log}");
    }
    assert_eq!(end(&run, "after").0, "skipped", "{run:#}");
    assert_eq!(end(&run, "good").0, "success", "{run:#}");
    nothing_is_left(&run).await;
}

/// A text that is bytes of every value, codes for the terminal, HTML, and no UTF-8.
fn noise() -> Vec<u8> {
    let mut noise: Vec<u8> = (0..=255).cycle().take(4096).collect();
    noise
        .extend_from_slice(b"\n\x1b[31mred\x1b[0m \x1b]0;owned\x07\x1b]52;c;b3duZWQ=\x1b\\\x1b[2J");
    noise.extend_from_slice(
        b"<script>alert(1)</script>&lt;b&gt;\r\nback\rforth\n\xed\x95\n\xff\xfe\n",
    );
    noise
}

/// Lines of Korean, one of them far longer than a line may be.
fn korean() -> String {
    let mut text = String::new();
    for i in 0..40 {
        let _ = writeln!(text, "{i}번째 줄: 다람쥐 헌 쳇바퀴에 타고파");
    }
    text
}

/// The raw log of a job.
async fn raw(pipeyard: &Installation, run: &str, job: &str) -> Vec<u8> {
    let path = format!("/api/runs/{run}/jobs/{job}/log/raw");
    let answer = pipeyard.client().open(&path, &[]).await.expect("the raw log");
    answer.bytes().await.expect("the whole raw log").to_vec()
}

fn holds(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_misbehave_end_as_they_should_and_their_logs_are_whole() {
    if !docker("steps_that_misbehave_end_as_they_should_and_their_logs_are_whole") {
        return;
    }
    let pipeyard = Installation::start(Options::default()).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "shop");
    pipeyard.add_repo(&repo.bare);
    let long = "가나다라마바사 ".repeat(10_000);
    fs::write(repo.work.join("noise.bin"), noise()).expect("write the noise");
    repo.write("korean.txt", &korean());
    repo.write("long.txt", &format!("{long}\n"));
    let sha = repo.push_pipeline(
        r#"
jobs:
  forges:
    image: pipeyard/busybox:test
    run: |
      frame() { printf '\007\000\000\000\000\000\000\000\000\000\000\040\000\000\000'; head -c 32 /dev/zero; }
      frame; frame >&2
      frame > /proc/1/fd/1 || true
      kill -9 1 || true
      echo; echo still here
      exit 3
  deaf:
    image: pipeyard/busybox:test
    timeout: 3s
    run: |
      trap '' TERM INT HUP
      setsid sh -c "trap '' TERM; sleep 999" &
      echo deaf; sleep 999; sleep 999
  noise:
    image: pipeyard/busybox:test
    run: cat noise.bin
  korean:
    image: pipeyard/busybox:test
    run:
      - dd bs=1 if=korean.txt 2>/dev/null
      - cat long.txt
"#,
    );
    let run = pipeyard.finished_run(&sha, SOON).await;
    let id = run["id"].to_string();

    assert_eq!(end(&run, "forges").0, "failure", "{run:#}");
    assert_eq!(job(&run, "forges")["steps"][0]["exit_code"], 3, "{run:#}");
    assert!(holds(&raw(&pipeyard, &id, "forges").await, b"\nstill here\n"));

    let (conclusion, code, message) = end(&run, "deaf");
    assert_eq!((conclusion, code), ("timed_out", "job_timeout"), "{run:#}");
    assert!(message.contains("3s") || message.contains("3 s"), "{message}");
    assert!(holds(&raw(&pipeyard, &id, "deaf").await, b"deaf\n"));

    assert_eq!(end(&run, "noise").0, "success", "{run:#}");
    let log = raw(&pipeyard, &id, "noise").await;
    assert!(holds(&log, &noise()), "the bytes are changed: {}", String::from_utf8_lossy(&log));
    assert_eq!(
        pipeyard.pipectl(&["logs", &id, "noise"]).stdout,
        log,
        "a pipe gets the log's bytes"
    );
    let shown = on_a_terminal(&pipeyard, &format!("logs {id} noise"));
    assert!(holds(&shown, b"\x1b[31mred\x1b[0m"), "colours stay");
    assert!(holds(&shown, b"<script>alert(1)</script>&lt;b&gt;"));
    for code in [&b"\x1b]"[..], b"\x1b[2J", b"\x07", b"\0", b"owned"] {
        assert!(!holds(&shown, code), "{code:?} reached the terminal");
    }

    assert_eq!(end(&run, "korean").0, "success", "{run:#}");
    let log = raw(&pipeyard, &id, "korean").await;
    assert!(holds(&log, korean().as_bytes()) && holds(&log, format!("\n{long}\n").as_bytes()));
    // Line by line too: no letter is torn where a piece or a long line was split.
    let page = format!("/api/runs/{id}/jobs/korean/log?from=1&count=5000");
    let page: Value = pipeyard.client().get(&page).await.expect("the page");
    let mut text = String::new();
    for line in page["lines"].as_array().expect("lines") {
        text += line["text"].as_str().expect("a text");
        if line["goes_on"] != true {
            text.push('\n');
        }
    }
    assert_eq!(text.as_bytes(), log, "the lines make up the log");
    assert!(!text.contains('\u{fffd}'), "a letter is torn");
    nothing_is_left(&run).await;
}

/// What `pipectl` writes when a terminal is there.
fn on_a_terminal(pipeyard: &Installation, words: &str) -> Vec<u8> {
    let command = format!("{} {words}", installation::pipectl().display());
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("XDG_CONFIG_HOME", pipeyard.path("config"))
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .output()
        .expect("start script");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    output.stdout
}

/// The most memory that a process ever had, in MB.
fn peak_mb(pid: Option<u32>) -> u64 {
    let file = format!("/proc/{}/status", pid.expect("it runs"));
    let status = fs::read_to_string(file).expect("the process's status");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_without_a_newline_is_kept_whole_in_bounded_memory() {
    if !docker("a_flood_without_a_newline_is_kept_whole_in_bounded_memory") {
        return;
    }
    let pipeyard = Installation::start(Options::default()).await;
    let repo = TestRepo::new(pipeyard.dir.path(), "shop");
    pipeyard.add_repo(&repo.bare);
    let before = (peak_mb(pipeyard.server_pid()), peak_mb(pipeyard.runner_pid()));
    let sha = repo.push_pipeline(&format!(
        "jobs:\n  flood:\n    image: pipeyard/busybox:test\n    run: head -c {FLOOD} /dev/zero | tr '\\0' x\n"
    ));
    let began = Instant::now();
    let run = pipeyard.finished_run(&sha, Duration::from_secs(400)).await;
    eprintln!("the flood took {:?}", began.elapsed());
    assert_eq!(end(&run, "flood").0, "success", "{run:#}");
    let id = run["id"].to_string();
    let path = format!("/api/runs/{id}/jobs/flood/log/raw");
    let answer = pipeyard.client().open(&path, &[]).await.expect("the raw log");
    let mut pieces = answer.bytes_stream();
    let (mut all, mut row, mut longest) = (0, 0, 0);
    let letters = vec![b'x'; 1 << 20];
    while let Some(piece) = pieces.next().await {
        let piece = piece.expect("the whole log");
        all += piece.len();
        if letters.starts_with(&piece) {
            row += piece.len();
            longest = longest.max(row);
            continue;
        }
        // Runs of the letter, so that an `x` in the runner's own lines doesn't count.
        for byte in piece {
            row = if byte == b'x' { row + 1 } else { 0 };
            longest = longest.max(row);
        }
    }
    assert_eq!(longest, FLOOD, "of {all} bytes");
    let after = (peak_mb(pipeyard.server_pid()), peak_mb(pipeyard.runner_pid()));
    eprintln!("server and runner: {before:?} MB at most before, {after:?} MB after");
    assert!(after.0 < before.0 + FLOOD_MB, "the server: {before:?} MB, then {after:?} MB");
    assert!(after.1 < before.1 + FLOOD_MB, "the runner: {before:?} MB, then {after:?} MB");
    nothing_is_left(&run).await;
}
