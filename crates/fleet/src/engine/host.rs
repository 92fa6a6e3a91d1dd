//! One host of a rolling deployment: out of the traffic, through the events of the lifecycle, back.

use std::time::{Duration, Instant};

use pipeyard_model::fleet::{HostService, ServicePlatform};
use tokio::sync::Notify;

use super::{EngineError, health};
use crate::{
    bundles::Located,
    db::{CommandDoc, Installed},
    deployment::{Deployment, Diagnostics, EventStatus, LifecycleErrorCode, Target, TargetStatus},
    fleet::Fleet,
};

/// The order on a host. The engine does the first and the last, the agent the others.
const EVENTS: [&str; 9] = [
    "BlockTraffic",
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "AllowTraffic",
];
/// An event that never ends, whatever its hooks' timeouts say.
const EVENT_LIMIT: Duration = Duration::from_secs(3_700);

pub(super) fn hosts(deployment: &Deployment) -> Result<&HostService, EngineError> {
    match &deployment.settings.service.platform {
        ServicePlatform::Hosts(hosts) => Ok(hosts),
        ServicePlatform::Container(_) => Err(EngineError::NoService),
    }
}

pub(super) fn name(deployment: &Deployment) -> String {
    format!("{}/{}", deployment.application, deployment.group)
}

/// Takes one host through what is left of its events.
pub(super) async fn run(
    fleet: &Fleet,
    deployment: &Deployment,
    bundle: &Located,
    mut target: Target,
    waker: &Notify,
) -> Result<(), EngineError> {
    let group = name(deployment);
    for event in EVENTS {
        if matches!(target.event(event).status, EventStatus::Succeeded | EventStatus::Skipped) {
            continue;
        }
        // A stop script that failed before a restart isn't run again.
        if event == "ApplicationStop" && target.event(event).status == EventStatus::Failed {
            continue;
        }
        if target.event(event).started.is_none() {
            target.event(event).begin(fleet.clock.now());
            keep(fleet, deployment, &mut target).await?;
        }
        let outcome = match event {
            "BlockTraffic" => block(fleet, deployment, bundle, &target.id).await?,
            "AllowTraffic" => allow(fleet, deployment, &target.id, &group).await?,
            _ => command(fleet, deployment, bundle, &target.id, event, waker).await?,
        };
        let good = outcome.error_code == LifecycleErrorCode::Success;
        target.event(event).finish(fleet.clock.now(), outcome);
        // The version before may be broken: its stop script must not keep the new one out.
        if !good && event != "ApplicationStop" {
            put_back(fleet, deployment, &target.id).await?;
            target.status = TargetStatus::Failed;
            keep(fleet, deployment, &mut target).await?;
            let (application, group) = (&deployment.application, &deployment.group);
            fleet.routes.sync(fleet, application, group, "host").await?;
            return Ok(());
        }
        keep(fleet, deployment, &mut target).await?;
    }
    target.status = TargetStatus::Succeeded;
    keep(fleet, deployment, &mut target).await?;
    fleet.routes.sync(fleet, &deployment.application, &deployment.group, "host").await?;
    Ok(())
}

/// A host whose agent never took a command is as it was: it gets its traffic back.
async fn put_back(fleet: &Fleet, deployment: &Deployment, host: &str) -> Result<(), EngineError> {
    if fleet.db.took_commands(&deployment.id, host).await? {
        return Ok(());
    }
    let group = name(deployment);
    fleet
        .db
        .change_instance(host, |doc| {
            if let Some(installed) = doc.installed.get_mut(&group)
                && installed.deployment == deployment.id
                && let Some(before) = installed.previous.clone()
                && installed.was_good
            {
                installed.sha256 = before;
                installed.good = true;
            }
        })
        .await?;
    Ok(())
}

async fn keep(
    fleet: &Fleet,
    deployment: &Deployment,
    target: &mut Target,
) -> Result<(), EngineError> {
    target.updated = fleet.clock.now();
    Ok(fleet.db.put_target(&deployment.id, target).await?)
}

/// Takes the host out of the traffic; its requests in flight end first.
async fn block(
    fleet: &Fleet,
    deployment: &Deployment,
    bundle: &Located,
    host: &str,
) -> Result<Diagnostics, EngineError> {
    let group = name(deployment);
    let known = fleet.db.instance(host).await?;
    let before = known.as_ref().and_then(|known| known.doc.installed.get(&group).cloned());
    let address = known.and_then(|known| known.doc.address);
    // Done already, before a restart: what was there before is written down.
    let again = before.as_ref().is_some_and(|before| before.deployment == deployment.id);
    fleet
        .db
        .change_instance(host, |doc| {
            if again {
                return;
            }
            let was_good =
                before.as_ref().filter(|before| before.good || before.previous.is_some());
            let previous = was_good.and_then(|before| {
                if before.good { Some(before.sha256.clone()) } else { before.previous.clone() }
            });
            let installed = Installed {
                deployment: deployment.id.clone(),
                sha256: bundle.sha256.clone(),
                good: false,
                previous,
                was_good: before.as_ref().is_some_and(|before| before.good),
            };
            doc.installed.insert(group, installed);
        })
        .await?;
    let (application, group) = (&deployment.application, &deployment.group);
    fleet.routes.sync(fleet, application, group, "block").await?;
    let Some(address) = address else {
        let text = "the host's agent never said where its service answers";
        return Ok(Diagnostics::new(LifecycleErrorCode::UnknownError, text));
    };
    let within = Duration::from_secs(u64::from(hosts(deployment)?.drain_within));
    let drained = fleet.routes.drained(application, group, &[address], within).await?;
    let text = if drained { "no request in flight" } else { "requests in flight were cut off" };
    Ok(Diagnostics::success(text))
}

/// Waits for the health check, then gives the host its traffic back.
async fn allow(
    fleet: &Fleet,
    deployment: &Deployment,
    host: &str,
    group: &str,
) -> Result<Diagnostics, EngineError> {
    let service = hosts(deployment)?;
    let limit = Duration::from_secs(u64::from(service.healthy_within));
    let began = Instant::now();
    let known = fleet.db.instance(host).await?;
    let Some(address) = known.and_then(|known| known.doc.address) else {
        let text = "the host isn't registered any more";
        return Ok(Diagnostics::new(LifecycleErrorCode::UnknownError, text));
    };
    while let Some(why) = health::probe(&fleet.http, address, &service.health_path).await {
        if began.elapsed() > limit {
            let text = format!("not healthy within {} s: {why}", limit.as_secs());
            return Ok(Diagnostics::new(LifecycleErrorCode::UnknownError, text));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    fleet
        .db
        .change_instance(host, |doc| {
            if let Some(installed) = doc.installed.get_mut(group) {
                installed.good = true;
            }
        })
        .await?;
    Ok(Diagnostics::success("healthy"))
}

/// Lets the agent carry out one event. A restarted engine finds the command that it gave before.
async fn command(
    fleet: &Fleet,
    deployment: &Deployment,
    bundle: &Located,
    host: &str,
    event: &str,
    waker: &Notify,
) -> Result<Diagnostics, EngineError> {
    let began = Instant::now();
    if fleet.db.last_command(&deployment.id, host, event).await?.is_none() {
        let known = fleet.db.instance(host).await?;
        let installed = known.and_then(|known| known.doc.installed.get(&name(deployment)).cloned());
        let group = fleet.db.group(&deployment.application, &deployment.group).await?;
        let doc = CommandDoc {
            application: deployment.application.clone(),
            group: deployment.group.clone(),
            group_id: group.map(|group| group.id).unwrap_or_default(),
            bucket: bundle.bucket.clone(),
            key: bundle.key.clone(),
            sha256: bundle.sha256.clone(),
            previous: installed.and_then(|installed| installed.previous),
        };
        let now = fleet.clock.now();
        fleet.db.create_command(&deployment.id, host, event, &doc, now).await?;
        fleet.agents.notify(host);
    }
    loop {
        let woken = waker.notified();
        let Some((id, outcome)) = fleet.db.last_command(&deployment.id, host, event).await? else {
            let text = "the command is gone";
            return Ok(Diagnostics::new(LifecycleErrorCode::UnknownError, text));
        };
        if let Some(outcome) = outcome {
            return Ok(outcome);
        }
        let lost = fleet.agents.is_lost(host);
        if lost || began.elapsed() > EVENT_LIMIT {
            let text = if lost {
                let silence = fleet.agents.silence(host).as_secs();
                format!("the agent has been silent for {silence} s")
            } else {
                "the event never ended".to_owned()
            };
            let failed = Diagnostics::new(LifecycleErrorCode::UnknownError, text);
            fleet.db.end_command(id, host, &failed, fleet.clock.now()).await?;
            continue;
        }
        let _ = tokio::time::timeout(Duration::from_millis(500), woken).await;
    }
}
