//! The server: webhooks, API, UI, Git over HTTP, and the tasks that move runs and deployments on.
//!
//! Handlers call the store's verbs and wake tasks; they hold no state of their own. The database is
//! the only truth: what is in memory only wakes somebody earlier. The server never dials a runner
//! and executes nothing of a user's.

pub mod blobs;
pub mod boot;
pub mod checkout;
pub mod config;
pub mod error;
pub mod http;
pub mod intake;
pub mod log;
pub mod metrics;
pub mod mirror;
pub mod openapi;
pub mod outgoing;
pub mod providers;
pub mod seal;
pub mod state;
pub mod tasks;
pub mod tokens;

use std::{future::IntoFuture, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::ServerConfig;
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
    let listener = TcpListener::bind(state.config.listen)
        .await
        .with_context(|| format!("failed to listen on {}", state.config.listen))?;
    drop_stalled_readers(&listener, state.config.stalled_reader())
        .context("failed to set up the listener")?;
    state.blobs.remove_unfinished().context("failed to clean the blob store")?;
    bound(listener.local_addr()?);
    let tasks = tasks::start(&state, &shutdown);
    let stopping = state.stopping.clone();
    let router = http::router(state).into_make_service_with_connect_info::<SocketAddr>();
    let stop = shutdown.clone();
    let server = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .into_future();
    let mut server = std::pin::pin!(server);
    tokio::select! {
        ended = &mut server => ended?,
        () = shutdown.cancelled() => {
            // Streams and long polls end by themselves now; what doesn't is cut after the grace
            // period.
            stopping.cancel();
            let _ = tokio::time::timeout(GRACE, &mut server).await;
        }
    }
    shutdown.cancel();
    tasks.close();
    let _ = tokio::time::timeout(GRACE, tasks.wait()).await;
    Ok(())
}

/// A peer that takes nothing of what waits for it is given up by the kernel after `limit`: a stalled
/// reader holds memory, and nothing else would end it. Connections take this over from the listener.
fn drop_stalled_readers(listener: &TcpListener, limit: Duration) -> std::io::Result<()> {
    let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(listener, millis)?)
}
