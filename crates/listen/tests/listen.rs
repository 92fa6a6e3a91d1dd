//! Real sockets against a listener with small limits.

#![expect(clippy::unwrap_used, reason = "a test may end by a panic")]

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use pipeyard_listen::{Guest, Limits, Listener};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tower_http::timeout::TimeoutBody;

/// What the served program does: `/known` makes the connection known, `/wait` answers when it may,
/// everything else reads its body.
async fn answer(
    request: Request<TimeoutBody<Incoming>>,
    mut may: watch::Receiver<bool>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if path == "/known" {
        request.extensions().get::<Guest>().unwrap().known();
    }
    if path == "/wait" {
        let _ = may.wait_for(|may| *may).await;
    }
    let mut response = Response::new(Full::new(Bytes::from_static(b"here\n")));
    if request.into_body().collect().await.is_err() {
        *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
    }
    Ok(response)
}

struct World {
    address: SocketAddr,
    may: watch::Sender<bool>,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

async fn world(limits: Limits) -> World {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), limits).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (may, waits) = watch::channel(false);
    let stop = CancellationToken::new();
    let service = tower::service_fn(move |request| answer(request, waits.clone()));
    let served = tokio::spawn(listener.serve(service, stop.clone(), Duration::from_secs(20)));
    World { address, may, stop, served }
}

fn small() -> Limits {
    let soon = Duration::from_millis(200);
    Limits { header: soon, body_idle: soon, total: Some(16), by_address: 8, ..Limits::default() }
}

fn patient() -> Limits {
    let long = Duration::from_secs(60);
    Limits { header: long, body_idle: long, ..small() }
}

impl World {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ask(&self, stream: &mut TcpStream, head: &str) -> String {
        stream.write_all(format!("{head}host: x\r\n\r\n").as_bytes()).await.unwrap();
        read(stream).await
    }
}

/// Up to the end of one answer.
async fn read(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut piece = [0; 1024];
    while !text.ends_with("here\n") && !text.ends_with('}') {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(n) => text.push_str(std::str::from_utf8(&piece[..n]).unwrap()),
        }
    }
    text
}

/// Waits for the end of a connection.
async fn ended(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn a_crowd_that_says_nothing_keeps_nobody_out() {
    let world = world(patient()).await;
    let mut known = world.connect().await;
    assert!(world.ask(&mut known, "GET /known HTTP/1.1\r\n").await.starts_with("HTTP/1.1 200"));
    let mut crowd = Vec::new();
    for n in 0..200 {
        let mut stream = world.connect().await;
        if n % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\nhalf: a hea").await.unwrap();
        }
        crowd.push(stream);
    }
    let mut late = world.connect().await;
    assert!(world.ask(&mut late, "GET / HTTP/1.1\r\n").await.starts_with("HTTP/1.1 200"));
    assert!(world.ask(&mut known, "GET / HTTP/1.1\r\n").await.starts_with("HTTP/1.1 200"));
    for stream in &mut crowd[..190] {
        ended(stream).await;
    }
}

#[tokio::test]
async fn a_header_that_does_not_come_to_its_end_ends_the_connection() {
    let world = world(small()).await;
    for begin in ["", "GET / HTTP/1.1\r\nhalf: a hea"] {
        let mut stream = world.connect().await;
        stream.write_all(begin.as_bytes()).await.unwrap();
        ended(&mut stream).await;
    }
    let mut stream = world.connect().await;
    let dripping = async {
        for letter in "GET / HTTP/1.1\r\nx: ".bytes().chain(std::iter::repeat(b'a')) {
            if stream.write_all(&[letter]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), dripping).await.unwrap();
}

#[tokio::test]
async fn a_body_must_go_on_arriving() {
    let world = world(small()).await;
    let mut stream = world.connect().await;
    let answer = world.ask(&mut stream, "POST / HTTP/1.1\r\ncontent-length: 10\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    // One that is slow and comes is taken.
    let mut stream = world.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\n").await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        stream.write_all(b"x").await.unwrap();
    }
    let answer = read(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_forwarded_address_has_a_limit_of_its_own_behind_a_proxy_that_is_trusted() {
    let limits = Limits { trusted_proxy: true, by_address: 2, ..patient() };
    let world = world(limits).await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut stream = world.connect().await;
        let head = "GET /wait HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 1.1.1.1, 10.0.0.7\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    let mut stream = world.connect().await;
    let refused = loop {
        let head = "GET / HTTP/1.1\r\nx-forwarded-for: 2.2.2.2, 10.0.0.7\r\n";
        let answer = world.ask(&mut stream, head).await;
        // The two may still be on their way.
        if !answer.starts_with("HTTP/1.1 200") {
            break answer;
        }
    };
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("too_many_connections"), "{refused}");
    let other = world.ask(&mut stream, "GET / HTTP/1.1\r\nx-forwarded-for: 10.0.0.8\r\n").await;
    assert!(other.starts_with("HTTP/1.1 200"), "{other}");
    world.may.send(true).unwrap();
    for stream in &mut waiting {
        assert!(read(stream).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn what_is_in_progress_ends_before_the_listener_does() {
    let world = world(patient()).await;
    let (mut idle, mut busy) = (world.connect().await, world.connect().await);
    assert!(world.ask(&mut idle, "GET / HTTP/1.1\r\n").await.starts_with("HTTP/1.1 200"));
    busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // Answered after it, so the other has arrived too.
    assert!(world.ask(&mut idle, "GET / HTTP/1.1\r\n").await.starts_with("HTTP/1.1 200"));
    world.stop.cancel();
    ended(&mut idle).await;
    assert!(TcpStream::connect(world.address).await.is_err());
    world.may.send(true).unwrap();
    assert!(read(&mut busy).await.starts_with("HTTP/1.1 200"));
    drop(busy);
    world.served.await.unwrap();
}
