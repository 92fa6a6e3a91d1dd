//! Upgrades, such as WebSocket: once client and program agree, bytes go both ways until one of them
//! ends. The request was counted and judged by its answer; what follows is nobody's to count.
//!
//! A set of containers that goes waits for its open tunnels as for any request in flight, and then
//! takes them with it.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Version,
    header::{CONNECTION, UPGRADE},
};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;

use super::{backend::InFlight, forward::Answer};

/// Tunnels that one proxy holds open.
const MOST: usize = 4_096;

static TUNNELS: Semaphore = Semaphore::const_new(MOST);

/// A client that wants to go on in another protocol.
#[derive(Debug)]
pub(super) struct Wish {
    protocol: HeaderValue,
    client: OnUpgrade,
}

/// What the client wants, if it asks for an upgrade as it must.
pub(super) fn wish(request: &mut Request<Incoming>) -> Option<Wish> {
    let named = request.headers().get_all(CONNECTION).iter();
    let mut words = named.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    let asks = words.any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    if !asks || request.version() != Version::HTTP_11 {
        return None;
    }
    let protocol = request.headers().get(UPGRADE)?.clone();
    Some(Wish { protocol, client: hyper::upgrade::on(request) })
}

impl Wish {
    /// Says to the program what the client said to the proxy.
    pub(super) fn pass_on(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
    }

    /// The program agreed: its answer for the client, behind which the tunnel opens. None when
    /// there are too many.
    pub(super) fn granted(
        self,
        mut response: Response<Incoming>,
        in_flight: InFlight,
    ) -> Option<Response<Answer>> {
        let place = TUNNELS.try_acquire().ok()?;
        let program = hyper::upgrade::on(&mut response);
        // Ends by itself: when client or program hangs up.
        tokio::spawn(async move {
            let _held = (place, in_flight);
            let (client, program) = match tokio::try_join!(self.client, program) {
                Ok(both) => both,
                Err(error) => {
                    tracing::debug!(%error, "a tunnel didn't open");
                    return;
                }
            };
            let (mut client, mut program) = (TokioIo::new(client), TokioIo::new(program));
            let ended = tokio::io::copy_bidirectional(&mut client, &mut program).await;
            if let Err(error) = ended {
                tracing::debug!(%error, "a tunnel broke");
            }
        });
        let (parts, _) = response.into_parts();
        let mut answer = Response::new(Either::Right(Full::new(Bytes::new())));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = parts.headers;
        Some(answer)
    }
}
