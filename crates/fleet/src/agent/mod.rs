//! The host agent: carries out the lifecycle events of a deployment on one host.
//!
//! It exchanges the code of an enrolment for a key of its own, once, and signs everything with that
//! key. What it is called and where its service answers the fleet tells it.
//!
//! It says hello, polls for commands, and carries out one at a time. Before it begins a command it
//! writes it to its journal, and its outcome before it reports it: an agent that was killed in the
//! middle reports a hook as failed (nobody knows how far it came) and does an installation again
//! (it may be repeated). It touches nothing outside of its root but what hooks do.
//!
//! ```text
//! <root>/current -> releases/<sha256>     the installed release; replaced in one step
//! <root>/releases/<sha256>/               what `files` of the AppSpec put there
//! <root>/bundles/<sha256>/                the unpacked bundle: where hooks run
//! <root>/agent.json                       the journal
//! <root>/host-key.json                    the host's key, mode 0600
//! ```
//!
//! A `destination` of the AppSpec is a path below the release: `/app` is `<root>/current/app`.

mod client;
mod execute;
mod hooks;
mod install;
mod journal;
mod key;
mod user;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use pipeyard_model::address::CredentialUrl;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::{
    client::{Client, ClientError},
    journal::Journal,
};
use crate::{
    agents::Order,
    deployment::{Diagnostics, LifecycleErrorCode},
    http_client,
};

/// How to run the agent of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The fleet, `https://fleet.example.com:8471`; plain http on this machine only.
    pub endpoint: String,
    /// A file with the code that `pipectl fleet enroll NAME` printed; needed until the host has its
    /// key.
    #[serde(default, alias = "token_file")]
    pub enroll_file: Option<PathBuf>,
    /// The folder that the agent may fill. One agent, one root.
    pub root: PathBuf,
    /// The user that hooks run as which name none. Needs an agent that runs as root; without it
    /// they run as the agent does.
    #[serde(default)]
    pub hooks_as: Option<String>,
}

const HEARTBEAT: Duration = Duration::from_secs(2);
/// Between tries when the fleet can't be reached.
const RETRY: Duration = Duration::from_secs(1);

/// Serves until `shutdown`. A hook that runs then is ended with its children.
///
/// # Errors
/// When it can't start, when the host's key is revoked, or when another agent came with it.
pub async fn run(config: AgentConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    CredentialUrl::parse(&config.endpoint).context("the fleet's address")?;
    user::check_default(config.hooks_as.as_deref())?;
    // Whoever serves a release reads it here, so others may look; nobody else may write.
    let root = pipeyard_private::served_folder(&config.root, &["agent.json", "bundles"])?;
    for folder in ["bundles", "releases"] {
        pipeyard_private::served_folder(&root.join(folder), &[])?;
    }
    let _lock = journal::lock(&root)?;
    hooks::end_leftover(&root.join(execute::RUNNING));
    let config = Arc::new(AgentConfig { root, ..config });
    let journal = Journal::open(&config.root.join("agent.json"))?;
    let http = http_client()?;
    let work = async {
        let host = key::load_or_enrol(&config, &http).await?;
        let client = Client::new(&config, host, http.clone());
        serve(&config, &client, &journal).await
    };
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ended = work => ended,
    }
}

async fn serve(
    config: &Arc<AgentConfig>,
    client: &Client,
    journal: &Journal,
) -> anyhow::Result<()> {
    client.hello_until_heard().await?;
    tracing::info!(host = client.name(), root = %config.root.display(), "the agent is ready");
    loop {
        let polled = match client.poll(None).await {
            Ok(polled) => polled,
            Err(ClientError::SayHello) => {
                client.hello_until_heard().await?;
                continue;
            }
            Err(ClientError::Ended(text)) => anyhow::bail!(text),
            Err(ClientError::Unreachable(error)) => {
                tracing::warn!(error, "the fleet can't be reached");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        if let Some(order) = polled.command {
            carry_out(config, client, journal, &order).await?;
        }
    }
}

async fn carry_out(
    config: &Arc<AgentConfig>,
    client: &Client,
    journal: &Journal,
    order: &Order,
) -> anyhow::Result<()> {
    let diagnostics = match journal.find(order.id) {
        Some(journal::Entry { outcome: Some(outcome), .. }) => outcome,
        // Begun before this agent was: a hook may have done anything, the rest may be repeated.
        Some(_) if execute::runs_hooks(&order.event) => Diagnostics::new(
            LifecycleErrorCode::UnknownError,
            format!("the agent was restarted while {} ran", order.event),
        ),
        _ => {
            journal.begin(order.id, &order.event)?;
            work(config, client, order).await?
        }
    };
    journal.end(order.id, &order.event, &diagnostics)?;
    loop {
        match client.complete(order.id, &diagnostics).await {
            Ok(()) => return Ok(()),
            Err(ClientError::Ended(text)) => anyhow::bail!(text),
            Err(ClientError::SayHello) => client.hello_until_heard().await?,
            Err(ClientError::Unreachable(error)) => {
                tracing::warn!(error, "an outcome can't be reported yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Executes a command while showing that the agent lives. A cancel, or a fleet that doesn't know
/// the command any more, ends it.
async fn work(
    config: &Arc<AgentConfig>,
    client: &Client,
    order: &Order,
) -> anyhow::Result<Diagnostics> {
    let mut job = std::pin::pin!(execute::execute(config, client, order));
    loop {
        let beat = async {
            tokio::time::sleep(HEARTBEAT).await;
            client.poll(Some(order.id)).await
        };
        tokio::select! {
            outcome = &mut job => return Ok(outcome),
            heard = beat => match heard {
                Ok(polled) if polled.cancel => {
                    let text = "the fleet doesn't want it any more";
                    return Ok(Diagnostics::new(LifecycleErrorCode::UnknownError, text));
                }
                Ok(_) => {}
                Err(ClientError::Ended(text)) => anyhow::bail!(text),
                Err(ClientError::SayHello) => client.hello_until_heard().await?,
                // The hook goes on; its outcome is reported when the fleet is back.
                Err(ClientError::Unreachable(error)) => {
                    tracing::warn!(error, "the fleet can't be reached");
                }
            }
        }
    }
}
