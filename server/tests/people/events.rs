//! The event stream: nothing is missed over a break, and it ends with the server.

use std::time::Duration;

use axum::{body::Body, http::StatusCode};
use http_body_util::BodyExt as _;
use pipeyard_store::repos::Forge;

use crate::support::{ONE_JOB, Server};

/// Reads events until `count` of them came, as (id, data).
async fn read(body: &mut Body, count: usize) -> Vec<(i64, serde_json::Value)> {
    let mut text = String::new();
    let wait = Duration::from_secs(10);
    loop {
        let events: Vec<_> = text
            .split("\n\n")
            .filter_map(|event| {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                let data = serde_json::from_str(field("data: ")?).ok()?;
                Some((field("id: ")?.parse().ok()?, data))
            })
            .collect();
        if events.len() >= count {
            return events;
        }
        let frame = tokio::time::timeout(wait, body.frame()).await.expect("events come");
        let data = frame.expect("the stream goes on").unwrap().into_data().unwrap();
        text.push_str(std::str::from_utf8(&data).unwrap());
    }
}

#[tokio::test]
async fn a_reader_that_comes_back_misses_nothing() {
    let server = Server::start().await;
    let repo = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    let stream = server.open("/api/events", &[]).await;
    assert_eq!(stream.status(), StatusCode::OK);
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut body = stream.into_body();
    let first = server.add_run(repo, ONE_JOB).await;
    let seen = read(&mut body, 1).await;
    assert_eq!(seen[0].1["run"], first.0);
    drop(body);
    // What happens while nobody listens ...
    let second = server.add_run(repo, ONE_JOB).await;
    let all = server.state.store.events(seen[0].0, None, 100).await.unwrap();
    assert!(!all.is_empty());
    // ... comes first after the return, each event once.
    let last = seen[0].0.to_string();
    let mut body = server.open("/api/events", &[("last-event-id", &last)]).await.into_body();
    let missed = read(&mut body, all.len()).await;
    let numbers: Vec<_> = missed.iter().map(|(id, _)| *id).collect();
    assert_eq!(numbers, all.iter().map(|event| event.seq).collect::<Vec<_>>());
    assert!(missed.iter().any(|(_, event)| event["run"] == second.0));
}

#[tokio::test]
async fn a_reader_of_one_run_hears_of_no_other() {
    let server = Server::start().await;
    let repo = server.add_repo("shop", Forge::Git, "/srv/shop.git").await;
    let first = server.add_run(repo, ONE_JOB).await;
    let second = server.add_run(repo, ONE_JOB).await;
    let path = format!("/api/events?run={second}&after=0");
    let mut body = server.open(&path, &[]).await.into_body();
    let own = server.state.store.events(0, Some(second), 100).await.unwrap();
    let seen = read(&mut body, own.len()).await;
    assert!(seen.iter().all(|(_, event)| event["run"] == second.0), "{first}: {seen:?}");
}

#[tokio::test]
async fn streams_end_when_the_server_stops() {
    let server = Server::start().await;
    let mut body = server.open("/api/events", &[]).await.into_body();
    server.state.stopping.cancel();
    let end = async {
        while let Some(frame) = body.frame().await {
            frame.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), end).await.expect("the stream ends");
    let ready = server.send("GET", "/readyz", &[], "").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn streams_are_limited_in_number() {
    let server = Server::start().await;
    let all = server.state.streams.available_permits();
    let _taken =
        server.state.streams.clone().try_acquire_many_owned(u32::try_from(all).unwrap()).unwrap();
    let refused = server.get("/api/events").await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "too_many_streams")
    );
}
