//! The runner protocol and logs as people read them, over HTTP.

use std::time::Duration;

use axum::{body::Body, http::StatusCode};
use http_body_util::BodyExt as _;
use pipeyard_model::{
    AttemptId, Clock as _,
    log::{Head, Stream},
};
use pipeyard_store::{queue::LATE_LOG, repos::Forge};
use serde_json::{Value, json};

use crate::support::{Answer, NOW, ONE_JOB, RUNNER_KEY, Server};

pub(crate) const LOG: &str = "/api/runs/1/jobs/test/log";

/// Lines of step 1 with these texts.
pub(crate) fn lines(texts: &[&str]) -> Vec<u8> {
    let mut log = Vec::new();
    for text in texts {
        Head { at: NOW, step: 1, stream: Stream::Stdout, goes_on: false }.write(&mut log);
        log.extend_from_slice(text.as_bytes());
        log.push(b'\n');
    }
    log
}

async fn claimed() -> (Server, AttemptId) {
    claimed_at(Server::start().await).await
}

pub(crate) async fn claimed_at(server: Server) -> (Server, AttemptId) {
    let repo = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    server.add_run(repo, ONE_JOB).await;
    let runner = server.add_runner().await;
    let attempt = server.claim(runner).await;
    (server, attempt)
}

pub(crate) async fn append(
    server: &Server,
    attempt: AttemptId,
    offset: usize,
    bytes: &[u8],
) -> Answer {
    let sum = format!("{:08x}", crc32fast::hash(bytes));
    send_log(server, attempt, offset, bytes, &sum).await
}

async fn send_log(
    server: &Server,
    attempt: AttemptId,
    offset: usize,
    bytes: &[u8],
    sum: &str,
) -> Answer {
    let path = format!("/api/runner/jobs/{}/{}/log?offset={offset}", attempt.job, attempt.epoch);
    let bearer = format!("Bearer {RUNNER_KEY}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-crc32", sum),
        ("content-type", "application/octet-stream"),
    ];
    server.send("POST", &path, &headers, Body::from(bytes.to_vec())).await
}

async fn runner_call(server: &Server, path: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {RUNNER_KEY}");
    server.send("POST", path, &[("authorization", &bearer)], body.to_string()).await
}

async fn finish(server: &Server, attempt: AttemptId, conclusion: &str, bytes: usize) -> Answer {
    let path = format!("/api/runner/jobs/{}/{}/finish", attempt.job, attempt.epoch);
    let body =
        json!({ "conclusion": conclusion, "reason": null, "log_bytes": bytes, "finished_at": NOW });
    runner_call(server, &path, &body).await
}

#[tokio::test]
async fn a_log_is_taken_where_it_ends_and_nowhere_else() {
    let (server, attempt) = claimed().await;
    let log = lines(&["하나", "둘"]);
    assert_eq!(send_log(&server, attempt, 0, &log, "00000000").await.code(), "bad_checksum");
    assert_eq!(append(&server, attempt, 0, &log).await.json()["offset"], log.len());
    assert_eq!(
        append(&server, attempt, 0, &log).await.status,
        StatusCode::OK,
        "a repeat is acknowledged"
    );
    let wrong = append(&server, attempt, 5, &log).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (StatusCode::CONFLICT, "wrong_offset"));
    assert_eq!(wrong.json()["offset"], log.len());
    let bad = append(&server, attempt, log.len(), b"no head\n").await;
    assert_eq!((bad.status, bad.code().as_str()), (StatusCode::BAD_REQUEST, "bad_log"));
    assert_eq!(finish(&server, attempt, "success", log.len() + 1).await.code(), "log_incomplete");
    for _ in 0..2 {
        assert_eq!(
            finish(&server, attempt, "success", log.len()).await.status,
            StatusCode::NO_CONTENT
        );
    }
    assert_eq!(append(&server, attempt, log.len(), &log).await.code(), "stale_epoch");
    assert_eq!(finish(&server, attempt, "failure", log.len()).await.code(), "stale_epoch");
}

/// The lease of an attempt ends with a part of its log on the runner's disk only.
#[tokio::test]
async fn the_log_of_an_attempt_that_was_given_up_becomes_whole_when_its_runner_returns() {
    let (server, first) = claimed().await;
    let log = lines(&["one", "two", "three", "four"]);
    let known = log.len() / 2;
    assert_eq!(append(&server, first, 0, &log[..known]).await.json()["over"], false);
    server.clock.advance(Duration::from_secs(31));
    let now = server.clock.now();
    assert_eq!(server.state.store.expire_leases(now).await.unwrap(), [first]);
    // The job is offered again; the new attempt writes a log of its own.
    let runner = server.state.store.runners(now).await.unwrap()[0].id;
    let second = server.claim(runner).await;
    let other = lines(&["again"]);
    append(&server, second, 0, &other).await;

    let late = append(&server, first, known, &log[known..]).await.json();
    assert_eq!((&late["over"], &late["offset"]), (&json!(true), &json!(log.len())));
    let page = server.get(&format!("{LOG}?attempt=1")).await.json();
    assert_eq!(
        (page["total"].as_u64(), page["lines"][3]["text"].as_str()),
        (Some(4), Some("four"))
    );
    let page = server.get(&format!("{LOG}?attempt=2")).await.json();
    assert_eq!(
        (page["total"].as_u64(), page["lines"][0]["text"].as_str()),
        (Some(1), Some("again"))
    );
    let run = server.get("/api/runs/1").await.json();
    let attempts = &run["jobs"][0]["attempts"];
    assert_eq!(attempts[0]["log_bytes"], log.len());
    assert_eq!(
        (&attempts[0]["reason"]["code"], &run["status"]),
        (&json!("runner_lost"), &json!("running"))
    );
    assert_eq!(finish(&server, first, "success", log.len()).await.code(), "stale_epoch");
    assert_eq!(
        finish(&server, second, "success", other.len()).await.status,
        StatusCode::NO_CONTENT
    );
    server.clock.advance(LATE_LOG);
    assert_eq!(append(&server, first, log.len(), &other).await.code(), "stale_epoch");
}

#[tokio::test]
async fn a_piece_that_overtakes_the_one_before_it_waits_for_it() {
    let (server, attempt) = claimed().await;
    let log = lines(&["one", "two", "three", "four"]);
    let half = log.len() / 2;
    let (second, first) = tokio::join!(append(&server, attempt, half, &log[half..]), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        append(&server, attempt, 0, &log[..half]).await
    });
    assert_eq!((first.status, second.status), (StatusCode::OK, StatusCode::OK));
    assert_eq!(second.json()["offset"], log.len());
    assert_eq!(server.get(LOG).await.json()["total"], 4);
}

#[tokio::test]
async fn a_log_ends_at_its_limit() {
    let server = Server::with(|config| config.max_log_bytes = 1000).await;
    let (server, attempt) = claimed_at(server).await;
    let row = "x".repeat(60_000);
    let log = lines(&[row.as_str(); 30]);
    // The limit and some last words of the runner's.
    let fits = 1000 + (1 << 20);
    assert_eq!(append(&server, attempt, 0, &log[..fits]).await.status, StatusCode::OK);
    let refused = append(&server, attempt, fits, &log[fits..]).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE, "log_too_long")
    );
}

#[tokio::test]
async fn a_runner_without_a_known_key_gets_nothing() {
    let (server, attempt) = claimed().await;
    let log = format!("/api/runner/jobs/{}/1/log?offset=0", attempt.job);
    for path in ["/api/runner/claim", "/api/runner/heartbeat", &log] {
        for key in ["", "Bearer ppk_other", &server.bearer()] {
            let answer = server.send("POST", path, &[("authorization", key)], "{}").await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} {key}");
        }
    }
    let register =
        json!({ "token": "x", "name": "r", "labels": [], "protocol": 99, "version": "1" });
    let answer = server.send("POST", "/api/runner/register", &[], register.to_string()).await;
    assert_eq!(answer.code(), "protocol_mismatch");
}

#[tokio::test]
async fn a_claim_gives_what_the_job_needs_and_a_heartbeat_its_cancel() {
    let server = Server::start().await;
    let repo = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    server.add_runner().await;
    let claim = json!({ "request": uuid::Uuid::new_v4(), "free_slots": 2, "wait_seconds": 20 });
    let (answer, _) = tokio::join!(runner_call(&server, "/api/runner/claim", &claim), async {
        // The poll waits; the run wakes it.
        server.add_run(repo, ONE_JOB).await
    });
    let job = answer.json()["jobs"][0].clone();
    assert_eq!(
        (job["name"].as_str(), job["env"]["PIPEYARD_REPO"].as_str()),
        (Some("test"), Some("shop"))
    );
    assert_eq!(job["checkout"]["path"], format!("/git/{repo}"));
    assert_eq!(job["max_log_bytes"], server.state.config.max_log_bytes);
    let again = runner_call(&server, "/api/runner/claim", &claim).await.json();
    assert_eq!(
        (&again["jobs"][0]["job"], &again["jobs"][0]["epoch"]),
        (&job["job"], &job["epoch"])
    );
    let attempts = json!({ "attempts": [{ "job": job["job"], "epoch": 1 }], "wait_seconds": 20 });
    let asked = std::time::Instant::now();
    let (news, cancel) = tokio::join!(
        runner_call(&server, "/api/runner/heartbeat", &attempts),
        server.call("POST", "/api/runs/1/cancel", Value::Null)
    );
    assert!(cancel.status.is_success());
    assert_eq!(news.json()["cancel"][0]["job"], job["job"]);
    assert!(asked.elapsed().as_secs() < 10, "the cancel wakes the poll");
    let bad = json!({ "request": uuid::Uuid::new_v4(), "free_slots": 0, "wait_seconds": 0 });
    assert_eq!(runner_call(&server, "/api/runner/claim", &bad).await.code(), "bad_slots");
}

#[tokio::test]
async fn a_job_whose_secret_is_missing_ends_with_the_reason() {
    let server = Server::start().await;
    let repo = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    server.add_runner().await;
    let yaml = "jobs:\n  test:\n    image: busybox\n    secrets: [PASSWORD]\n    run: make\n";
    server.add_run(repo, yaml).await;
    let claim = json!({ "request": uuid::Uuid::new_v4(), "free_slots": 1, "wait_seconds": 0 });
    let answer = runner_call(&server, "/api/runner/claim", &claim).await.json();
    assert_eq!(answer["jobs"], json!([]));
    let run = server.get("/api/runs/1").await.json();
    assert_eq!(run["conclusion"], "error");
    assert_eq!(run["jobs"][0]["reason"]["code"], "secret_missing");
}

#[tokio::test]
async fn a_log_is_read_by_line_by_byte_and_by_word() {
    let (server, attempt) = claimed().await;
    let empty = server.get(LOG).await.json();
    assert_eq!((empty["total"].as_u64(), empty["complete"].as_bool()), (Some(0), Some(false)));
    let texts: Vec<String> = (1..=700).map(|n| format!("줄 {n} <b>x</b>")).collect();
    let log = lines(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    append(&server, attempt, 0, &log).await;
    let page = server.get(&format!("{LOG}?from=500&count=2")).await.json();
    assert_eq!(
        page["lines"][1],
        json!({
            "n": 501, "at": NOW, "step": 1, "stream": "stdout", "text": "줄 501 <b>x</b>"
        })
    );
    assert_eq!(page["total"], 700);
    let tail = server.get(&format!("{LOG}?from=-3")).await.json();
    assert_eq!(tail["lines"][0]["n"], 698);
    let raw = texts.iter().map(|text| format!("{text}\n")).collect::<String>().into_bytes();
    let whole = server.get(&format!("{LOG}/raw")).await;
    assert_eq!(whole.body, raw);
    assert_eq!(whole.header("content-type"), "text/plain; charset=utf-8");
    let bearer = server.bearer();
    let part = [
        ("authorization", bearer.as_str()),
        ("range", "bytes=8000-8099"),
        ("accept-encoding", "gzip"),
    ];
    let part = server.send("GET", &format!("{LOG}/raw"), &part, Body::empty()).await;
    assert_eq!(
        (part.status, part.body.as_slice()),
        (StatusCode::PARTIAL_CONTENT, &raw[8000..8100])
    );
    assert_eq!(part.header("content-range"), format!("bytes 8000-8099/{}", raw.len()));
    let found = server.get(&format!("{LOG}/search?q=%EC%A4%84%2069")).await.json();
    assert_eq!(found["total"], 11);
    assert_eq!(found["lines"][0], 69);
    for missing in [
        "/api/runs/1/jobs/nope/log",
        "/api/runs/9/jobs/test/log",
        "/api/runs/1/jobs/test/log?attempt=2",
    ] {
        assert_eq!(server.get(missing).await.status, StatusCode::NOT_FOUND, "{missing}");
    }
    assert_eq!(server.send("GET", LOG, &[], Body::empty()).await.status, StatusCode::UNAUTHORIZED);
}

/// Reads a stream until this text has come.
async fn read_until(body: &mut Body, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(20), body.frame()).await;
        let Some(Ok(frame)) = frame.unwrap_or_else(|_| panic!("{text:?} didn't come: {seen}"))
        else {
            panic!("the stream ended before {text:?}: {seen}");
        };
        if let Some(data) = frame.data_ref() {
            seen.push_str(&String::from_utf8_lossy(data));
        }
    }
    seen
}

#[tokio::test]
async fn a_followed_log_resumes_and_ends() {
    let (server, attempt) = claimed().await;
    let log = lines(&["one", "two", "three"]);
    append(&server, attempt, 0, &log).await;
    let mut first = server.open(&format!("{LOG}/follow"), &[]).await.into_body();
    let seen = read_until(&mut first, "three").await;
    assert!(seen.contains("id: 3"), "{seen}");
    let mut resumed =
        server.open(&format!("{LOG}/follow"), &[("last-event-id", "2")]).await.into_body();
    let seen = read_until(&mut resumed, "three").await;
    assert!(!seen.contains("two"), "{seen}");
    let more = lines(&["four"]);
    append(&server, attempt, log.len(), &more).await;
    for stream in [&mut first, &mut resumed] {
        assert!(read_until(stream, "id: 4").await.contains("four"));
    }
    finish(&server, attempt, "success", log.len() + more.len()).await;
    for stream in [&mut first, &mut resumed] {
        read_until(stream, "event: end").await;
    }
}
