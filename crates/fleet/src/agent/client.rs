//! The agent's side of the protocol; the fleet's is in [`crate::agents`].

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use http::{HeaderMap, Method, header};
use pipeyard_model::{Clock as _, SystemClock, fleet::ControlError};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::{AgentConfig, key::HostKey, user};
use crate::{
    agents::{Complete, Greeting, Hello, Poll, Polled, Stamp},
    bundles::MAX_PACKED,
    chain,
    deployment::Diagnostics,
    hosts::SERVICE,
    sigv4::{self, Scope, Signed},
};

/// A bundle that comes no further for so long isn't waited for.
const STALLED: Duration = Duration::from_secs(60);

pub(super) struct Client {
    config: Arc<AgentConfig>,
    host: HostKey,
    http: reqwest::Client,
    /// New at every start.
    boot: String,
    session: Mutex<Session>,
}

/// What the fleet said at the last hello, and the number of the last message since.
#[derive(Default)]
struct Session {
    greeting: Option<Greeting>,
    number: u64,
}

/// Why a call didn't work.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("the fleet wants a hello first")]
    SayHello,
    /// This agent isn't the host any more: its key was revoked, or another has it.
    #[error("{0}")]
    Ended(String),
    #[error("{0}")]
    Unreachable(String),
}

impl Client {
    pub(super) fn new(config: &Arc<AgentConfig>, host: HostKey, http: reqwest::Client) -> Self {
        let boot = uuid::Uuid::now_v7().to_string();
        Self { config: Arc::clone(config), host, http, boot, session: Mutex::default() }
    }

    /// The host's name.
    pub(super) fn name(&self) -> &str {
        &self.host.name
    }

    /// Where the service on this host answers, as the fleet said at the last hello.
    pub(super) fn address(&self) -> Option<std::net::SocketAddr> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.greeting.as_ref().and_then(|greeting| greeting.address)
    }

    fn stamp(&self) -> Result<Stamp, ClientError> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.number += 1;
        let greeting = session.greeting.as_ref().ok_or(ClientError::SayHello)?;
        let (boot, number) = (self.boot.clone(), session.number);
        Ok(Stamp { boot, session: greeting.session.clone(), number })
    }

    /// A request of this host's, signed by its key.
    fn signed(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<reqwest::RequestBuilder, String> {
        let url = format!("{}{path}", self.config.endpoint.trim_end_matches('/'));
        let url: reqwest::Url = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let here = format!("{}{port}", url.host_str().unwrap_or_default());
        let mut headers = HeaderMap::new();
        let mut put = |name: header::HeaderName, value: String| {
            value.parse().map(|value| drop(headers.insert(name, value))).map_err(|_| value)
        };
        put(header::HOST, here)?;
        let name = header::HeaderName::from_static("x-amz-date");
        put(name, sigv4::stamp(SystemClock.now()))?;
        // Two equal messages within a second are two messages.
        let name = header::HeaderName::from_static("x-amz-nonce");
        put(name, uuid::Uuid::new_v4().simple().to_string())?;
        let request = Signed {
            method: &method,
            path: url.path(),
            query: url.query().unwrap_or_default(),
            headers: &headers,
            body: &body,
        };
        let scope = Scope { region: &self.host.region, service: SERVICE };
        let signature = sigv4::authorization(&request, &self.host.key, scope);
        let mut value: header::HeaderValue =
            signature.parse().map_err(|_| "a signature that is no header".to_owned())?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
        Ok(self.http.request(method, url).headers(headers).body(body))
    }

    async fn call(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<reqwest::Response, ClientError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| ClientError::Unreachable(error.to_string()))?;
        let request = self
            .signed(Method::POST, &format!("/agent/{path}"), body)
            .map_err(ClientError::Unreachable)?
            .header(header::CONTENT_TYPE, "application/json");
        let sent = request.timeout(Duration::from_secs(10)).send().await;
        let response = sent.map_err(|error| ClientError::Unreachable(chain(&error)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(match response.json::<ControlError>().await {
            Ok(error) => match error.code.as_str() {
                "say_hello" => ClientError::SayHello,
                "replaced" | "unknown_key" => ClientError::Ended(error.message),
                _ => ClientError::Unreachable(error.to_string()),
            },
            Err(_) => ClientError::Unreachable(format!("the fleet answered {status}")),
        })
    }

    async fn answer<T: for<'a> Deserialize<'a>>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let response = self.call(path, body).await?;
        response.json().await.map_err(|error| ClientError::Unreachable(chain(&error)))
    }

    /// Says hello until the fleet hears it.
    pub(super) async fn hello_until_heard(&self) -> anyhow::Result<()> {
        loop {
            let hello = Hello { boot: self.boot.clone(), abilities: user::abilities() };
            match self.answer::<Greeting>("hello", &hello).await {
                Ok(greeting) => {
                    let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
                    *session = Session { greeting: Some(greeting), number: 0 };
                    return Ok(());
                }
                Err(ClientError::Ended(text)) => anyhow::bail!(text),
                Err(error) => {
                    tracing::warn!(%error, "the fleet doesn't hear the agent");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    pub(super) async fn poll(&self, running: Option<i64>) -> Result<Polled, ClientError> {
        let stamp = self.stamp()?;
        self.answer("poll", &Poll { stamp, running }).await
    }

    pub(super) async fn complete(
        &self,
        command: i64,
        diagnostics: &Diagnostics,
    ) -> Result<(), ClientError> {
        let stamp = self.stamp()?;
        let diagnostics = diagnostics.clone();
        self.call("complete", &Complete { stamp, command, diagnostics }).await.map(drop)
    }

    /// Fetches a bundle into a file.
    pub(super) async fn fetch(&self, bucket: &str, key: &str, into: &Path) -> Result<(), String> {
        let parts: Vec<String> =
            key.split('/').map(|part| urlencoding::encode(part).into_owned()).collect();
        let path = format!("/bundles/{}/{}", urlencoding::encode(bucket), parts.join("/"));
        let request = self.signed(Method::GET, &path, Vec::new())?;
        let response = request.send().await.map_err(|error| chain(&error))?;
        if !response.status().is_success() {
            let status = response.status();
            let said = response.json::<ControlError>().await.map(|error| error.message);
            return Err(said.unwrap_or_else(|_| format!("the fleet answered {status}")));
        }
        let mut file = tokio::fs::File::create(into).await.map_err(|error| error.to_string())?;
        let mut stream = response.bytes_stream();
        let mut size = 0;
        loop {
            let next = tokio::time::timeout(STALLED, stream.next()).await;
            let next = next.map_err(|_| "the bundle comes no further".to_owned())?;
            let Some(chunk) = next else { break };
            let chunk = chunk.map_err(|error| chain(&error))?;
            size += chunk.len() as u64;
            if size > MAX_PACKED {
                return Err(format!("a bundle has at most {MAX_PACKED} bytes"));
            }
            file.write_all(&chunk).await.map_err(|error| error.to_string())?;
        }
        file.sync_all().await.map_err(|error| error.to_string())
    }
}
