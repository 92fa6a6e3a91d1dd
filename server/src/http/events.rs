//! What happened, as a stream. A reader that comes back with the last number that it saw misses
//! nothing; one that doesn't read is cut off, and comes back the same way.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use pipeyard_api::{ErrorBody, views::EventView};
use pipeyard_model::RunId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{auth::Auth, runs::run_id};
use crate::{
    AppState,
    error::{ApiResult, Failure},
};

/// Events of one look into the store.
const BATCH: u32 = 200;
/// Two looks are at least this far apart, however often the store changes.
const PACE: Duration = Duration::from_millis(100);
/// A look happens this often even when nothing woke the reader.
const IDLE: Duration = Duration::from_secs(5);
/// Something is sent this often, so that proxies and readers know that the stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(events))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct EventsQuery {
    /// Only of this run.
    run: Option<String>,
    /// Start after this event; the header `Last-Event-ID` goes before it. From now on if both are
    /// absent.
    after: Option<i64>,
}

/// Server-sent events: `id` is the event's number, `data` an [`EventView`].
#[utoipa::path(get, path = "/api/events", tag = "events",
    params(EventsQuery, ("last-event-id" = Option<i64>, Header, description = "resume after this event")),
    responses((status = 200, body = EventView, content_type = "text/event-stream"),
        (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn events(
    State(state): State<AppState>,
    _auth: Auth,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let place = state.streams.clone().try_acquire_owned().map_err(|_| {
        Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_streams",
            "too many event streams are open; try again later",
        )
    })?;
    let run = match &query.run {
        Some(run) => Some(run_id(&state, run).await?),
        None => None,
    };
    let last = state.store.last_event().await?;
    let resume = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    // A number from the future belongs to a database that was restored since.
    let after = resume.or(query.after).unwrap_or(last).clamp(0, last);
    let (events, stream) = mpsc::channel(BATCH as usize);
    tokio::spawn(async move {
        let stopping = state.stopping.clone();
        tokio::select! {
            () = stopping.cancelled() => {}
            () = follow(&state, run, after, &events) => {}
        }
        drop(place);
    });
    let stream = Sse::new(ReceiverStream::new(stream))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"));
    let mut response = stream.into_response();
    // Proxies must not collect a stream.
    let headers = response.headers_mut();
    headers.insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    Ok(response)
}

async fn follow(
    state: &AppState,
    run: Option<RunId>,
    mut after: i64,
    out: &mpsc::Sender<Result<Event, Infallible>>,
) {
    let mut wake = state.store.wake();
    // The reader learns at once that it is connected, and how soon to come back.
    let hello = Event::default().comment("connected").retry(Duration::from_secs(1));
    if out.send(Ok(hello)).await.is_err() {
        return;
    }
    loop {
        wake.mark_unchanged();
        let batch = match state.store.events(after, run, BATCH).await {
            Ok(batch) => batch,
            Err(error) => {
                tracing::warn!(error = %error, "an event stream ends: the store failed");
                return;
            }
        };
        let full = batch.len() == BATCH as usize;
        for event in batch {
            after = event.seq;
            let Some(data) = encode(&event) else { return };
            let stalled = state.config.stalled_reader();
            let sent = tokio::time::timeout(stalled, out.send(Ok(data))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
        if !full {
            let _ = tokio::time::timeout(IDLE, wake.changed()).await;
            if out.is_closed() {
                return;
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

fn encode(event: &EventView) -> Option<Event> {
    Event::default().id(event.seq.to_string()).json_data(event).ok()
}
