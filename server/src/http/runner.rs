//! The runner protocol; see `pipeyard_api::runner`. Every write is fenced by (job, epoch).

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use pipeyard_api::{
    ApiError, ErrorBody,
    runner::{
        Checkout, ClaimReply, ClaimRequest, ClaimedJob, FinishRequest, HeartbeatReply,
        HeartbeatRequest, HelloReply, HelloRequest, LogAck, MAX_WAIT_SECONDS, PROTOCOL, ReasonView,
        RegisterReply, RegisterRequest, StepsRequest,
    },
};
use pipeyard_model::{Actor, AttemptId, Conclusion, Epoch, JobId, RunnerId, Who};
use pipeyard_store::{
    StoreError,
    queue::{Appends, Claimed, HeartbeatNews, LEASE_SECONDS},
    runners::{NewRunner, Process, Standing},
    secrets::AskingAttempt,
};
use tokio::time::Instant;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    auth::{RunnerAuth, address, process, runner_key, unknown_runner},
    login::{count_guess, refuse_guessing},
    secrets::{SecretsError, secrets_for},
};
use crate::{
    AppState, checkout,
    error::{ApiResult, Failure},
    log::AppendError,
    tokens,
};

/// In front of a runner's key.
const RUNNER_KEY: &str = "ppk_";
/// One append to a log.
const MAX_APPEND: usize = 4 << 20;
/// Steps, heartbeats and finishes are small.
const MAX_BODY: usize = 256 << 10;
/// Jobs that one claim may give.
const MAX_SLOTS: u32 = 64;
/// Characters that are kept of why a runner can run nothing.
const MAX_TROUBLE: usize = 500;
/// The longest wait of a heartbeat, well inside of the lease.
const HEARTBEAT_WAIT: u32 = 20;
/// During a long poll the runner is noted as present, and the store looked at without a wake-up,
/// this often.
const LOOK: Duration = Duration::from_secs(5);
/// Two looks of one long poll are at least this far apart, however often the store changes.
const PACE: Duration = Duration::from_millis(20);

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    let small = OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(hello))
        .routes(routes!(goodbye))
        .routes(routes!(claim))
        .routes(routes!(heartbeat))
        .routes(routes!(steps))
        .routes(routes!(finish))
        .layer(DefaultBodyLimit::max(MAX_BODY));
    let log = OpenApiRouter::new().routes(routes!(log)).layer(DefaultBodyLimit::max(MAX_APPEND));
    small.merge(log)
}

/// Register a runner by a token that is good for one.
#[utoipa::path(post, path = "/api/runner/register", tag = "runner", request_body = RegisterRequest,
    responses((status = 200, body = RegisterReply), (status = 409, body = ErrorBody)))]
async fn register(
    State(state): State<AppState>,
    guest: Option<axum::Extension<pipeyard_listen::Guest>>,
    headers: HeaderMap,
    Json(body): Json<RegisterRequest>,
) -> ApiResult<Json<RegisterReply>> {
    if body.protocol != PROTOCOL {
        return Err(Failure::conflict(
            "protocol_mismatch",
            format!("the runner speaks protocol {}, this server {PROTOCOL}", body.protocol),
        )
        .hint("run the same version of Pipeyard on both sides"));
    }
    check_registration(&body)?;
    let key = body.key.clone().unwrap_or_else(|| tokens::new(RUNNER_KEY));
    let runner = NewRunner {
        id: RunnerId::new(),
        name: body.name.clone(),
        labels: body.labels,
        version: body.version,
        key_hash: tokens::hash(&key),
    };
    let from = address(guest.map(|guest| guest.peer()), &headers, &state);
    let now = state.clock.now();
    refuse_guessing(&state, from, now)?;
    let token = tokens::hash(body.token.trim());
    let id = match state.store.register_runner(token, runner, from, now).await {
        Err(StoreError::Conflict { code: code @ ("bad_token" | "bad_label"), message }) => {
            let target = format!("runner {}", body.name);
            count_guess(&state, from, "runner.refused", &target).await?;
            return Err(Failure::conflict(code, message));
        }
        done => done?,
    };
    Ok(Json(RegisterReply { runner: id, key, installation: state.installation }))
}

fn check_registration(body: &RegisterRequest) -> ApiResult<()> {
    let plain = |text: &str, most: usize| {
        !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control)
    };
    let good = plain(&body.name, 100)
        && plain(&body.version, 100)
        && body.labels.len() <= 50
        && body.labels.iter().all(|label| plain(label, 63))
        && body.key.as_ref().is_none_or(|key| {
            key.len() >= RUNNER_KEY.len() + 43 && key.starts_with(RUNNER_KEY) && plain(key, 200)
        });
    if good {
        return Ok(());
    }
    Err(Failure::bad_request(
        "bad_registration",
        "a runner has a name of 1 to 100 characters, at most 50 labels of 1 to 63, and a key of 256 bits",
    ))
}

/// Ask whether this process may speak for the runner: only one does.
#[utoipa::path(post, path = "/api/runner/hello", tag = "runner", request_body = HelloRequest,
    responses((status = 200, body = HelloReply), (status = 401, body = ErrorBody)))]
async fn hello(
    State(state): State<AppState>,
    headers: HeaderMap,
    Json(body): Json<HelloRequest>,
) -> ApiResult<Json<HelloReply>> {
    let (key, nonce) = (runner_key(&headers)?, process(&headers)?);
    let asks = Process { nonce: &nonce, previous: body.previous.as_deref() };
    match state.store.runner_by_key(key, asks, state.clock.now()).await? {
        Standing::Unknown => Err(unknown_runner()),
        Standing::Speaks(_) => Ok(Json(HelloReply { accepted: true, other_seen_at: None })),
        Standing::Taken(id, holder) => {
            tracing::warn!(runner.id = %id, "a second process wants to speak as this runner");
            Ok(Json(HelloReply { accepted: false, other_seen_at: Some(holder.seen_at) }))
        }
    }
}

/// The process ends: the next one of this runner needs not wait.
#[utoipa::path(post, path = "/api/runner/goodbye", tag = "runner", responses((status = 204)))]
async fn goodbye(State(state): State<AppState>, runner: RunnerAuth) -> ApiResult<StatusCode> {
    state.store.runner_leaves(runner.id, &runner.process).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ask for jobs; waits until there is one.
#[utoipa::path(post, path = "/api/runner/claim", tag = "runner", request_body = ClaimRequest,
    responses((status = 200, body = ClaimReply), (status = 401, body = ErrorBody)))]
async fn claim(
    State(state): State<AppState>,
    runner: RunnerAuth,
    Json(body): Json<ClaimRequest>,
) -> ApiResult<Json<ClaimReply>> {
    if !(1..=MAX_SLOTS).contains(&body.free_slots) {
        return Err(Failure::bad_request("bad_slots", format!("free_slots is 1 to {MAX_SLOTS}")));
    }
    let trouble = body.trouble.map(|why| {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        why.message.chars().take(MAX_TROUBLE).map(plain).collect::<String>()
    });
    let is_unable = trouble.is_some();
    state.store.note_trouble(runner.id, trouble, state.clock.now()).await?;
    if is_unable {
        return Ok(Json(ClaimReply { jobs: vec![] }));
    }
    let end = wait_end(body.wait_seconds, MAX_WAIT_SECONDS);
    let mut wake = state.store.wake();
    loop {
        wake.mark_unchanged();
        let now = state.clock.now();
        let claimed = state.store.claim_jobs(runner.id, body.request, body.free_slots, now).await?;
        let given = !claimed.is_empty();
        let jobs = offer(&state, &runner, claimed).await?;
        // Jobs whose secrets are missing were ended here; their slots are free again.
        if !jobs.is_empty() || (!given && over(&state, end)) {
            return Ok(Json(ClaimReply { jobs }));
        }
        if !given {
            pause(&state, &mut wake, end).await;
            runner.touch(&state).await?;
        }
    }
}

fn wait_end(seconds: u32, most: u32) -> Instant {
    Instant::now() + Duration::from_secs(u64::from(seconds.min(most)))
}

fn over(state: &AppState, end: Instant) -> bool {
    Instant::now() >= end || state.stopping.is_cancelled()
}

/// Waits for a commit, the end of the poll, or the next look.
async fn pause(state: &AppState, wake: &mut tokio::sync::watch::Receiver<u64>, end: Instant) {
    let look = end.min(Instant::now() + LOOK);
    tokio::select! {
        () = state.stopping.cancelled() => return,
        () = tokio::time::sleep_until(look) => return,
        changed = wake.changed() => if changed.is_err() {
            // The store is gone; the next look says so.
            tokio::time::sleep_until(look).await;
        }
    }
    tokio::time::sleep(PACE).await;
}

/// What the runner needs for these jobs. A job whose secrets can't be given ends here.
async fn offer(
    state: &AppState,
    runner: &RunnerAuth,
    claimed: Vec<Claimed>,
) -> ApiResult<Vec<ClaimedJob>> {
    let mut jobs = Vec::with_capacity(claimed.len());
    for job in claimed {
        let attempt = AttemptId { job: job.job, epoch: job.epoch };
        let to = Actor::of(Who::Attempt(attempt)).from(runner.from);
        let asking = AskingAttempt { repo: job.repo, event: job.event, origin: job.origin.clone() };
        let secrets = match secrets_for(state, asking, &job.spec.secrets, to).await {
            Ok(secrets) => secrets,
            // The runner asks again with the same request and gets the same jobs.
            Err(SecretsError::Store(error)) => return Err(error.into()),
            Err(error) => {
                refuse_job(state, runner.id, &job, error.code(), &error.to_string()).await?;
                continue;
            }
        };
        let env = variables(state, &job).await?;
        jobs.push(ClaimedJob {
            job: job.job,
            epoch: job.epoch,
            run: job.run,
            name: job.name,
            spec: job.spec,
            checkout: Checkout {
                path: format!("/git/{}", job.repo),
                sha: job.commit,
                token: checkout::mint_checkout_token(state, job.job, job.epoch, job.repo),
            },
            repo: env.get("PIPEYARD_REPO").cloned().unwrap_or_default(),
            env,
            secrets,
            lease_seconds: LEASE_SECONDS,
            max_log_bytes: state.config.max_log_bytes,
        });
    }
    Ok(jobs)
}

/// Ends a job that can't start, with the reason where people look.
async fn refuse_job(
    state: &AppState,
    runner: RunnerId,
    job: &Claimed,
    code: &str,
    message: &str,
) -> ApiResult<()> {
    let now = state.clock.now();
    let finish = FinishRequest {
        conclusion: Conclusion::Error,
        reason: Some(ReasonView { code: code.to_owned(), message: message.to_owned() }),
        log_bytes: 0,
        finished_at: now,
    };
    let attempt = AttemptId { job: job.job, epoch: job.epoch };
    Ok(state.store.finish_attempt(runner, attempt, finish, now).await?)
}

/// Variables that every step finds.
async fn variables(state: &AppState, job: &Claimed) -> ApiResult<BTreeMap<String, String>> {
    let repo = state.store.repo(job.repo).await?.map(|repo| repo.name.to_string());
    let run = job.run.to_string();
    let url = format!("{}/runs/{run}", state.config.url());
    Ok([
        ("CI", "true".to_owned()),
        ("PIPEYARD", "true".to_owned()),
        ("PIPEYARD_RUN", run),
        ("PIPEYARD_RUN_URL", url),
        ("PIPEYARD_JOB", job.name.to_string()),
        ("PIPEYARD_ATTEMPT", job.epoch.to_string()),
        ("PIPEYARD_COMMIT", job.commit.clone()),
        ("PIPEYARD_BRANCH", job.branch.clone()),
        ("PIPEYARD_REPO", repo.unwrap_or_default()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect())
}

/// Renew leases; answers early when something is to be ended.
#[utoipa::path(post, path = "/api/runner/heartbeat", tag = "runner", request_body = HeartbeatRequest,
    responses((status = 200, body = HeartbeatReply), (status = 401, body = ErrorBody)))]
async fn heartbeat(
    State(state): State<AppState>,
    runner: RunnerAuth,
    Json(body): Json<HeartbeatRequest>,
) -> ApiResult<Json<HeartbeatReply>> {
    if body.attempts.len() > 4 * MAX_SLOTS as usize {
        return Err(Failure::bad_request("too_many_attempts", "a runner works on fewer attempts"));
    }
    let end = wait_end(body.wait_seconds, HEARTBEAT_WAIT);
    let mut wake = state.store.wake();
    let mut news = state.store.heartbeat(runner.id, &body.attempts, state.clock.now()).await?;
    while news == HeartbeatNews::default() && !over(&state, end) {
        pause(&state, &mut wake, end).await;
        wake.mark_unchanged();
        news = state.store.heartbeat_news(runner.id, &body.attempts).await?;
    }
    // Leases were renewed when the poll began: its wait counts.
    let waited = (Instant::now()
        + Duration::from_secs(u64::from(body.wait_seconds.min(HEARTBEAT_WAIT))))
    .saturating_duration_since(end)
    .as_secs();
    let left = u64::from(LEASE_SECONDS).saturating_sub(waited);
    Ok(Json(HeartbeatReply {
        cancel: news.cancel,
        stale: news.stale,
        lease_seconds: u32::try_from(left).unwrap_or(0),
    }))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct AppendQuery {
    /// Where in the log the body begins.
    offset: u64,
}

/// Append to the log. Acknowledged once it is durable. The log of an attempt that was ended without
/// its runner, whose lease ran out, is taken from that runner for another 24 hours.
#[utoipa::path(post, path = "/api/runner/jobs/{job}/{epoch}/log", tag = "runner",
    params(("job" = JobId, Path,), ("epoch" = u32, Path,), AppendQuery,
        ("x-crc32" = String, Header, description = "CRC-32 of the body in hex")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = LogAck), (status = 409, body = ErrorBody)))]
async fn log(
    State(state): State<AppState>,
    runner: RunnerAuth,
    Path((job, epoch)): Path<(JobId, u32)>,
    Query(query): Query<AppendQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> ApiResult<Response> {
    let attempt = AttemptId { job, epoch: Epoch(epoch) };
    let sum =
        headers.get("x-crc32").and_then(|value| u32::from_str_radix(value.to_str().ok()?, 16).ok());
    if sum != Some(crc32fast::hash(&body)) {
        return Err(Failure::bad_request(
            "bad_checksum",
            "x-crc32 is missing or doesn't fit the body",
        ));
    }
    let late =
        state.store.may_append(runner.id, attempt, state.clock.now()).await? == Appends::Late;
    let appended = match state.logs.append(attempt, query.offset, body).await {
        Ok(appended) => appended,
        Err(error) => return refuse_append(error),
    };
    if late || appended.tell || !appended.first_lines.is_empty() {
        // Line numbers of the job as a whole (step 0) are nobody's first line.
        let steps: Vec<_> =
            appended.first_lines.iter().copied().filter(|(step, _)| *step > 0).collect();
        state.store.report_log(attempt, appended.length, &steps, state.clock.now()).await?;
    }
    Ok(Json(LogAck { offset: appended.length, over: late }).into_response())
}

fn refuse_append(error: AppendError) -> ApiResult<Response> {
    match error {
        AppendError::WrongOffset { length } => {
            #[derive(serde::Serialize)]
            struct WrongOffset {
                #[serde(flatten)]
                body: ErrorBody,
                #[serde(flatten)]
                ack: LogAck,
            }
            let error = ApiError {
                code: "wrong_offset".into(),
                message: format!("the log has {length} bytes; go on from there"),
                hint: None,
            };
            let ack = LogAck { offset: length, over: false };
            let body = WrongOffset { body: ErrorBody { error }, ack };
            Ok((StatusCode::CONFLICT, Json(body)).into_response())
        }
        AppendError::BadLine(problem) => Err(Failure::bad_request("bad_log", problem.to_string())),
        AppendError::TooLong { .. } => {
            Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "log_too_long", error.to_string()))
        }
        AppendError::Sealed => Err(Failure::conflict("stale_epoch", "the attempt is over")),
        AppendError::Disk(cause) if cause.kind() == std::io::ErrorKind::StorageFull => {
            tracing::error!(error = %cause, "a log was not appended");
            Err(Failure::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk_full",
                "the server's disk is full",
            ))
        }
        AppendError::Disk(cause) => Err(Failure::internal(cause)),
    }
}

/// Report the progress of steps.
#[utoipa::path(post, path = "/api/runner/jobs/{job}/{epoch}/steps", tag = "runner",
    params(("job" = JobId, Path,), ("epoch" = u32, Path,)), request_body = StepsRequest,
    responses((status = 204), (status = 409, body = ErrorBody)))]
async fn steps(
    State(state): State<AppState>,
    runner: RunnerAuth,
    Path((job, epoch)): Path<(JobId, u32)>,
    Json(body): Json<StepsRequest>,
) -> ApiResult<StatusCode> {
    let attempt = AttemptId { job, epoch: Epoch(epoch) };
    state.store.report_steps(runner.id, attempt, &body.steps, state.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End an attempt. Refused while the server has less of the log than the runner.
#[utoipa::path(post, path = "/api/runner/jobs/{job}/{epoch}/finish", tag = "runner",
    params(("job" = JobId, Path,), ("epoch" = u32, Path,)), request_body = FinishRequest,
    responses((status = 204), (status = 409, body = ErrorBody)))]
async fn finish(
    State(state): State<AppState>,
    runner: RunnerAuth,
    Path((job, epoch)): Path<(JobId, u32)>,
    Json(body): Json<FinishRequest>,
) -> ApiResult<StatusCode> {
    let attempt = AttemptId { job, epoch: Epoch(epoch) };
    let length = state.logs.length(attempt).await.map_err(Failure::internal)?;
    if length < body.log_bytes {
        // A stale attempt is told so first.
        state.store.check_attempt(runner.id, attempt, state.clock.now()).await?;
        let message =
            format!("the log has {length} of {} bytes; send the rest first", body.log_bytes);
        return Err(Failure::conflict("log_incomplete", message));
    }
    state.store.finish_attempt(runner.id, attempt, body, state.clock.now()).await?;
    state.logs.ended.notify_one();
    state.wake.deploy.notify_one();
    Ok(StatusCode::NO_CONTENT)
}
