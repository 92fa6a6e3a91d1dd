//! The one way in which a role of Pipeyard takes connections: the server, the fleet's endpoint, the
//! proxy's admin API. Whoever hasn't said yet who they are can't use up what others need.
//!
//! - A header has to arrive whole within [`Limits::header`]; an idle connection ends after the same
//!   time. A body must go on arriving, a reader must go on taking.
//! - A connection is a **guest** until a request on it was authenticated ([`Guest::known`]). There is
//!   a limit on guests by address and in all, and the limit in all leaves room for those who are
//!   known. When a limit is reached, the guest that has been idle for longest gives way; only where
//!   none is idle, the new one is turned away. See [`places`].
//! - Behind a trusted proxy all connections come from one address: there the limit by address counts
//!   the requests that are in progress for a forwarded address and not authenticated.
//! - A process may open as many files as the system lets it ([`raise_open_files`]).
//!
//! TLS comes in between by [`Listener::wrap`]: a handshake has a deadline and is a guest's.

pub mod places;
pub mod tls;

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Once},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt as _};
use tower_http::timeout::TimeoutBody;

use places::{Busy, Held};
pub use places::{Guest, Places};

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a whole request header, and for a connection that is idle.
    pub header: Duration,
    /// Between two pieces of a request's body.
    pub body_idle: Duration,
    /// A peer that takes nothing of what waits for it is given up by the kernel after this.
    pub stalled_reader: Duration,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// Connections in all; `None`: half of the files that the process may open.
    pub total: Option<usize>,
    /// Guests of one address.
    pub by_address: usize,
    /// A proxy stands in front, and its `X-Forwarded-For` is to be believed.
    pub trusted_proxy: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(30),
            body_idle: Duration::from_secs(60),
            stalled_reader: Duration::from_secs(60),
            handshake: Duration::from_secs(10),
            total: None,
            by_address: 256,
            trusted_proxy: false,
        }
    }
}

impl Limits {
    /// Connections that one listener holds at most.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.total.unwrap_or_else(|| (raise_open_files() / 2).clamp(64, 16_384))
    }
}

/// The largest header of a request, in bytes.
const HEADER_BYTES: usize = 64 * 1024;
/// After this the connections that are left are cut, when the caller says nothing else.
const AGAIN: Duration = Duration::from_millis(50);

/// Bytes both ways: a socket, or TLS over one.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// The future of a handshake.
pub type Handshake = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;

/// What stands between a socket and HTTP, for example TLS.
pub trait Wrap: Send + Sync + 'static {
    /// Begins a connection. Dropped when it takes longer than [`Limits::handshake`].
    fn wrap(&self, stream: TcpStream) -> Handshake;
}

/// A bound address.
pub struct Listener {
    tcp: TcpListener,
    limits: Limits,
    wrap: Option<Arc<dyn Wrap>>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("tcp", &self.tcp).field("limits", &self.limits).finish()
    }
}

impl Listener {
    /// Listens at an address.
    ///
    /// # Errors
    /// When it can't be bound.
    pub async fn bind(address: SocketAddr, limits: Limits) -> io::Result<Self> {
        raise_open_files();
        let tcp = TcpListener::bind(address).await?;
        // Connections take this over from the listener.
        let stalled = u32::try_from(limits.stalled_reader.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(&tcp, stalled)?;
        Ok(Self { tcp, limits, wrap: None })
    }

    /// The same with something between the socket and HTTP.
    #[must_use]
    pub fn wrap(mut self, wrap: Option<Arc<dyn Wrap>>) -> Self {
        self.wrap = wrap;
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system doesn't say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves HTTP/1.1 until `shutdown`; then nothing new is taken, and what is in progress has
    /// `grace` to end. Each request carries its [`Guest`] as an extension.
    pub async fn serve<S, B>(self, service: S, shutdown: CancellationToken, grace: Duration)
    where
        S: Service<Request<TimeoutBody<Incoming>>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let by_address =
            if self.limits.trusted_proxy { usize::MAX } else { self.limits.by_address };
        let places = Places::new(self.limits.connections(), by_address);
        let forwarded = places::Requests::new(self.limits.by_address);
        let tasks = TaskTracker::new();
        let cut = CancellationToken::new();
        loop {
            let (stream, peer) = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.tcp.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file descriptors, mostly: wait until connections end.
                        tracing::warn!(%error, "a connection can't be accepted");
                        tokio::time::sleep(AGAIN).await;
                        continue;
                    }
                },
            };
            let Some(guest) = places.admit(peer) else {
                tracing::debug!(%peer, "a connection was turned away: too many are open");
                continue;
            };
            let _ = stream.set_nodelay(true);
            let connection = Connection {
                guest,
                limits: self.limits,
                forwarded: forwarded.clone(),
                service: service.clone(),
                stop: shutdown.clone(),
            };
            let (wrap, cut) = (self.wrap.clone(), cut.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = cut.cancelled() => {}
                    () = connection.run(stream, wrap) => {}
                }
            });
        }
        drop(self.tcp);
        tasks.close();
        if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
            cut.cancel();
            tasks.wait().await;
        }
    }
}

struct Connection<S> {
    guest: Guest,
    limits: Limits,
    forwarded: places::Requests,
    service: S,
    stop: CancellationToken,
}

impl<S> Connection<S> {
    async fn run<B>(self, stream: TcpStream, wrap: Option<Arc<dyn Wrap>>)
    where
        S: Service<Request<TimeoutBody<Incoming>>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Some(wrap) = wrap else { return self.http(stream).await };
        let (evicted, deadline) = (self.guest.clone(), self.limits.handshake);
        tokio::select! {
            () = evicted.gives_way() => {}
            done = tokio::time::timeout(deadline, wrap.wrap(stream)) => match done {
                Ok(Ok(stream)) => self.http(stream).await,
                Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
                Err(_) => tracing::debug!("a handshake took too long"),
            },
        }
    }

    async fn http<B>(self, stream: impl Io)
    where
        S: Service<Request<TimeoutBody<Incoming>>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (guest, limits, forwarded) = (self.guest.clone(), self.limits, self.forwarded);
        let service = self.service;
        let handler = service_fn(move |request: Request<Incoming>| {
            let busy = guest.busy();
            let from = limits.trusted_proxy.then(|| forwarded_for(request.headers())).flatten();
            // A proxy's connection carries many people: each request is a guest of its own.
            let place = from.map(|from| forwarded.admit(from));
            let (guest, service) = (guest.clone(), service.clone());
            async move {
                let place = match place {
                    Some(None) => return Ok(turned_away()),
                    Some(place) => place,
                    None => None,
                };
                let mut request = request.map(|body| TimeoutBody::new(limits.body_idle, body));
                request.extensions_mut().insert(guest.for_request(place.clone()));
                let response = match service.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                drop(place);
                Ok::<_, Infallible>(response.map(|body| held(body, busy)))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header)
            .max_header_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), handler);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = self.guest.gives_way() => {
                if !self.guest.has_asked() {
                    return;
                }
                // An answer may still be on its way out.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        }
    }
}

type Out = UnsyncBoxBody<Bytes, BoxError>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn held<B>(body: B, busy: Busy) -> Out
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Held::new(body, busy).map_err(Into::<BoxError>::into).boxed_unsync()
}

/// The answer to one request too many of an address behind a trusted proxy.
fn turned_away() -> Response<Out> {
    const BODY: &str = r#"{"error":{"code":"too_many_connections","message":"too many requests of this address are in progress without a sign-in","hint":"wait until some of them have ended"}}"#;
    let body = Full::new(Bytes::from_static(BODY.as_bytes()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The last address of `X-Forwarded-For`: the one that the proxy itself saw. What stands before it
/// is the client's own word.
#[must_use]
pub fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next()?.trim().parse().ok()
}

/// Lets this process open as many files as the system allows it, and answers how many. A second
/// call changes nothing.
pub fn raise_open_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum
            && let Err(error) = setrlimit(
                Resource::Nofile,
                Rlimit { current: limit.maximum, maximum: limit.maximum },
            )
        {
            tracing::warn!(%error, "the limit of open files can't be raised");
        }
    });
    getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}
