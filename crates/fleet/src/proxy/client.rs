//! The fleet's side of the proxy's admin API.

use std::time::Duration;

use super::route::{Refusal, Route, RouteStatus};
use crate::{chain, token::Token};

/// Talks to one proxy.
#[derive(Debug, Clone)]
pub struct ProxyClient {
    base: String,
    token: Token,
    http: reqwest::Client,
}

/// Why a route wasn't set or read.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The proxy said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It can't be reached, or didn't answer like a proxy. Nothing is known about the outcome.
    #[error("the proxy can't be reached: {0}")]
    Unreachable(String),
}

impl ProxyClient {
    /// A client of the proxy whose admin API is at `admin`.
    #[must_use]
    pub fn new(admin: std::net::SocketAddr, token: Token, http: reqwest::Client) -> Self {
        Self { base: format!("http://{admin}/v1/services"), token, http }
    }

    /// Sets a route. May be repeated.
    ///
    /// # Errors
    /// When the proxy refuses, or can't be reached.
    pub async fn put(&self, name: &str, route: &Route) -> Result<RouteStatus, ProxyError> {
        self.call(self.http.put(format!("{}/{name}", self.base)).json(route)).await
    }

    /// Reads a route; none if the proxy has none of this name.
    ///
    /// # Errors
    /// When the proxy can't be reached.
    pub async fn get(&self, name: &str) -> Result<Option<RouteStatus>, ProxyError> {
        match self.call(self.http.get(format!("{}/{name}", self.base))).await {
            Ok(status) => Ok(Some(status)),
            Err(ProxyError::Refused(Refusal::Unknown)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Closes a service's port. A route that isn't there is fine.
    ///
    /// # Errors
    /// When the proxy refuses, or can't be reached.
    pub async fn remove(&self, name: &str, epoch: u64) -> Result<(), ProxyError> {
        let request = self.http.delete(format!("{}/{name}?epoch={epoch}", self.base));
        let response = self.send(request).await?;
        if response.status().is_success() {
            return Ok(());
        }
        match refusal(response).await {
            ProxyError::Refused(Refusal::Unknown) => Ok(()),
            error => Err(error),
        }
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, ProxyError> {
        let request = request.bearer_auth(self.token.reveal()).timeout(Duration::from_secs(5));
        request.send().await.map_err(|error| ProxyError::Unreachable(chain(&error)))
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Result<RouteStatus, ProxyError> {
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        response.json().await.map_err(|error| ProxyError::Unreachable(chain(&error)))
    }
}

async fn refusal(response: reqwest::Response) -> ProxyError {
    let status = response.status();
    match response.json::<Refusal>().await {
        Ok(refusal) => refusal.into(),
        Err(_) => ProxyError::Unreachable(format!("it answered {status}")),
    }
}
