//! What leaves the server for other people's machines: commit statuses and signed notifications.
//!
//! Nothing here decides when; the outbox's task does. An answer's body is never kept or shown, so
//! that a message can't be used to read from where the server stands.

pub mod address;
mod github;
mod webhook;

use std::time::Duration;

use pipeyard_store::outbox::{Message, Notice};
use reqwest::{Response, StatusCode, header};

pub use github::repository as github_repository;
pub use webhook::{
    new_secret as new_notification_secret, sealed_secret as sealed_notification_secret, sign,
};

use crate::AppState;

/// One message may take so long.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The longest wait that a receiver may ask for.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// Why a message didn't arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undelivered {
    /// It may arrive later; not before the given time, if the receiver named one.
    Later(String, Option<Duration>),
    /// It never will.
    Never(String),
}

/// Sends one message.
///
/// # Errors
/// When it didn't arrive, with whether another try makes sense.
pub async fn send(state: &AppState, message: &Message) -> Result<(), Undelivered> {
    match &message.notice {
        Notice::CommitStatus { repo, run, commit, pipeline, state: how, description } => {
            let status = github::Status {
                repo: *repo,
                page: format!("/runs/{run}"),
                commit,
                context: format!("pipeyard/{pipeline}"),
                state: *how,
                description,
            };
            github::send(state, &status).await
        }
        Notice::DeploymentStatus { repo, deployment, commit, place, state: how, description } => {
            let status = github::Status {
                repo: *repo,
                page: format!("/deployments/{deployment}"),
                commit,
                context: format!("pipeyard/deploy/{place}"),
                state: *how,
                description,
            };
            github::send(state, &status).await
        }
        Notice::Notification { event, data } => {
            webhook::send(state, message.id, event, message.created_at, data).await
        }
    }
}

/// A client that follows no redirect and keeps to the time limit.
fn client() -> reqwest::ClientBuilder {
    pipeyard_trust::client()
        .no_proxy()
        .timeout(TIMEOUT)
        .user_agent(concat!("pipeyard/", env!("CARGO_PKG_VERSION")))
}

/// Reads an answer's head.
fn judge(response: &Response) -> Result<(), Undelivered> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let problem = format!("the receiver answered {status}");
    let wait = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(MAX_WAIT));
    let again = status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
        // GitHub's limit on frequent writes.
        || (status == StatusCode::FORBIDDEN && wait.is_some());
    if again { Err(Undelivered::Later(problem, wait)) } else { Err(Undelivered::Never(problem)) }
}

fn broken(error: &reqwest::Error) -> Undelivered {
    // Without the address: it may hold a token.
    let why = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "the receiver can't be reached"
    } else {
        "the connection broke"
    };
    Undelivered::Later(why.to_owned(), None)
}
