//! Hosts: batch after batch, in place, each host through the lifecycle of its AppSpec.
//!
//! A host leaves the traffic before its first event and comes back after its health check. The
//! batches follow [`super::batch`], so there are never fewer healthy hosts than the minimum as
//! long as nothing else takes one away. An agent that falls silent fails its host within ten
//! seconds; a host that is on its way finishes it, or fails, before the deployment ends.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pipeyard_model::fleet::{HostService, ServicePlatform};
use tokio::sync::Notify;

use super::{
    EngineError, Flow,
    batch::{self, Host, Next, Place},
    end_with_rollback, ended, health, set,
};
use crate::{
    aws::{Minimum, Plan, lookup, matches_all},
    bundles::{Located, locate},
    db::{CommandDoc, Installed, Instance},
    deployment::{
        Deployment, DeploymentStatus, Diagnostics, EventStatus, LifecycleErrorCode, Phase, Target,
        TargetStatus,
    },
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

pub(super) async fn advance(
    fleet: &Fleet,
    deployment: &Deployment,
    waker: &Notify,
) -> Result<Flow, EngineError> {
    match deployment.phase {
        Phase::Rolling => roll(fleet, deployment, waker).await,
        _ => begin(fleet, deployment).await,
    }
}

/// Finds the hosts. They stay the deployment's targets even if tags change.
async fn begin(fleet: &Fleet, deployment: &Deployment) -> Result<Flow, EngineError> {
    let now = fleet.clock.now();
    locate(fleet, &deployment.revision).await?;
    let hosts = fleet.db.instances().await?.into_iter().filter(|host| {
        host.deregistered.is_none() && matches_all(&deployment.settings.tags, &host.tags)
    });
    let hosts: Vec<Instance> = hosts.collect();
    if hosts.is_empty() {
        let why = ("NO_INSTANCES", "no registered host has the group's tags");
        finish(fleet, deployment, DeploymentStatus::Failed, Some(why)).await?;
        return Ok(Flow::Again);
    }
    for host in &hosts {
        fleet.db.put_target(&deployment.id, &Target::new(&host.name, now)).await?;
    }
    set(fleet, &deployment.id, |d| {
        d.status = DeploymentStatus::InProgress;
        d.started = d.started.or(Some(now));
        d.phase = Phase::Rolling;
    })
    .await?;
    Ok(Flow::Again)
}

fn hosts(deployment: &Deployment) -> Result<&HostService, EngineError> {
    match &deployment.settings.service.platform {
        ServicePlatform::Hosts(hosts) => Ok(hosts),
        ServicePlatform::Container(_) => Err(EngineError::NoService),
    }
}

fn name(deployment: &Deployment) -> String {
    format!("{}/{}", deployment.application, deployment.group)
}

async fn roll(fleet: &Fleet, deployment: &Deployment, waker: &Notify) -> Result<Flow, EngineError> {
    let bundle = locate(fleet, &deployment.revision).await?;
    let mut targets = fleet.db.targets(&deployment.id).await?;
    let at_work = |targets: &[Target]| -> Vec<Target> {
        targets.iter().filter(|t| t.status == TargetStatus::InProgress).cloned().collect()
    };
    // A batch that a restart cut off goes on first.
    let mut batch = at_work(&targets);
    if batch.is_empty() {
        if deployment.stop.is_some() {
            for target in targets.iter_mut().filter(|t| t.status == TargetStatus::Pending) {
                target.status = TargetStatus::Skipped;
                fleet.db.put_target(&deployment.id, target).await?;
            }
            let why = ("MANUAL_STOP", "stopped on request; hosts that were done keep the revision");
            finish(fleet, deployment, DeploymentStatus::Stopped, Some(why)).await?;
            return Ok(Flow::Again);
        }
        let rule = match lookup(&fleet.db, &deployment.config).await? {
            Some(Plan::Hosts(rule)) => rule,
            _ => Minimum::AllButOne,
        };
        let places = places(fleet, deployment, &targets, &bundle).await?;
        match batch::next(&places, rule) {
            Next::Succeeded => {
                finish(fleet, deployment, DeploymentStatus::Succeeded, None).await?;
                return Ok(Flow::Again);
            }
            Next::Failed => {
                let text = too_few(&targets, batch::minimum(rule, targets.len()));
                let why = Some(("HEALTH_CONSTRAINTS", text.as_str()));
                finish(fleet, deployment, DeploymentStatus::Failed, why).await?;
                return Ok(Flow::Again);
            }
            Next::Batch(chosen) => {
                let number =
                    targets.iter().filter_map(|target| target.batch).max().unwrap_or(0) + 1;
                for i in chosen {
                    targets[i].status = TargetStatus::InProgress;
                    targets[i].batch = Some(number);
                    targets[i].updated = fleet.clock.now();
                    fleet.db.put_target(&deployment.id, &targets[i]).await?;
                }
                batch = at_work(&targets);
                tracing::info!(deployment = deployment.id, number, hosts = batch.len(), "a batch");
            }
        }
    }
    let jobs = batch.into_iter().map(|target| host(fleet, deployment, &bundle, target, waker));
    for done in join_all(jobs).await {
        done?;
    }
    Ok(Flow::Again)
}

fn too_few(targets: &[Target], minimum: usize) -> String {
    let of = |status: TargetStatus| {
        let names = targets.iter().filter(|t| t.status == status).map(|t| t.id.clone());
        names.collect::<Vec<_>>()
    };
    let (failed, waiting) = (of(TargetStatus::Failed), of(TargetStatus::Pending));
    let first = targets.iter().find(|target| target.status == TargetStatus::Failed);
    let why = first.and_then(|target| {
        let event = target.events.iter().rev().find(|e| e.status == EventStatus::Failed)?;
        let message = &event.diagnostics.as_ref()?.message;
        Some(format!(" First failure, {} on {}: {message}.", event.name, target.id))
    });
    format!(
        "Going on would leave fewer than {minimum} of {} hosts healthy: failed {failed:?}, not \
         tried {waiting:?}.{}",
        targets.len(),
        why.unwrap_or_default()
    )
}

/// Each target as the arithmetic sees it.
async fn places(
    fleet: &Fleet,
    deployment: &Deployment,
    targets: &[Target],
    bundle: &Located,
) -> Result<Vec<Host>, EngineError> {
    let known = fleet.db.instances().await?;
    let path = &hosts(deployment)?.health_path;
    let group = name(deployment);
    let each = targets.iter().map(async |target| {
        let instance = known.iter().find(|instance| instance.name == target.id);
        let address = instance.and_then(|instance| instance.doc.address);
        let installed = instance.and_then(|instance| instance.doc.installed.get(&group));
        let healthy = match address {
            // One that failed is out of the traffic, whatever it answers.
            Some(address) if installed.is_some_and(|installed| installed.good) => {
                health::probe(&fleet.http, address, path).await.is_none()
            }
            _ => false,
        };
        let place = match target.status {
            TargetStatus::Succeeded => Place::Succeeded,
            TargetStatus::Failed | TargetStatus::Skipped => Place::Failed,
            TargetStatus::Pending | TargetStatus::InProgress | TargetStatus::Ready => {
                match installed {
                    _ if !healthy => Place::Unhealthy,
                    _ if fleet.agents.is_lost(&target.id) => Place::Unknown,
                    Some(now) if now.sha256 == bundle.sha256 => Place::Current,
                    _ => Place::Old,
                }
            }
        };
        Host { place, healthy }
    });
    Ok(join_all(each).await)
}

/// Takes one host through what is left of its events.
async fn host(
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

/// Ends the deployment and, where that is asked for, begins its rollback.
pub(super) async fn finish(
    fleet: &Fleet,
    deployment: &Deployment,
    end: DeploymentStatus,
    error: Option<(&str, &str)>,
) -> Result<(), EngineError> {
    let now = fleet.clock.now();
    let touched = fleet.db.targets(&deployment.id).await?.iter().any(|t| t.batch.is_some());
    let fresh = fleet.db.deployment(&deployment.id).await?;
    let deployment = fresh.as_ref().unwrap_or(deployment);
    let wanted = match end {
        DeploymentStatus::Failed => {
            deployment.settings.rollback_on.iter().any(|event| event == "DEPLOYMENT_FAILURE")
        }
        DeploymentStatus::Stopped => deployment.stop.is_some_and(|stop| stop.rollback),
        _ => false,
    };
    let (application, group) = (&deployment.application, &deployment.group);
    let good = fleet.db.last_good(application, group, &deployment.id).await?;
    match good.filter(|_| wanted && touched) {
        Some(good) => {
            end_with_rollback(fleet, ended(deployment, end, error, now), &good).await?;
        }
        None => set(fleet, &deployment.id, |d| *d = ended(d, end, error, now)).await?,
    }
    if let Err(error) = fleet.routes.sync(fleet, application, group, "finish").await {
        tracing::warn!(deployment = deployment.id, %error, "the route is told again soon");
    }
    tracing::info!(deployment = deployment.id, status = %end, "a deployment is over");
    Ok(())
}
