//! The agent's side of the protocol; the fleet's is in [`crate::agents`].

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::StreamExt;
use pipeyard_model::fleet::ControlError;
use serde::Serialize;
use tokio::io::AsyncWriteExt;

use super::AgentConfig;
use crate::{
    Token,
    agents::{Complete, Hello, Poll, Polled},
    chain,
};

pub(super) struct Client {
    config: Arc<AgentConfig>,
    token: Token,
    http: reqwest::Client,
    /// New at every start.
    boot: String,
}

/// Why a call didn't work.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("the fleet wants a hello first")]
    SayHello,
    #[error("{0}")]
    Replaced(String),
    #[error("{0}")]
    Unreachable(String),
}

impl Client {
    pub(super) fn new(config: &Arc<AgentConfig>, token: Token, http: reqwest::Client) -> Self {
        let boot = uuid::Uuid::now_v7().to_string();
        Self { config: Arc::clone(config), token, http, boot }
    }

    async fn call(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<reqwest::Response, ClientError> {
        let url = format!("{}/agent/{path}", self.config.endpoint.trim_end_matches('/'));
        let request = self.http.post(url).bearer_auth(self.token.reveal()).json(body);
        let sent = request.timeout(Duration::from_secs(10)).send().await;
        let response = sent.map_err(|error| ClientError::Unreachable(chain(&error)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let error = response.json::<ControlError>().await;
        match error {
            Ok(error) if error.code == "say_hello" => Err(ClientError::SayHello),
            Ok(error) if error.code == "replaced" => Err(ClientError::Replaced(error.message)),
            Ok(error) => Err(ClientError::Unreachable(error.to_string())),
            Err(_) => Err(ClientError::Unreachable(format!("the fleet answered {status}"))),
        }
    }

    /// Says hello until the fleet hears it.
    pub(super) async fn hello_until_heard(&self) -> anyhow::Result<()> {
        let hello = Hello {
            name: self.config.name.clone(),
            boot: self.boot.clone(),
            address: self.config.address,
            tags: self.config.tags.clone().into_iter().collect(),
        };
        loop {
            match self.call("hello", &hello).await {
                Ok(_) => return Ok(()),
                Err(ClientError::Replaced(text)) => anyhow::bail!(text),
                Err(error) => {
                    tracing::warn!(%error, "the fleet doesn't hear the agent");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    pub(super) async fn poll(&self, running: Option<i64>) -> Result<Polled, ClientError> {
        let (name, boot) = (self.config.name.clone(), self.boot.clone());
        let response = self.call("poll", &Poll { name, boot, running }).await?;
        response.json().await.map_err(|error| ClientError::Unreachable(chain(&error)))
    }

    pub(super) async fn complete(&self, done: &Complete) -> Result<(), ClientError> {
        self.call("complete", done).await.map(drop)
    }

    /// Fetches a bundle into a file.
    pub(super) async fn fetch(&self, bucket: &str, key: &str, into: &Path) -> Result<(), String> {
        let base = self.config.endpoint.trim_end_matches('/');
        let parts: Vec<String> =
            key.split('/').map(|part| urlencoding::encode(part).into_owned()).collect();
        let url = format!("{base}/bundles/{}/{}", urlencoding::encode(bucket), parts.join("/"));
        let request = self.http.get(url).bearer_auth(self.token.reveal());
        let response = request.send().await.map_err(|error| chain(&error))?;
        let response = response.error_for_status().map_err(|error| chain(&error))?;
        let mut file = tokio::fs::File::create(into).await.map_err(|error| error.to_string())?;
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| chain(&error))?;
            file.write_all(&chunk).await.map_err(|error| error.to_string())?;
        }
        file.sync_all().await.map_err(|error| error.to_string())
    }
}
