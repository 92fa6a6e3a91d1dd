//! The weighted proxy, a process of its own.
//!
//! It takes each service's requests at the service's port and gives them to arms by weight. It
//! knows nothing of deployments: the fleet tells it routes through the admin API, fenced by an
//! epoch, and it goes on serving the last ones when the fleet is dead or it is itself restarted.
//! When a route changes, requests in flight end where they began and no request fails.

mod admin;
mod backend;
mod client;
mod cookies;
mod forward;
mod route;
mod select;
mod service;
mod state;
mod upgrade;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use pipeyard_listen::{Limits, Listener};
use pipeyard_model::address::may_listen;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use client::{ProxyClient, ProxyError};
pub use forward::{ARM_HEADER, REQUEST_ID_HEADER};
pub use route::{ArmRole, ArmStatus, Refusal, Route, RouteArm, RouteStatus};

use crate::{files::refuse_public, token::SharedToken};

/// How to run the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyConfig {
    /// Where the admin API listens.
    #[serde(default = "default_admin")]
    pub admin_listen: SocketAddr,
    /// The address at which services' ports are opened.
    #[serde(default = "default_host")]
    pub host: IpAddr,
    /// The admin API's bearer token; made if it isn't there, so that fleet and proxy may start in
    /// any order with the same file.
    pub token_file: PathBuf,
    /// The routes, kept over restarts.
    pub state_file: PathBuf,
    /// Allows services' ports beyond loopback; the admin API stays on it.
    #[serde(default)]
    pub allow_public: bool,
}

impl ProxyConfig {
    /// Refuses addresses that other machines reach without leave; touches nothing.
    ///
    /// # Errors
    /// When one is.
    pub fn check(&self) -> anyhow::Result<()> {
        may_listen(self.admin_listen, false, false).context("the proxy's admin API")?;
        refuse_public(self.host, self.allow_public)
    }
}

/// The admin API's address unless said otherwise: 127.0.0.1:8472.
#[must_use]
pub fn default_admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8472))
}

fn default_host() -> IpAddr {
    IpAddr::from([127, 0, 0, 1])
}

/// How long clients may take to finish when the proxy ends.
const FAREWELL: Duration = Duration::from_secs(10);

/// Serves until `shutdown`.
///
/// # Errors
/// When it can't start: a public address without leave, an unreadable file, a port in use.
pub async fn run(config: ProxyConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    config.check()?;
    let token = SharedToken::open(&config.token_file)?;
    let state = state::State::load(config.host, config.state_file, shutdown.clone()).await;
    let listener = Listener::bind(config.admin_listen, Limits::default())
        .await
        .with_context(|| format!("the proxy can't listen on {}", config.admin_listen))?;
    tracing::info!(admin = %listener.local_addr()?, "the proxy is ready");
    let retry = {
        let (state, shutdown) = (std::sync::Arc::clone(&state), shutdown.clone());
        tokio::spawn(async move {
            while !state.open_missing().await {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
        })
    };
    let admin = admin::router(std::sync::Arc::clone(&state), token);
    listener.serve(admin, shutdown.clone(), FAREWELL).await;
    shutdown.cancel();
    retry.await?;
    state.connections.close();
    if tokio::time::timeout(FAREWELL, state.connections.wait()).await.is_err() {
        tracing::warn!("some clients were cut off");
    }
    Ok(())
}
