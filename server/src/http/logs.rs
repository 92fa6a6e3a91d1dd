//! Logs for people: a window by line number, the raw text, a search, and a stream that follows.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use pipeyard_api::{
    ErrorBody,
    views::{LogLine, LogMatches, LogPage},
};
use pipeyard_model::{AttemptId, Epoch, NodeName, RunId, Status, log};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    auth::Auth,
    range::{self, Wanted},
    runs::run_id,
};
use crate::{
    AppState,
    error::{ApiResult, Failure},
    log::{LogReader, is_damaged},
};

/// Lines of one page.
const PAGE: u64 = 5_000;
/// Lines of a page if the reader doesn't say.
const PAGE_DEFAULT: u64 = 500;
/// Lines of one message of a stream; with long lines fewer, see [`BATCH_BYTES`].
const BATCH: u64 = 1_000;
/// Bytes of one message of a stream, and of a page: it ends with the line that reaches them.
const BATCH_BYTES: usize = 256 * 1024;
const PAGE_BYTES: usize = 4 << 20;
/// Messages that wait for a slow reader.
const WAITING: usize = 2;
/// Two looks at a log are at least this far apart, so that a fast job gives few, large messages.
const PACE: Duration = Duration::from_millis(50);
/// A look happens this often even when nothing woke the reader.
const IDLE: Duration = Duration::from_secs(5);
/// Something is sent this often, so that proxies and readers know that the stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The longest text to search for, in bytes.
const NEEDLE: usize = 1_000;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(page))
        .routes(routes!(raw))
        .routes(routes!(search))
        .routes(routes!(follow))
}

/// A job's attempt, as the path and the query name it.
struct Target {
    run: RunId,
    job: NodeName,
    /// `None` while the job has no attempt.
    attempt: Option<AttemptId>,
    /// The job can't get another attempt by itself.
    finished: bool,
}

async fn target(state: &AppState, run: &str, job: &str, epoch: Option<u32>) -> ApiResult<Target> {
    let run = run_id(state, run).await?;
    let unknown = || Failure::not_found(format_args!("job {job} in run {run}"));
    let job: NodeName = job.parse().map_err(|_| unknown())?;
    resolve(state, run, job, epoch).await?.ok_or_else(unknown)
}

async fn resolve(
    state: &AppState,
    run: RunId,
    job: NodeName,
    epoch: Option<u32>,
) -> ApiResult<Option<Target>> {
    let Some(view) = state.store.job(run, &job).await? else { return Ok(None) };
    let chosen = match epoch {
        None => view.attempts.last(),
        Some(wanted) => {
            let known = view.attempts.iter().find(|attempt| attempt.epoch == Epoch(wanted));
            let unknown = || Failure::not_found(format_args!("attempt {wanted} of job {job}"));
            Some(known.ok_or_else(unknown)?)
        }
    };
    if let Some((attempt, at)) = chosen.and_then(|a| Some((a.epoch, a.log_removed_at?))) {
        let what = format_args!("the log of job {job} in run {run}, attempt {attempt},");
        return Err(Failure::removed("log_removed", what, at));
    }
    let attempt = chosen.map(|chosen| AttemptId { job: view.id, epoch: chosen.epoch });
    Ok(Some(Target { run, job, attempt, finished: view.status == Status::Finished }))
}

/// The log of an attempt and whether it is over. The end is looked at first: a log that is over then
/// is read whole. One that isn't what was recorded of it is refused: no lines would look like a job
/// that said nothing.
async fn read(
    state: &AppState,
    target: &Target,
    attempt: AttemptId,
) -> ApiResult<(LogReader, bool)> {
    let recorded = state.store.log_state(attempt).await?;
    let complete = recorded.as_ref().is_none_or(|log| log.complete);
    let reader = state.logs.reader(attempt).await.map_err(|e| unreadable(target, &e))?;
    if let Some(recorded) = recorded {
        let found = (reader.bytes(), reader.digest());
        log::compare((recorded.bytes, recorded.digest.as_deref()), found)
            .map_err(|damage| damaged(target, &damage))?;
    }
    Ok((if complete { reader.closed() } else { reader }, complete))
}

/// A log that can't be read: its file was changed, or the disk fails.
fn unreadable(target: &Target, error: &std::io::Error) -> Failure {
    if is_damaged(error) { damaged(target, error) } else { Failure::internal(error) }
}

fn damaged(target: &Target, why: &dyn std::fmt::Display) -> Failure {
    let attempt = target.attempt.map(|a| format!(", attempt {}", a.epoch)).unwrap_or_default();
    let message =
        format!("the log of job {} in run {}{attempt}, is damaged: {why}", target.job, target.run);
    tracing::error!(error = %message, "a log is damaged");
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "log_damaged", message)
        .hint("a backup of the data folder may still have it; see `pipectl explain log_damaged`")
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct PageQuery {
    /// Which attempt; the last one if absent.
    attempt: Option<u32>,
    /// The first line, from 1. Negative: so many lines before the end.
    from: Option<i64>,
    /// At most so many lines, up to 5000. Fewer come if they are very long.
    count: Option<u64>,
}

/// Lines of a log by their numbers.
#[utoipa::path(get, path = "/api/runs/{run}/jobs/{name}/log", tag = "logs",
    params(("run" = String, Path, description = "number or `latest`"), ("name" = NodeName, Path,), PageQuery),
    responses((status = 200, body = LogPage), (status = 404, body = ErrorBody), (status = 410, body = ErrorBody)))]
async fn page(
    State(state): State<AppState>,
    _auth: Auth,
    Path((run, name)): Path<(String, String)>,
    Query(query): Query<PageQuery>,
) -> ApiResult<Json<LogPage>> {
    let target = target(&state, &run, &name, query.attempt).await?;
    let Some(attempt) = target.attempt else {
        let complete = target.finished;
        return Ok(Json(LogPage { attempt: Epoch(0), lines: vec![], total: 0, complete }));
    };
    let (reader, complete) = read(&state, &target, attempt).await?;
    let total = reader.lines();
    let from = match query.from.unwrap_or(1) {
        back if back < 0 => total.saturating_sub(back.unsigned_abs()) + 1,
        from => from.unsigned_abs().max(1),
    };
    let count = query.count.unwrap_or(PAGE_DEFAULT).min(PAGE);
    let lines = reader.page(from, count, PAGE_BYTES).await.map_err(|e| unreadable(&target, &e))?;
    Ok(Json(LogPage { attempt: attempt.epoch, lines, total, complete }))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct AttemptQuery {
    /// Which attempt; the last one if absent.
    attempt: Option<u32>,
}

/// What the steps wrote, as text. `Range` is allowed.
#[utoipa::path(get, path = "/api/runs/{run}/jobs/{name}/log/raw", tag = "logs",
    params(("run" = String, Path, description = "number or `latest`"), ("name" = NodeName, Path,), AttemptQuery),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 206, body = String,
        content_type = "text/plain"), (status = 404, body = ErrorBody), (status = 410, body = ErrorBody), (status = 416, body = ErrorBody)))]
async fn raw(
    State(state): State<AppState>,
    _auth: Auth,
    Path((run, name)): Path<(String, String)>,
    Query(query): Query<AttemptQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let target = target(&state, &run, &name, query.attempt).await?;
    let reader = match target.attempt {
        Some(attempt) => read(&state, &target, attempt).await?.0,
        None => LogReader::empty(),
    };
    let size = reader.raw_bytes();
    let wanted = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let (status, part) = match range::parse(wanted, size) {
        Wanted::Whole => (StatusCode::OK, 0..size),
        Wanted::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Wanted::Unsatisfiable => {
            let refused = Failure::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "bad_range",
                format!("the log's text has {size} bytes"),
            );
            let mut response = refused.into_response();
            set(&mut response, header::CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(response);
        }
    };
    // The first piece before the answer: one that can't be read is an answer of its own.
    reader.raw(part.clone()).await.map_err(|e| unreadable(&target, &e))?;
    let pieces = stream::try_unfold((reader, part.clone()), async |(reader, part)| {
        let piece = reader.raw(part.clone()).await?;
        let rest = part.start + piece.len() as u64..part.end;
        Ok::<_, std::io::Error>((!piece.is_empty()).then_some((piece, (reader, rest))))
    });
    let mut response = (status, Body::from_stream(pieces)).into_response();
    set(&mut response, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(&mut response, header::CONTENT_LENGTH, &(part.end - part.start).to_string());
    // Compressed on the way its ranges would mean other bytes.
    set(&mut response, header::CONTENT_ENCODING, "identity");
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1));
        set(&mut response, header::CONTENT_RANGE, &range);
    }
    let file = format!("inline; filename=\"run-{}-{}.log\"", target.run, target.job);
    set(&mut response, header::CONTENT_DISPOSITION, &file);
    Ok(response)
}

fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct SearchQuery {
    /// What to look for. Case matters only if it has an upper-case letter.
    q: String,
    /// Which attempt; the last one if absent.
    attempt: Option<u32>,
}

/// Which lines hold a text.
#[utoipa::path(get, path = "/api/runs/{run}/jobs/{name}/log/search", tag = "logs",
    params(("run" = String, Path, description = "number or `latest`"), ("name" = NodeName, Path,), SearchQuery),
    responses((status = 200, body = LogMatches), (status = 404, body = ErrorBody), (status = 410, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn search(
    State(state): State<AppState>,
    _auth: Auth,
    Path((run, name)): Path<(String, String)>,
    Query(query): Query<SearchQuery>,
) -> ApiResult<Json<LogMatches>> {
    if query.q.len() > NEEDLE {
        return Err(Failure::bad_request(
            "bad_search",
            format!("the text to find has at most {NEEDLE} bytes"),
        ));
    }
    let target = target(&state, &run, &name, query.attempt).await?;
    let Some(attempt) = target.attempt else {
        return Ok(Json(LogMatches { lines: vec![], total: 0 }));
    };
    read(&state, &target, attempt).await?;
    match state.logs.search(attempt, &query.q).await {
        Ok(found) => Ok(Json(LogMatches { lines: found.lines, total: found.total })),
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "search_too_slow",
            "the log is too long to be searched here",
        )
        .hint("download the raw log and search it with grep")),
        Err(error) => Err(unreadable(&target, &error)),
    }
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct FollowQuery {
    /// Which attempt; the last one if absent, or the first one that comes.
    attempt: Option<u32>,
    /// The first line to send, from 1; the header `Last-Event-ID` goes before it.
    from: Option<u64>,
}

/// Server-sent events: `id` is the number of the last line in `data`, an array of [`LogLine`].
/// `event: end` comes when the attempt is over, `event: failed` with an [`ErrorBody`] when the log can't
/// be read.
#[utoipa::path(get, path = "/api/runs/{run}/jobs/{name}/log/follow", tag = "logs",
    params(("run" = String, Path, description = "number or `latest`"), ("name" = NodeName, Path,), FollowQuery,
        ("last-event-id" = Option<u64>, Header, description = "resume after this line")),
    responses((status = 200, body = [LogLine], content_type = "text/event-stream"),
        (status = 404, body = ErrorBody), (status = 410, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn follow(
    State(state): State<AppState>,
    _auth: Auth,
    Path((run, name)): Path<(String, String)>,
    Query(query): Query<FollowQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let place = state.streams.clone().try_acquire_owned().map_err(|_| {
        Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_streams",
            "too many streams are open; try again later",
        )
    })?;
    let target = target(&state, &run, &name, query.attempt).await?;
    if let Some(attempt) = target.attempt {
        // A stream that can't begin is an answer of its own.
        let (reader, _) = read(&state, &target, attempt).await?;
        reader.page(1, 1, 1).await.map_err(|e| unreadable(&target, &e))?;
    }
    let last =
        headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let next = last.map_or(query.from.unwrap_or(1).max(1), |last| last.saturating_add(1));
    let (out, lines) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let stopping = state.stopping.clone();
        tokio::select! {
            () = stopping.cancelled() => {}
            () = out.closed() => {}
            result = send_log(&state, target, next, &out) => if let Err(error) = result {
                tracing::warn!(status = %error.status(), "a followed log ends: it can't be read");
                if let Ok(event) = Event::default().event("failed").json_data(error.body()) {
                    send(&state, &out, event).await;
                }
            }
        }
        drop(place);
    });
    let stream = Sse::new(ReceiverStream::new(lines))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"));
    let mut response = stream.into_response();
    // Proxies must not collect a stream.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

type Out = mpsc::Sender<Result<Event, Infallible>>;

async fn send_log(state: &AppState, mut target: Target, mut next: u64, out: &Out) -> ApiResult<()> {
    let mut wake = state.store.wake();
    let hello = Event::default().comment("connected").retry(Duration::from_secs(1));
    if !send(state, out, hello).await {
        return Ok(());
    }
    let attempt = loop {
        wake.mark_unchanged();
        match target.attempt {
            Some(attempt) => break attempt,
            None if target.finished => return end(state, out, next).await,
            None => {}
        }
        let _ = tokio::time::timeout(IDLE, wake.changed()).await;
        tokio::time::sleep(PACE).await;
        match resolve(state, target.run, target.job.clone(), None).await? {
            Some(now) => target = now,
            None => return end(state, out, next).await,
        }
    };
    loop {
        wake.mark_unchanged();
        let (reader, complete) = read(state, &target, attempt).await?;
        let lines = reader.page(next, BATCH, BATCH_BYTES).await;
        let lines = lines.map_err(|e| unreadable(&target, &e))?;
        if let Some(last) = lines.last() {
            next = last.n + 1;
            let Ok(event) = Event::default().id(last.n.to_string()).json_data(&lines) else {
                return Err(Failure::internal("a line can't be encoded"));
            };
            if !send(state, out, event).await {
                return Ok(());
            }
        }
        if next <= reader.lines() {
            continue;
        }
        if complete {
            return end(state, out, next).await;
        }
        tokio::select! {
            () = state.logs.grown(attempt, reader.lines()) => {}
            // The attempt may be over.
            _ = wake.changed() => {}
            () = tokio::time::sleep(IDLE) => {}
        }
        tokio::time::sleep(PACE).await;
    }
}

async fn end(state: &AppState, out: &Out, next: u64) -> ApiResult<()> {
    let last = next.saturating_sub(1).to_string();
    send(state, out, Event::default().event("end").id(last).data("{}")).await;
    Ok(())
}

/// Whether the reader is still there. One that takes nothing is cut off, and comes back where it
/// stopped.
async fn send(state: &AppState, out: &Out, event: Event) -> bool {
    let sent = tokio::time::timeout(state.config.stalled_reader(), out.send(Ok(event))).await;
    matches!(sent, Ok(Ok(())))
}
