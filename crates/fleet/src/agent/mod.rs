//! The host agent: carries out the lifecycle events of a deployment on one host.
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
//! ```
//!
//! A `destination` of the AppSpec is a path below the release: `/app` is `<root>/current/app`.

mod appspec;
mod client;
mod execute;
mod hooks;
mod install;
mod journal;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::{
    client::{Client, ClientError},
    journal::Journal,
};
use crate::{
    Credentials, Token,
    agents::{Complete, Order},
    deployment::{Diagnostics, LifecycleErrorCode},
    http_client,
};

/// How to run the agent of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The host's name: letters, digits and `._+=,@-`, at most 100. No two hosts have the same.
    pub name: String,
    /// The fleet, `http://127.0.0.1:8471`.
    pub endpoint: String,
    /// A file with the fleet's `agent_token`, or the fleet's `credentials.json` itself.
    pub token_file: PathBuf,
    /// The folder that the agent may fill. One agent, one root.
    pub root: PathBuf,
    /// Where the service on this host answers; its port is given to hooks as `PORT`.
    pub address: SocketAddr,
    /// Tags by which groups choose hosts.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

const HEARTBEAT: Duration = Duration::from_secs(2);
/// Between tries when the fleet can't be reached.
const RETRY: Duration = Duration::from_secs(1);

/// Serves until `shutdown`. A hook that runs then is ended with its children.
///
/// # Errors
/// When it can't start, or when another agent took the host's name.
pub async fn run(config: AgentConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let token = token(&config.token_file)?;
    // Whoever serves a release reads it here, so others may look; nobody else may write.
    let root = pipeyard_private::served_folder(&config.root, &["agent.json", "bundles"])?;
    for folder in ["bundles", "releases"] {
        pipeyard_private::served_folder(&root.join(folder), &[])?;
    }
    let _lock = journal::lock(&root)?;
    hooks::end_leftover(&root.join(execute::RUNNING));
    let config = Arc::new(AgentConfig { root, ..config });
    let journal = Journal::open(&config.root.join("agent.json"))?;
    let client = Client::new(&config, token, http_client()?);
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ended = serve(&config, &client, &journal) => ended,
    }
}

/// Reads the agents' token.
fn token(path: &Path) -> anyhow::Result<Token> {
    let text = pipeyard_private::secret(path)?;
    if text.trim_start().starts_with('{') {
        let credentials: Credentials = serde_json::from_str(&text)
            .with_context(|| format!("{} isn't a fleet's credentials", path.display()))?;
        return Ok(credentials.agent_token);
    }
    Ok(Token::new(text.trim()))
}

async fn serve(
    config: &Arc<AgentConfig>,
    client: &Client,
    journal: &Journal,
) -> anyhow::Result<()> {
    client.hello_until_heard().await?;
    tracing::info!(host = config.name, root = %config.root.display(), "the agent is ready");
    loop {
        let polled = match client.poll(None).await {
            Ok(polled) => polled,
            Err(ClientError::SayHello) => {
                client.hello_until_heard().await?;
                continue;
            }
            Err(ClientError::Replaced(text)) => anyhow::bail!(text),
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
    let done = Complete { name: config.name.clone(), command: order.id, diagnostics };
    loop {
        match client.complete(&done).await {
            Ok(()) => return Ok(()),
            Err(ClientError::Replaced(text)) => anyhow::bail!(text),
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
                Err(ClientError::Replaced(text)) => anyhow::bail!(text),
                Err(ClientError::SayHello) => client.hello_until_heard().await?,
                // The hook goes on; its outcome is reported when the fleet is back.
                Err(ClientError::Unreachable(error)) => {
                    tracing::warn!(error, "the fleet can't be reached");
                }
            }
        }
    }
}
