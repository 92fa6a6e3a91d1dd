//! Calls to the server: one request path, two kinds of failure. What may be repeated is the
//! caller's to know.

use std::time::Duration;

use bytes::Bytes;
use pipeyard_api::{ErrorBody, runner::LogAck};
use pipeyard_model::AttemptId;
use serde::{Serialize, de::DeserializeOwned};

/// Why a call has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nobody answered, or the server can't at the moment. The outcome isn't known.
    #[error("{0}")]
    Away(String),
    /// The server refused; a repetition would be refused too.
    #[error("{code}: {message}")]
    Refused {
        /// Stable code.
        code: String,
        /// For people.
        message: String,
        /// The offset that a log should go on from.
        offset: Option<u64>,
    },
}

impl CallError {
    /// Whether the attempt isn't this runner's any more.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "stale_epoch" || code == "not_found")
    }
}

/// The server, as this runner.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
    process: Option<String>,
}

impl Server {
    /// # Errors
    /// When the address can't be one, or the key would cross a network in clear text.
    pub(crate) fn new(base: &str) -> anyhow::Result<Self> {
        let http = pipeyard_api::client::builder(base)?
            .user_agent(concat!("pipeyard-runner/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), key: None, process: None })
    }

    pub(crate) fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// Says with every call which process it is.
    pub(crate) fn with_process(mut self, nonce: &str) -> Self {
        self.process = Some(nonce.to_owned());
        self
    }

    /// The whole address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Sends `body`; the answer must come within `limit`.
    pub(crate) async fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        limit: Duration,
    ) -> Result<T, CallError> {
        let request = self.request(reqwest::Method::POST, path).json(body).timeout(limit);
        parse(self.send(request).await?).await
    }

    /// Appends to a log at `offset`; answers how much the server has.
    pub(crate) async fn append_log(
        &self,
        attempt: AttemptId,
        offset: u64,
        bytes: Bytes,
    ) -> Result<LogAck, CallError> {
        let path =
            format!("/api/runner/jobs/{}/{}/log?offset={offset}", attempt.job, attempt.epoch);
        let sum = format!("{:08x}", crc32fast::hash(&bytes));
        let request = self
            .request(reqwest::Method::POST, &path)
            .header("x-crc32", sum)
            .header("content-type", "application/octet-stream")
            .body(bytes)
            .timeout(Duration::from_secs(30));
        parse(self.send(request).await?).await
    }

    /// Uploads a file as an artifact.
    pub(crate) async fn put_artifact(
        &self,
        attempt: AttemptId,
        path: &str,
        sha256: &str,
        body: reqwest::Body,
        size: u64,
    ) -> Result<(), CallError> {
        let path = pipeyard_api::client::escape(path);
        let path =
            format!("/api/runner/jobs/{}/{}/artifacts?path={path}", attempt.job, attempt.epoch);
        let request = self
            .request(reqwest::Method::PUT, &path)
            .header("x-sha256", sha256)
            .header("content-length", size)
            .body(body);
        self.send(request).await.map(drop)
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method, self.url(path));
        if let Some(process) = &self.process {
            request = request.header(pipeyard_api::runner::PROCESS, process);
        }
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, CallError> {
        let response = request.send().await.map_err(|e| CallError::Away(deepest(&e)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(|e| CallError::Away(deepest(&e)))?;
        if status.is_server_error() || status == reqwest::StatusCode::TOO_MANY_REQUESTS {
            return Err(CallError::Away(format!("the server answered {status}")));
        }
        let (code, message) = serde_json::from_slice::<ErrorBody>(&body).map_or_else(
            |_| (format!("http_{}", status.as_u16()), format!("the server answered {status}")),
            |body| (body.error.code, body.error.message),
        );
        let offset = serde_json::from_slice::<LogAck>(&body).ok().map(|ack| ack.offset);
        Err(CallError::Refused { code, message, offset })
    }
}

async fn parse<T: DeserializeOwned>(response: reqwest::Response) -> Result<T, CallError> {
    let bytes = response.bytes().await.map_err(|e| CallError::Away(deepest(&e)))?;
    let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
    serde_json::from_slice(bytes).map_err(|e| CallError::Refused {
        code: "bad_answer".into(),
        message: format!("failed to understand the server's answer: {e}"),
        offset: None,
    })
}

fn deepest(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
