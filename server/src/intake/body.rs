//! Bodies of webhooks: capped, on time, and few large ones at once, so that what a stranger sends
//! can neither fill the memory nor hold a place for long.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{ApiResult, Failure};

/// The largest body: GitHub sends no larger one.
pub const MAX_BODY: usize = 25 * 1024 * 1024;
/// Above this a body is large.
const SMALL: usize = 256 * 1024;
/// Bodies that are read at the same time.
const AT_ONCE: usize = 256;
/// Large ones among them.
const LARGE_AT_ONCE: usize = 4;
/// For the whole body.
const DEADLINE: Duration = Duration::from_secs(30);

static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);
static LARGE: Semaphore = Semaphore::const_new(LARGE_AT_ONCE);

/// A body in memory. Keep it whole until it is handled: its places are free when it is dropped.
#[derive(Debug)]
pub struct Received {
    /// The raw bytes.
    pub bytes: Vec<u8>,
    _place: SemaphorePermit<'static>,
    _large: Option<SemaphorePermit<'static>>,
}

impl Received {
    /// Whether handling it would keep a thread busy for a noticeable time.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.bytes.len() > SMALL
    }
}

/// Reads a body.
///
/// # Errors
/// 413 above `limit`, 408 when it takes longer than 30 s, 415 when it is compressed, 400 when the
/// connection breaks.
pub async fn read(headers: &HeaderMap, body: Body, limit: usize) -> ApiResult<Received> {
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|value| value.as_bytes() != b"identity") {
        let message = "compressed bodies are not read";
        return Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "encoding_unsupported",
            message,
        ));
    }
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit as u64) {
        return Err(too_large(limit));
    }
    tokio::time::timeout(DEADLINE, collect(body, limit)).await.unwrap_or_else(|_| {
        let message = format!("the body took longer than {} s", DEADLINE.as_secs());
        Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message))
    })
}

async fn collect(mut body: Body, limit: usize) -> ApiResult<Received> {
    let closed = |e: tokio::sync::AcquireError| Failure::internal(e);
    let place = PLACES.acquire().await.map_err(closed)?;
    let mut large = None;
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            Failure::bad_request("body_incomplete", "the connection broke before the body's end")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        if bytes.len() + data.len() > SMALL && large.is_none() {
            large = Some(LARGE.acquire().await.map_err(closed)?);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Received { bytes, _place: place, _large: large })
}

fn too_large(limit: usize) -> Failure {
    let message = format!("the body is larger than {limit} bytes");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}
