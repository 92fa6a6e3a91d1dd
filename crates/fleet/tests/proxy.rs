//! The proxy as clients and the fleet see it: shares, changes under load, restarts, refusals.

#![expect(clippy::unwrap_used, reason = "a test ends where its surroundings fail")]

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::any};
use pipeyard_fleet::{
    Token, http_client,
    proxy::{
        self, ARM_HEADER, ArmRole, ProxyClient, ProxyConfig, ProxyError, Refusal, Route, RouteArm,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// A program that answers its own name.
async fn program(name: &'static str) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/broken", any(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route("/echo", any(async |body: String| body))
        .fallback(any(async move || name));
    (address, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

struct Proxy {
    client: ProxyClient,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    config: ProxyConfig,
}

impl Proxy {
    async fn start(folder: &Path) -> Self {
        let config = ProxyConfig {
            admin_listen: SocketAddr::from(([127, 0, 0, 1], free_port().await)),
            host: [127, 0, 0, 1].into(),
            token_file: folder.join("proxy-token"),
            state_file: folder.join("routes.json"),
            allow_public: false,
        };
        Self::with(config).await
    }

    async fn with(config: ProxyConfig) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(proxy::run(config.clone(), stop.clone()));
        let token = Token::shared(&config.token_file).unwrap();
        let client = ProxyClient::new(config.admin_listen, token, http_client().unwrap());
        for _ in 0..500 {
            if client.get("shop/production").await.is_ok() {
                return Self { client, stop, task, config };
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the proxy doesn't answer");
    }

    async fn end(self) -> ProxyConfig {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.config
    }
}

fn arm(id: &str, role: ArmRole, weight: u8, addresses: &[SocketAddr]) -> RouteArm {
    RouteArm { id: id.to_owned(), role, weight, addresses: addresses.to_vec() }
}

fn route(epoch: u64, listen: u16, stable: &[SocketAddr], canary: &[SocketAddr], w: u8) -> Route {
    let stable = arm("d-1", ArmRole::Stable, 100 - w, stable);
    let canary = arm("d-2", ArmRole::Canary, w, canary);
    Route { epoch, listen, arms: vec![stable, canary] }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_exact_and_no_request_fails_while_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(folder.path()).await;
    let ((a, _), (b, _), (c, _)) = (program("a").await, program("b").await, program("c").await);
    let port = free_port().await;
    proxy.client.put("shop/production", &route(1, port, &[a, b], &[c], 0)).await.unwrap();
    let (stop, failed, sent) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let clients: Vec<_> = (0..4)
        .map(|n| {
            let (stop, failed, sent) = (Arc::clone(&stop), Arc::clone(&failed), Arc::clone(&sent));
            let http = http_client().unwrap();
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let url = format!("http://127.0.0.1:{port}/echo");
                    let post = http.post(&url).body(format!("hello {n}")).send();
                    let answer = match post.await {
                        Ok(response) => response.text().await.unwrap_or_default(),
                        Err(error) => error.to_string(),
                    };
                    failed.fetch_add(u64::from(answer != format!("hello {n}")), Ordering::Relaxed);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut epoch = 1;
    for weight in [10, 50, 90, 100, 0, 37] {
        epoch += 1;
        // Addresses come and go as well.
        let stable: &[SocketAddr] = if epoch % 2 == 0 { &[a] } else { &[a, b] };
        let change = route(epoch, port, stable, &[c], weight);
        proxy.client.put("shop/production", &change).await.unwrap();
        let status = loop {
            let status = proxy.client.get("shop/production").await.unwrap().unwrap();
            let total: u64 = status.arms.iter().map(|arm| arm.requests_since_change).sum();
            if total >= 300 {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let total: u64 = status.arms.iter().map(|arm| arm.requests_since_change).sum();
        let due = total as f64 * f64::from(weight) / 100.0;
        let off = (status.arms[1].requests_since_change as f64 - due).abs();
        // Requests that were counted between the two readings may add a few.
        assert!(off <= 10.0, "weight {weight}: off by {off} in {total}");
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(failed.load(Ordering::Relaxed), 0);
    let status = proxy.client.get("shop/production").await.unwrap().unwrap();
    let requests: u64 = status.arms.iter().map(|arm| arm.requests).sum();
    assert_eq!(requests, sent.load(Ordering::Relaxed));
    assert_eq!(status.arms.iter().map(|arm| arm.latency.count()).sum::<u64>(), requests);
    assert!(status.in_flight.is_empty() && status.arms.iter().all(|arm| arm.errors == 0));
    proxy.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_arm_that_does_not_answer_costs_its_own_record_and_no_client() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(folder.path()).await;
    let (a, _) = program("a").await;
    let dead = SocketAddr::from(([127, 0, 0, 1], free_port().await));
    let port = free_port().await;
    proxy.client.put("shop/production", &route(1, port, &[a, dead], &[dead], 20)).await.unwrap();
    let http = http_client().unwrap();
    let mut headers = Vec::new();
    for _ in 0..100 {
        let url = format!("http://127.0.0.1:{port}/");
        let response = http.get(url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        headers.push(response.headers()[ARM_HEADER].to_str().unwrap().to_owned());
        assert_eq!(response.text().await.unwrap(), "a");
    }
    assert_eq!(headers.iter().filter(|arm| *arm == "canary").count(), 20);
    for _ in 0..100 {
        let url = format!("http://127.0.0.1:{port}/broken");
        let status = http.get(url).send().await.unwrap().status();
        assert_eq!(status, 500);
    }
    let status = proxy.client.get("shop/production").await.unwrap().unwrap();
    // Every request of the canary missed; of the stable's, only the broken ones were errors.
    assert_eq!((status.arms[0].requests, status.arms[0].errors), (160, 80));
    assert_eq!((status.arms[1].requests, status.arms[1].errors), (40, 40));
    proxy.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_routes_are_served_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(folder.path()).await;
    let (a, _) = program("a").await;
    let port = free_port().await;
    let kept = route(7, port, &[a], &[a], 30);
    let first = proxy.client.put("shop/production", &kept).await.unwrap();
    let config = proxy.end().await;
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err());
    let proxy = Proxy::with(config).await;
    let status = proxy.client.get("shop/production").await.unwrap().unwrap();
    assert_eq!(status.route, kept);
    assert!(status.listening && status.boot != first.boot);
    let answer = http_client().unwrap().get(format!("http://127.0.0.1:{port}/")).send().await;
    assert_eq!(answer.unwrap().text().await.unwrap(), "a");
    proxy.client.remove("shop/production", 8).await.unwrap();
    assert_eq!(proxy.client.get("shop/production").await.unwrap(), None);
    proxy.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_or_wrong_change_or_one_without_the_token_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(folder.path()).await;
    let (a, _) = program("a").await;
    let port = free_port().await;
    let kept = route(5, port, &[a], &[a], 30);
    proxy.client.put("shop/production", &kept).await.unwrap();
    proxy.client.put("shop/production", &kept).await.expect("the same again is fine");
    let refused = |answer: Result<_, ProxyError>| match answer {
        Err(ProxyError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    for stale in [route(4, port, &[a], &[a], 30), route(5, port, &[a], &[a], 31)] {
        let refusal = refused(proxy.client.put("shop/production", &stale).await);
        assert_eq!(refusal, Refusal::StaleEpoch { current: 5 });
    }
    let mut wrong = route(6, port, &[a], &[a], 30);
    wrong.arms[0].weight = 71;
    let refusal = refused(proxy.client.put("shop/production", &wrong).await);
    assert!(matches!(refusal, Refusal::Invalid { .. }), "{refusal}");
    let taken = proxy.config.admin_listen.port();
    let refusal = refused(proxy.client.put("a/b", &route(1, taken, &[a], &[a], 0)).await);
    assert!(matches!(refusal, Refusal::Port { .. }), "{refusal}");
    let http = http_client().unwrap();
    let stranger = ProxyClient::new(proxy.config.admin_listen, Token::new("guess"), http);
    assert!(stranger.get("shop/production").await.is_err());
    let status = proxy.client.get("shop/production").await.unwrap().unwrap();
    assert_eq!(status.route, kept);
    proxy.end().await;
}

#[tokio::test]
async fn a_public_address_needs_leave() {
    let folder = tempfile::tempdir().unwrap();
    let config = ProxyConfig {
        admin_listen: SocketAddr::from(([0, 0, 0, 0], 0)),
        host: [127, 0, 0, 1].into(),
        token_file: folder.path().join("token"),
        state_file: folder.path().join("routes"),
        allow_public: false,
    };
    let refused = proxy::run(config, CancellationToken::new()).await.unwrap_err();
    let told = format!("{refused:#}");
    assert!(told.contains("the proxy's admin API") && told.contains("0.0.0.0"), "{told}");
}

/// A program that takes any upgrade to `echo`, and then answers what it gets.
async fn echoing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = head(&mut stream).await;
                let lower = head.to_ascii_lowercase();
                assert!(lower.contains("connection: upgrade\r\n"), "{head}");
                assert!(lower.contains("upgrade: echo\r\n"), "{head}");
                let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                              Upgrade: echo\r\nX-Program: 1\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// Reads up to the empty line, byte by byte.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_carries_bytes_both_ways_and_counts_as_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(folder.path()).await;
    let ((plain, _), echo) = (program("plain").await, echoing().await);
    let port = free_port().await;
    proxy.client.put("shop/production", &route(1, port, &[echo], &[], 0)).await.unwrap();
    let ask = "GET /live HTTP/1.1\r\nHost: shop\r\nConnection: keep-alive, Upgrade\r\n\
               Upgrade: echo\r\n\r\n";
    let mut user = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    user.write_all(ask.as_bytes()).await.unwrap();
    let answer = head(&mut user).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let lower = answer.to_ascii_lowercase();
    for part in ["upgrade: echo", "connection: upgrade", "x-program: 1", "x-pipeyard-arm: stable"] {
        assert!(lower.contains(part), "{part} isn't in {answer}");
    }
    // More than any buffer on the way, in both directions at once.
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (mut read, mut write) = user.split();
    let mut got = vec![0; sent.len()];
    let (wrote, _) = tokio::join!(write.write_all(&sent), read.read_exact(&mut got));
    wrote.unwrap();
    assert!(got == sent, "the bytes differ");

    // A new set takes the next users; who is inside stays until they leave.
    proxy.client.put("shop/production", &route(2, port, &[plain], &[], 0)).await.unwrap();
    let url = format!("http://127.0.0.1:{port}/");
    let text = http_client().unwrap().get(&url).send().await.unwrap().text().await.unwrap();
    assert_eq!(text, "plain");
    user.write_all(b"still here").await.unwrap();
    let mut got = [0; 10];
    user.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"still here");
    let in_flight = async || {
        let status = proxy.client.get("shop/production").await.unwrap().unwrap();
        status.in_flight.get(&echo).copied()
    };
    assert_eq!(in_flight().await, Some(1));
    drop(user);
    for _ in 0..500 {
        if in_flight().await.is_none() {
            proxy.end().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the tunnel is never over");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_a_program_does_not_know_is_a_plain_request() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(folder.path()).await;
    let (plain, _) = program("plain").await;
    let port = free_port().await;
    proxy.client.put("shop/production", &route(1, port, &[plain], &[], 0)).await.unwrap();
    let request = http_client().unwrap().get(format!("http://127.0.0.1:{port}/"));
    let request = request.header("connection", "upgrade").header("upgrade", "echo");
    let answer = request.send().await.unwrap();
    assert_eq!((answer.status(), answer.text().await.unwrap().as_str()), (StatusCode::OK, "plain"));
    proxy.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_became_of_its_files_the_proxy_serves_and_keeps_what_was_there() {
    let whole = {
        let folder = tempfile::tempdir().unwrap();
        let proxy = Proxy::start(folder.path()).await;
        let (a, _) = program("a").await;
        let port = free_port().await;
        proxy.client.put("shop/production", &route(1, port, &[a], &[], 0)).await.unwrap();
        let config = proxy.end().await;
        std::fs::read(&config.state_file).unwrap()
    };
    let mut wrong_sum: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    wrong_sum["shop/production"]["arms"][0]["weight"] = 7.into();
    let damages: [Vec<u8>; 6] = [
        Vec::new(),
        b"garbage".to_vec(),
        whole[..whole.len() / 2].to_vec(),
        vec![0; 512],
        b"{\"shop/production\": 3}".to_vec(),
        serde_json::to_vec(&wrong_sum).unwrap(),
    ];
    for damage in &damages {
        for token in ["", "two words", "\u{1}", "good-token"] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("routes.json"), damage).unwrap();
            std::fs::write(folder.path().join("proxy-token"), token).unwrap();
            let proxy = Proxy::start(folder.path()).await;
            assert!(proxy.client.all().await.unwrap().is_empty());
            let (a, _) = program("a").await;
            let port = free_port().await;
            let told = proxy.client.put("shop/production", &route(1, port, &[a], &[], 0)).await;
            assert!(told.unwrap().listening);
            let names: Vec<String> = std::fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            let aside = |start: &str| {
                let name = names.iter().find(|n| n.starts_with(&format!("{start}.damaged-")));
                name.map(|name| std::fs::read(folder.path().join(name)).unwrap())
            };
            assert_eq!(aside("routes.json").as_ref(), Some(damage), "{names:?}");
            let kept = (token != "good-token").then(|| token.as_bytes().to_vec());
            assert_eq!(aside("proxy-token"), kept);
            proxy.end().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_the_token_decides_also_after_it_was_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(folder.path()).await;
    let old = proxy.client.clone();
    std::fs::write(&proxy.config.token_file, "").unwrap();
    let token = Token::shared(&proxy.config.token_file).unwrap();
    let new = ProxyClient::new(proxy.config.admin_listen, token, http_client().unwrap());
    assert!(new.all().await.unwrap().is_empty());
    assert!(old.all().await.is_err());
    proxy.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_never_sees_or_sets_pipeyards_cookies() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(folder.path()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(any(async |headers: axum::http::HeaderMap| {
        let seen = format!("{:?} {:?}", headers.get("cookie"), headers.get("authorization"));
        let set = axum::response::AppendHeaders([
            ("set-cookie", "pipeyard_session=evil; Path=/"),
            ("set-cookie", "own=1"),
        ]);
        (set, seen)
    }));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let port = free_port().await;
    proxy.client.put("shop/production", &route(1, port, &[address], &[], 0)).await.unwrap();
    let answer = http_client()
        .unwrap()
        .get(format!("http://127.0.0.1:{port}/"))
        .header("cookie", "pipeyard_session=secret; own=1; __Host-pipeyard_session=secret")
        .bearer_auth("ppt_secret")
        .send()
        .await
        .unwrap();
    let set: Vec<_> = answer.headers().get_all("set-cookie").iter().collect();
    assert_eq!(set, ["own=1"]);
    assert_eq!(answer.text().await.unwrap(), "Some(\"own=1\") None");
    proxy.end().await;
}
