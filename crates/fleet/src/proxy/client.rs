//! The fleet's side of the proxy's admin API.

use std::{collections::BTreeMap, time::Duration};

use super::route::{Refusal, Route, RouteStatus};
use crate::{
    chain,
    token::{SharedToken, Token},
};

/// Talks to one proxy.
#[derive(Debug, Clone)]
pub struct ProxyClient {
    base: String,
    token: Bearer,
    http: reqwest::Client,
}

/// Where the token comes from.
#[derive(Debug, Clone)]
enum Bearer {
    Given(Token),
    Shared(SharedToken),
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
        Self { base: format!("http://{admin}/v1/services"), token: Bearer::Given(token), http }
    }

    /// The same with a token out of a file that both sides read.
    pub(crate) fn sharing(
        admin: std::net::SocketAddr,
        token: SharedToken,
        http: reqwest::Client,
    ) -> Self {
        Self { base: format!("http://{admin}/v1/services"), token: Bearer::Shared(token), http }
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

    /// Reads every route, by name.
    ///
    /// # Errors
    /// When the proxy can't be reached.
    pub async fn all(&self) -> Result<BTreeMap<String, RouteStatus>, ProxyError> {
        self.call(self.http.get(&self.base)).await
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
        let request = request.timeout(Duration::from_secs(5));
        let again = request.try_clone();
        let answer = self.try_send(request).await?;
        if answer.status() == reqwest::StatusCode::UNAUTHORIZED
            && let (Bearer::Shared(token), Some(again)) = (&self.token, again)
            && token.read_again()
        {
            return self.try_send(again).await;
        }
        Ok(answer)
    }

    async fn try_send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, ProxyError> {
        let token = match &self.token {
            Bearer::Given(token) => token.clone(),
            Bearer::Shared(token) => token.current(),
        };
        let sent = request.bearer_auth(token.reveal()).send().await;
        sent.map_err(|error| ProxyError::Unreachable(chain(&error)))
    }

    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, ProxyError> {
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
