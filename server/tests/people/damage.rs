//! What isn't what it was, and a clock that jumps.

use std::time::Duration;

use axum::http::StatusCode;
use pipeyard_api::runner::FinishRequest;
use pipeyard_model::{AttemptId, Clock as _, Conclusion, RunnerId};
use pipeyard_server::tasks::{leases::Watch, logs::seal_now};
use pipeyard_store::repos::Forge;

use crate::{
    logs::{LOG, append, lines},
    support::{ONE_JOB, Server},
};

async fn running(server: &Server) -> (RunnerId, AttemptId) {
    let repo = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    server.add_run(repo, ONE_JOB).await;
    let runner = server.add_runner().await;
    (runner, server.claim(runner).await)
}

/// A run whose job wrote a log and ended; its log isn't sealed yet.
async fn ended(server: &Server) -> AttemptId {
    let (runner, attempt) = running(server).await;
    let log = lines(&["one", "two", "three"]);
    assert_eq!(append(server, attempt, 0, &log).await.status, StatusCode::OK);
    let finish = FinishRequest {
        conclusion: Conclusion::Success,
        reason: None,
        log_bytes: log.len() as u64,
        finished_at: server.clock.now(),
    };
    server.state.store.finish_attempt(runner, attempt, finish, server.clock.now()).await.unwrap();
    attempt
}

async fn is_damaged(server: &Server, case: &str) {
    for path in [
        LOG.to_owned(),
        format!("{LOG}/raw"),
        format!("{LOG}/search?q=one"),
        format!("{LOG}/follow"),
    ] {
        let answer = server.get(&path).await;
        let found = (answer.status, answer.code());
        let damaged = (StatusCode::INTERNAL_SERVER_ERROR, "log_damaged".to_owned());
        assert_eq!(found, damaged, "{case}: {path}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("job test in run 1, attempt 1"), "{case}: {message}");
    }
}

#[tokio::test]
async fn a_sealed_log_that_is_gone_or_changed_is_never_a_short_one() {
    for (case, spoil) in [
        ("both files gone", &[("zst", None), ("idx", None)] as &[(&str, Option<&[u8]>)]),
        ("the log gone", &[("zst", None)]),
        ("the index gone", &[("idx", None)]),
        ("the log emptied", &[("zst", Some(b""))]),
        ("the log replaced", &[("zst", Some(b"garbage, and more of it than before, to fill a frame"))]),
        ("the index replaced", &[("idx", Some(b"{}"))]),
        (
            "both replaced by an empty log",
            &[
                ("zst", Some(b"")),
                (
                    "idx",
                    Some(br#"{"version":2,"length":0,"layout":{"blocks":[],"lines":0,"bytes":0,"raw":0},"sums":[]}"#),
                ),
            ],
        ),
    ] {
        let server = Server::start().await;
        let attempt = ended(&server).await;
        seal_now(&server.state).await.unwrap();
        assert_eq!(server.get(LOG).await.json()["total"], 3);
        let folder = server.state.logs.root().join(attempt.job.to_string());
        for (form, bytes) in spoil {
            let path = folder.join(format!("1.{form}"));
            match bytes {
                Some(bytes) => std::fs::write(path, bytes).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
        }
        is_damaged(&server, case).await;
    }
}

#[tokio::test]
async fn a_log_that_is_not_sealed_yet_is_compared_too() {
    for (case, left) in [("cut off", Some(30)), ("gone", None)] {
        let server = Server::start().await;
        let attempt = ended(&server).await;
        let path = server.state.logs.root().join(attempt.job.to_string()).join("1.log");
        // As after a restart: nothing of it is in memory.
        let whole = std::fs::read(&path).unwrap();
        match left {
            Some(left) => std::fs::write(&path, &whole[..left]).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let server = server.restarted().await;
        is_damaged(&server, case).await;
    }
}

#[tokio::test]
async fn a_clock_that_jumps_takes_no_lease_and_gives_none_for_hours() {
    let server = Server::start().await;
    let (_, attempt) = running(&server).await;
    let mut watch = Watch::default();
    let s = Duration::from_secs;
    let lost = async || {
        let log = server.state.store.log_state(attempt).await.unwrap().unwrap();
        log.complete
    };
    watch.look(&server.state, s(0)).await.unwrap();
    server.clock.advance(s(2));
    watch.look(&server.state, s(2)).await.unwrap();
    // Two hours ahead, two seconds later: the lease had 28 of them.
    server.clock.advance(s(7_202));
    watch.look(&server.state, s(4)).await.unwrap();
    assert!(!lost().await, "a jump ahead took the lease");
    // And back again: it holds for its seconds, not for two hours.
    server.clock.set(server.clock.now() - s(7_200));
    watch.look(&server.state, s(6)).await.unwrap();
    assert!(!lost().await);
    for n in 1..=8 {
        server.clock.advance(s(5));
        watch.look(&server.state, s(6 + n * 5)).await.unwrap();
    }
    assert!(lost().await, "its runner isn't heard of for 40 seconds that passed");
}

#[tokio::test]
async fn ready_says_why_it_is_not() {
    let server = Server::start().await;
    let ready = async || {
        let answer = server.send("GET", "/readyz", &[], "").await;
        (answer.status.as_u16(), String::from_utf8(answer.body).unwrap())
    };
    assert_eq!(ready().await, (200, "ready\n".to_owned()));
    server.state.health.damaged("page 7 is never used");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let (status, text) = ready().await;
    assert_eq!(status, 503);
    assert!(text.starts_with("database_damaged: ") && text.contains("restore"), "{text}");
}
