//! TLS over real sockets, by the certificates in `certificates/`.

#![expect(clippy::unwrap_used, reason = "a test may end by a panic")]

use std::{
    convert::Infallible,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use pipeyard_listen::{
    Limits, Listener,
    tls::{BadTls, Tls},
};
use tokio_util::sync::CancellationToken;
use tower_http::timeout::TimeoutBody;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn of(name: &str) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        files.put(name);
        files
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    fn put(&self, name: &str) {
        self.put_key(name);
        fs::copy(fixture(&format!("{name}.pem")), self.certificate()).unwrap();
    }

    fn put_key(&self, name: &str) {
        fs::copy(fixture(&format!("{name}.key")), self.key()).unwrap();
        fs::set_permissions(self.key(), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

async fn serve(tls: std::sync::Arc<Tls>) -> (SocketAddr, CancellationToken) {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), Limits::default()).await.unwrap();
    let listener = listener.wrap(Some(tls));
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let service = tower::service_fn(async |_: Request<TimeoutBody<Incoming>>| {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"here\n"))))
    });
    let ends = stop.clone();
    tokio::spawn(async move { listener.serve(service, ends, Duration::ZERO).await });
    (address, stop)
}

fn client(authority: bool) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().tls_info(true);
    let pem = fs::read(fixture("ca.pem")).unwrap();
    let roots = reqwest::Certificate::from_pem_bundle(&pem).unwrap();
    if authority { builder.tls_certs_only(roots) } else { builder }.build().unwrap()
}

/// The certificate that the server shows to a new connection.
async fn shown(address: SocketAddr) -> Vec<u8> {
    let answer =
        client(true).get(format!("https://localhost:{}/", address.port())).send().await.unwrap();
    let info = answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap();
    info.peer_certificate().unwrap().to_owned()
}

#[tokio::test]
async fn a_certificate_is_shown_and_the_next_one_as_soon_as_it_is_there() {
    let files = Files::of("one");
    let tls = Tls::open(Some(&files.certificate()), Some(&files.key())).unwrap().unwrap();
    let (address, stop) = serve(tls).await;
    let first = shown(address).await;
    // Who doesn't know the authority says nothing; who speaks plainly isn't heard.
    let url = format!("https://localhost:{}/", address.port());
    assert!(client(false).get(&url).send().await.is_err());
    let plain = format!("http://localhost:{}/", address.port());
    assert!(client(true).get(&plain).send().await.is_err());

    // Half of a renewal changes nothing.
    files.put_key("two");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(shown(address).await, first);
    files.put("two");
    let mut rounds = 0;
    while shown(address).await == first {
        rounds += 1;
        assert!(rounds < 200, "the new certificate never comes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
}

#[tokio::test]
async fn files_that_cannot_be_used_are_refused_by_name() {
    let files = Files::of("one");
    let open = |certificate: &Path, key: &Path| Tls::open(Some(certificate), Some(key)).map(|_| ());
    let (certificate, key) = (files.certificate(), files.key());
    assert!(matches!(Tls::open(None, None), Ok(None)));
    assert!(matches!(Tls::open(Some(&certificate), None), Err(BadTls::Half)));
    assert!(matches!(Tls::open(None, Some(&key)), Err(BadTls::Half)));
    assert!(matches!(open(&certificate, &fixture("none")), Err(BadTls::File { .. })));
    assert!(matches!(open(&key, &key), Err(BadTls::File { .. })));
    assert!(matches!(open(&certificate, &certificate), Err(BadTls::File { .. })));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = open(&certificate, &key).unwrap_err().to_string();
    assert!(refused.contains("chmod 600"), "{refused}");
    files.put_key("two");
    assert!(matches!(open(&certificate, &key), Err(BadTls::Pair { .. })));
}
