//! One address behind the proxy: its connections, and how a request is sent to it.
//!
//! An error says whether the request can have reached the program. If it can't, any request may
//! go to another address; if it can, only one that may be repeated.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Either, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// A request's body on its way to a program: the client's own, or none.
pub(super) type Outgoing = Either<Incoming, Empty<Bytes>>;
/// One kept connection.
pub(super) type Sender = http1::SendRequest<Outgoing>;

const CONNECT: Duration = Duration::from_secs(2);
const HEAD: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(20);
const KEEP: usize = 64;
/// How long an address that refused a connection is only tried when the others fail too.
const SHUN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    pub(super) in_flight: AtomicU64,
    idle: Mutex<Vec<(Instant, Sender)>>,
    shunned: Mutex<Option<Instant>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum SendError {
    /// The program can't have seen it; here it is again.
    Unsent(Box<Request<Outgoing>>),
    /// The program may have seen it.
    Lost,
    /// The program took it and said nothing in time.
    Silent,
}

impl Backend {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            in_flight: AtomicU64::new(0),
            idle: Mutex::default(),
            shunned: Mutex::default(),
        }
    }

    /// Whether it refused a connection a moment ago.
    pub(super) fn is_shunned(&self) -> bool {
        let since = *self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() < SHUN)
    }

    /// Sends `request` and waits for the head of the answer. A request that must not be repeated
    /// gets a connection of its own: a kept one could be closed by the program at that moment.
    pub(super) async fn send(
        &self,
        mut request: Request<Outgoing>,
        repeatable: bool,
    ) -> Result<(Response<Incoming>, Sender), SendError> {
        loop {
            let kept = if repeatable { self.take_idle().await } else { None };
            let reused = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => match self.connect().await {
                    Some(sender) => sender,
                    None => return Err(SendError::Unsent(Box::new(request))),
                },
            };
            match timeout(HEAD, sender.try_send_request(request)).await {
                Err(_) => return Err(SendError::Silent),
                Ok(Ok(response)) => return Ok((response, sender)),
                Ok(Err(mut error)) => match error.take_message() {
                    Some(unsent) if reused => request = unsent,
                    Some(unsent) => return Err(SendError::Unsent(Box::new(unsent))),
                    None => return Err(SendError::Lost),
                },
            }
        }
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn keep(&self, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEEP {
            idle.push((Instant::now(), sender));
        }
    }

    async fn take_idle(&self) -> Option<Sender> {
        loop {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let (since, mut sender) = kept?;
            if since.elapsed() > IDLE || sender.is_closed() {
                continue;
            }
            // Ready once the connection's own task has seen the end of the last answer.
            if let Ok(Ok(())) = timeout(Duration::from_millis(50), sender.ready()).await {
                return Some(sender);
            }
        }
    }

    async fn connect(&self) -> Option<Sender> {
        let sender = self.open().await;
        let since = sender.is_none().then(Instant::now);
        *self.shunned.lock().unwrap_or_else(PoisonError::into_inner) = since;
        sender
    }

    async fn open(&self) -> Option<Sender> {
        let stream = timeout(CONNECT, TcpStream::connect(self.address)).await.ok()?.ok()?;
        stream.set_nodelay(true).ok()?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        // Ends by itself: when the sender is dropped or the program closes.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a program ended");
            }
        });
        Some(sender)
    }
}

/// Counts one request in flight to an address for as long as it lives.
#[derive(Debug)]
pub(super) struct InFlight(pub(super) Arc<Backend>);

impl InFlight {
    pub(super) fn new(backend: &Arc<Backend>) -> Self {
        backend.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(backend))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
