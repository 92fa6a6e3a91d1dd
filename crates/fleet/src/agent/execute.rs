//! What each event does on the host.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{AgentConfig, client::Client, hooks, install};
use crate::{
    agents::Order,
    appspec::{AppSpec, EVENT_LIMIT},
    bundles::digest,
    deployment::{Diagnostics, LifecycleErrorCode},
};

/// The programs that hooks find without a path.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Says which hook runs.
pub(super) const RUNNING: &str = "hook.pid";

/// Whether an event runs scripts, which can't be repeated blindly.
pub(super) fn runs_hooks(event: &str) -> bool {
    !matches!(event, "DownloadBundle" | "Install")
}

pub(super) async fn execute(
    config: &Arc<AgentConfig>,
    client: &Client,
    order: &Order,
) -> Diagnostics {
    let began = Instant::now();
    tracing::info!(deployment = order.deployment, event = order.event, "begins");
    let outcome = match order.event.as_str() {
        "DownloadBundle" => download(config, client, order).await,
        "Install" => install(config, order).await,
        _ => scripts(config, client, order).await,
    };
    let outcome =
        outcome.unwrap_or_else(|text| Diagnostics::new(LifecycleErrorCode::UnknownError, text));
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let code = outcome.error_code;
    tracing::info!(
        deployment = order.deployment,
        event = order.event,
        ?code,
        took_ms = took,
        "ended"
    );
    outcome
}

fn bundle(root: &Path, sha256: &str) -> Result<PathBuf, String> {
    if sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(root.join("bundles").join(sha256))
    } else {
        Err(format!("{sha256:?} isn't a sha256"))
    }
}

async fn download(
    config: &Arc<AgentConfig>,
    client: &Client,
    order: &Order,
) -> Result<Diagnostics, String> {
    let sha256 = &order.doc.sha256;
    let folder = bundle(&config.root, sha256)?;
    if folder.is_dir() {
        return Ok(Diagnostics::success("the bundle was here already"));
    }
    let archive = folder.with_extension("tgz");
    client.fetch(&order.doc.bucket, &order.doc.key, &archive).await?;
    let wanted = sha256.clone();
    let unpacked = tokio::task::spawn_blocking(move || {
        let found = digest(&archive).map_err(|error| error.to_string())?;
        if found != wanted {
            return Err(format!("the bundle is {found}, {wanted} was wanted"));
        }
        let unpacked = install::unpack(&archive, &folder);
        let _ = std::fs::remove_file(&archive);
        unpacked
    });
    unpacked.await.map_err(|error| error.to_string())??;
    Ok(Diagnostics::success(format!("{sha256} is unpacked")))
}

async fn install(config: &Arc<AgentConfig>, order: &Order) -> Result<Diagnostics, String> {
    let folder = bundle(&config.root, &order.doc.sha256)?;
    let (root, sha256) = (config.root.clone(), order.doc.sha256.clone());
    let installed = tokio::task::spawn_blocking(move || {
        let spec = AppSpec::read(&folder)?;
        install::install(&root, &sha256, &spec)
    });
    Ok(Diagnostics::success(installed.await.map_err(|error| error.to_string())??))
}

/// The scripts of an event. Those of `ApplicationStop` come from the version that was good before.
async fn scripts(
    config: &Arc<AgentConfig>,
    client: &Client,
    order: &Order,
) -> Result<Diagnostics, String> {
    let of = if order.event == "ApplicationStop" {
        match &order.doc.previous {
            Some(previous) => previous,
            None => return Ok(Diagnostics::success("there is no version before")),
        }
    } else {
        &order.doc.sha256
    };
    let folder = bundle(&config.root, of)?;
    if order.event == "ApplicationStop" && !folder.is_dir() {
        return Ok(Diagnostics::success("the version before isn't kept any more"));
    }
    let spec = AppSpec::read(&folder)?;
    let hooks = spec.hooks.get(&order.event).map(Vec::as_slice).unwrap_or_default();
    let environment = environment(config, client, order);
    let began = Instant::now();
    let mut last = Diagnostics::success("no scripts");
    for hook in hooks {
        let left = Duration::from_secs(EVENT_LIMIT).saturating_sub(began.elapsed());
        let running = config.root.join(RUNNING);
        let default = config.hooks_as.as_deref();
        last = hooks::run(&folder, hook, &environment, left, default, &running).await;
        if last.error_code != LifecycleErrorCode::Success {
            break;
        }
    }
    Ok(last)
}

/// Everything that a hook is told; nothing of the agent's own environment is.
fn environment(config: &AgentConfig, client: &Client, order: &Order) -> Vec<(String, String)> {
    let doc = &order.doc;
    let current = config.root.join("current");
    [
        ("LIFECYCLE_EVENT", order.event.clone()),
        ("DEPLOYMENT_ID", order.deployment.clone()),
        ("APPLICATION_NAME", doc.application.clone()),
        ("DEPLOYMENT_GROUP_NAME", doc.group.clone()),
        ("DEPLOYMENT_GROUP_ID", doc.group_id.clone()),
        ("BUNDLE_BUCKET", doc.bucket.clone()),
        ("BUNDLE_KEY", doc.key.clone()),
        ("BUNDLE_ETAG", doc.sha256.clone()),
        ("PIPEYARD_ROOT", config.root.display().to_string()),
        ("PIPEYARD_CURRENT", current.display().to_string()),
        ("PIPEYARD_HOST", client.name().to_owned()),
        ("PATH", PATH.to_owned()),
        ("HOME", config.root.display().to_string()),
    ]
    .into_iter()
    .chain(client.address().into_iter().flat_map(|address| {
        [("PORT", address.port().to_string()), ("HOST", address.ip().to_string())]
    }))
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}
