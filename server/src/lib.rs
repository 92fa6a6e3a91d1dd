//! The server: webhooks, API, UI, Git over HTTP, and the tasks that move runs and deployments on.
//!
//! Handlers call the store's verbs and wake tasks; they hold no state of their own. The database is
//! the only truth: what is in memory only wakes somebody earlier. The server never dials a runner
//! and executes nothing of a user's.

pub mod backup;
pub mod blobs;
pub mod boot;
pub mod checkout;
pub mod config;
pub mod error;
mod gate;
pub mod health;
pub mod http;
pub mod intake;
pub mod keys;
pub mod log;
pub mod metrics;
pub mod mirror;
pub mod openapi;
pub mod outgoing;
pub mod providers;
pub mod seal;
pub mod serving;
pub mod state;
pub mod tasks;
pub mod tokens;

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use pipeyard_listen::{Limits, Listener, tls::Tls};
use tokio_util::sync::CancellationToken;

pub use config::ServerConfig;
pub use pipeyard_store_sqlite::Adopted;
pub use state::AppState;

/// How long open requests may take to end after the server was told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Serves until `shutdown`. Returns the bound address through `bound` once it listens.
///
/// # Errors
/// When the address can't be bound or the configuration isn't safe.
pub async fn serve(
    state: AppState,
    bound: impl FnOnce(SocketAddr),
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    state.config.check()?;
    let limits = Limits {
        stalled_reader: state.config.stalled_reader(),
        trusted_proxy: state.config.trusted_proxy,
        ..Limits::default()
    };
    let (certificate, key) = (state.config.tls_cert.as_deref(), state.config.tls_key.as_deref());
    let tls = Tls::wrapper(certificate, key).context("the server's TLS")?;
    let listener = Listener::bind(state.config.listen, limits)
        .await
        .with_context(|| format!("failed to listen on {}", state.config.listen))?;
    state.blobs.remove_unfinished().context("failed to clean the blob store")?;
    let listener = listener.wrap(tls);
    bound(listener.local_addr()?);
    let tasks = tasks::start(&state, &shutdown);
    let stopping = state.stopping.clone();
    // Streams and long polls end by themselves when they hear of it; what doesn't is cut after the
    // grace period.
    let ends = shutdown.clone();
    tokio::spawn(async move {
        ends.cancelled().await;
        stopping.cancel();
    });
    listener.serve(http::router(state), shutdown.clone(), GRACE).await;
    shutdown.cancel();
    tasks.close();
    let _ = tokio::time::timeout(GRACE, tasks.wait()).await;
    Ok(())
}
