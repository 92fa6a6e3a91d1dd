//! One request's way through the proxy.
//!
//! A request that can't have reached a program is sent to the next address; one that may have is
//! repeated only if its method allows it and it has no body. When no address of its arm answers,
//! the other arm gets it, and the miss counts as an error of the arm whose turn it was: the client
//! sees no failure, the judge does.
//!
//! Upgrades go by [`super::upgrade`]. Absent: `Expect` handling beyond what hyper does.

use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use http_body_util::{Either, Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::{
    backend::{Backend, InFlight, Outgoing, SendError, Sender},
    cookies,
    route::ArmRole,
    service::{Counters, Service, Table},
    upgrade::{self, Wish},
};

/// Which arm the request was given to: `stable` or `canary`.
pub const ARM_HEADER: &str = "x-pipeyard-arm";
/// The request's id; made here if the client gave none.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// How many addresses one request is tried at.
const TRIES: usize = 6;

pub(super) type Answer = Either<Tracked, Full<Bytes>>;

pub(super) async fn forward(
    service: &Service,
    peer: IpAddr,
    mut request: Request<Incoming>,
) -> Response<Answer> {
    let began = Instant::now();
    let id = request_id(request.headers());
    let table = service.table();
    let Some(index) = service.next_arm(&table) else {
        return own(StatusCode::SERVICE_UNAVAILABLE, "no version is deployed\n", &id, None);
    };
    let arm = &table.arms[index];
    let counting = Counting::new(&arm.counters);
    let wish = upgrade::wish(&mut request);
    let mut request = outgoing(request, peer, &id);
    if let Some(wish) = &wish {
        wish.pass_on(request.headers_mut());
    }
    let (answer, by_own_arm) = attempt(&table, index, request).await;
    arm.counters.observe(began.elapsed());
    let response = match answer {
        Ok((response, sender, in_flight)) => match wish {
            Some(wish) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                switched(wish, response, in_flight, &id, arm.role)
            }
            Some(_) | None => inward(response, sender, in_flight, counting, &id, arm.role),
        },
        Err(status) => own(status, "no program answered\n", &id, Some(arm.role)),
    };
    if !by_own_arm || response.status().is_server_error() {
        arm.counters.errors.fetch_add(1, Ordering::Relaxed);
    }
    response
}

type Won = (Response<Incoming>, Sender, InFlight);

/// Tries the addresses of the arm, then of the others that have weight. The flag says whether the
/// arm itself answered.
async fn attempt(
    table: &Table,
    index: usize,
    request: Request<Outgoing>,
) -> (Result<Won, StatusCode>, bool) {
    let repeatable = repeatable(&request);
    let spare = repeatable.then(|| copy_head(&request));
    let own = table.arms[index].candidates();
    let own_count = own.len();
    let others = table.arms.iter().enumerate();
    let others = others.filter(|(i, arm)| *i != index && arm.weight > 0);
    let candidates: Vec<Arc<Backend>> =
        own.into_iter().chain(others.flat_map(|(_, arm)| arm.candidates())).collect();
    if candidates.is_empty() {
        return (Err(StatusCode::SERVICE_UNAVAILABLE), false);
    }
    let mut request = request;
    let mut lost = 0;
    for (i, backend) in candidates.iter().enumerate().take(TRIES.max(own_count.min(TRIES) + 1)) {
        let in_flight = InFlight::new(backend);
        match backend.send(request, repeatable).await {
            Ok((response, sender)) => return (Ok((response, sender, in_flight)), i < own_count),
            Err(SendError::Unsent(again)) => request = *again,
            Err(SendError::Silent) => return (Err(StatusCode::GATEWAY_TIMEOUT), false),
            Err(SendError::Lost) => match &spare {
                Some(head) if lost < 3 => {
                    lost += 1;
                    request = copy_head(head);
                }
                _ => return (Err(StatusCode::BAD_GATEWAY), false),
            },
        }
    }
    (Err(StatusCode::BAD_GATEWAY), false)
}

/// Whether sending it twice does no harm and is possible.
fn repeatable(request: &Request<Outgoing>) -> bool {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    safe && request.body().is_end_stream()
}

fn copy_head(request: &Request<Outgoing>) -> Request<Outgoing> {
    let mut copy = Request::new(Either::Right(Empty::new()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID_HEADER).filter(|value| value.len() <= 200);
    given.cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::now_v7().simple().to_string();
        HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("0"))
    })
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

fn outgoing(request: Request<Incoming>, peer: IpAddr, id: &HeaderValue) -> Request<Outgoing> {
    let (mut parts, body) = request.into_parts();
    strip(&mut parts.headers);
    cookies::strip_request(&mut parts.headers);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse().unwrap_or_default();
    parts.version = Version::HTTP_11;
    let before = parts.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    let chain = before.map_or_else(|| peer.to_string(), |before| format!("{before}, {peer}"));
    if let Ok(value) = HeaderValue::from_str(&chain) {
        parts.headers.insert("x-forwarded-for", value);
    }
    parts.headers.insert(REQUEST_ID_HEADER, id.clone());
    let body = if body.is_end_stream() { Either::Right(Empty::new()) } else { Either::Left(body) };
    Request::from_parts(parts, body)
}

fn inward(
    response: Response<Incoming>,
    sender: Sender,
    in_flight: InFlight,
    counting: Counting,
    id: &HeaderValue,
    role: ArmRole,
) -> Response<Answer> {
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers);
    cookies::strip_response(&mut parts.headers);
    parts.version = Version::HTTP_11;
    mark(&mut parts.headers, id, Some(role));
    let body = Tracked { body, sender: Some(sender), in_flight, _counting: counting };
    Response::from_parts(parts, Either::Left(body))
}

/// Client and program go on in another protocol.
fn switched(
    wish: Wish,
    response: Response<Incoming>,
    in_flight: InFlight,
    id: &HeaderValue,
    role: ArmRole,
) -> Response<Answer> {
    match wish.granted(response, in_flight) {
        Some(mut answer) => {
            cookies::strip_response(answer.headers_mut());
            mark(answer.headers_mut(), id, Some(role));
            answer
        }
        None => own(StatusCode::SERVICE_UNAVAILABLE, "too many open tunnels\n", id, Some(role)),
    }
}

fn mark(headers: &mut HeaderMap, id: &HeaderValue, role: Option<ArmRole>) {
    headers.insert(REQUEST_ID_HEADER, id.clone());
    if let Some(role) = role {
        headers.insert(ARM_HEADER, HeaderValue::from_static(role.as_str()));
    }
}

/// An answer of the proxy's own.
fn own(
    status: StatusCode,
    text: &'static str,
    id: &HeaderValue,
    role: Option<ArmRole>,
) -> Response<Answer> {
    let mut response = Response::new(Either::Right(Full::new(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    mark(response.headers_mut(), id, role);
    response
}

/// Counts one request in flight in an arm.
#[derive(Debug)]
pub(super) struct Counting(Arc<Counters>);

impl Counting {
    fn new(counters: &Arc<Counters>) -> Self {
        counters.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counters))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body: it holds the request in flight until it is read or dropped, and gives the
/// connection back when it was read to its end.
#[derive(Debug)]
pub(super) struct Tracked {
    body: Incoming,
    sender: Option<Sender>,
    in_flight: InFlight,
    _counting: Counting,
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if self.body.is_end_stream()
            && let Some(sender) = self.sender.take()
        {
            self.in_flight.0.keep(sender);
        }
    }
}

/// Where a client's request came from, as far as the proxy knows.
pub(super) fn peer_ip(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}
