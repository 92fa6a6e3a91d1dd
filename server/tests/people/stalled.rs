//! A reader that takes nothing: over a real socket, because that is what fills up.

use std::time::{Duration, Instant};

use axum::body::Body;
use http_body_util::BodyExt as _;
use pipeyard_server::serve;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use crate::{
    logs::{LOG, append, claimed_at, lines},
    support::Server,
};

/// More than two sockets hold, in pieces of one append.
const PIECES: usize = 8;
const LINES: usize = 30_000;
const SOON: Duration = Duration::from_secs(60);

/// The numbers of the lines in whole messages, and the last `id`.
fn numbers(seen: &str) -> (Vec<u64>, u64) {
    let whole = seen.rfind("\n\n").map_or("", |end| &seen[..end]);
    let mut numbers = Vec::new();
    let mut id = 0;
    for line in whole.lines() {
        if let Some(data) = line.strip_prefix("data: [") {
            let lines: Vec<Value> = serde_json::from_str(&format!("[{data}")).unwrap();
            numbers.extend(lines.iter().map(|line| line["n"].as_u64().unwrap()));
        } else if let Some(number) = line.strip_prefix("id: ") {
            id = number.parse().unwrap();
        }
    }
    (numbers, id)
}

/// Reads a stream up to the message that ends with the line of this number.
async fn read_to(body: &mut Body, last: u64) -> String {
    let (mut seen, id) = (String::new(), format!("id: {last}\n"));
    let mut found = false;
    while !found || !seen.ends_with("\n\n") {
        let frame = tokio::time::timeout(SOON, body.frame()).await;
        let frame = frame.unwrap().expect("the stream goes on").unwrap();
        let from = seen.len().saturating_sub(id.len());
        seen.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
        found |= seen[from..].contains(&id);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_takes_nothing_is_dropped_harms_nobody_and_goes_on_where_it_stopped() {
    let server = Server::with(|config| {
        config.listen = ([127, 0, 0, 1], 0).into();
        config.stalled_reader_seconds = 1;
    })
    .await;
    let (server, attempt) = claimed_at(server).await;
    let (stop, (tell, bound)) = (CancellationToken::new(), tokio::sync::oneshot::channel());
    let serving = serve(server.state.clone(), move |at| tell.send(at).unwrap(), stop.clone());
    let serving = tokio::spawn(serving);
    let mut stalled = TcpStream::connect(bound.await.unwrap()).await.unwrap();
    let places = server.state.streams.available_permits();

    // HTTP/1.0, so that the body comes as it is.
    let request =
        format!("GET {LOG}/follow HTTP/1.0\r\nauthorization: {}\r\n\r\n", server.bearer());
    stalled.write_all(request.as_bytes()).await.unwrap();
    let mut seen = vec![0; 4096];
    let read = stalled.read(&mut seen).await.unwrap();
    seen.truncate(read);
    assert!(seen.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&seen));

    // It takes nothing more, while the job writes and another reader follows.
    let mut reader = server.open(&format!("{LOG}/follow"), &[]).await.into_body();
    let text = "x".repeat(100);
    let piece = lines(&vec![text.as_str(); LINES]);
    let following = read_to(&mut reader, (PIECES * LINES) as u64);
    let writing = async {
        for n in 0..PIECES {
            let answer = append(&server, attempt, n * piece.len(), &piece).await;
            assert!(answer.status.is_success(), "{}", answer.code());
        }
    };
    let (followed, ()) = tokio::join!(following, writing);
    assert!(numbers(&followed).0.into_iter().eq(1..=(PIECES * LINES) as u64));
    drop(reader);
    let end = Instant::now() + SOON;
    while server.state.streams.available_permits() < places {
        assert!(Instant::now() < end, "the stalled reader keeps its place");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // What had been on its way to it comes, then its connection ends.
    let rest = async {
        let mut block = vec![0; 1 << 16];
        while let Ok(read @ 1..) = stalled.read(&mut block).await {
            seen.extend_from_slice(&block[..read]);
        }
    };
    tokio::time::timeout(SOON, rest).await.expect("the connection ends");
    let (had, last) = numbers(&String::from_utf8_lossy(&seen));
    assert!(had.into_iter().eq(1..=last) && last < (PIECES * LINES) as u64, "{last}");
    let resumed = [("last-event-id", last.to_string())];
    let resumed: Vec<_> = resumed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut resumed = server.open(&format!("{LOG}/follow"), &resumed).await.into_body();
    let missed = read_to(&mut resumed, (PIECES * LINES) as u64).await;
    assert!(numbers(&missed).0.into_iter().eq(last + 1..=(PIECES * LINES) as u64));
    stop.cancel();
    serving.await.unwrap().unwrap();
}
