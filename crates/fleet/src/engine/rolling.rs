//! Hosts: batch after batch, in place, each host through the lifecycle of its AppSpec.
//!
//! A host leaves the traffic before its first event and comes back after its health check. The
//! batches follow [`super::batch`], so there are never fewer healthy hosts than the minimum as
//! long as nothing else takes one away. An agent that falls silent fails its host within ten
//! seconds; a host that is on its way finishes it, or fails, before the deployment ends.

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::{
    EngineError, Flow,
    batch::{self, Host, Next, Place},
    end_with_rollback, ended, health, host, set,
};
use crate::{
    aws::{Minimum, Plan, lookup, matches_all},
    bundles::{Located, locate},
    db::Instance,
    deployment::{Deployment, DeploymentStatus, EventStatus, Phase, Target, TargetStatus},
    fleet::Fleet,
};

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
    let jobs = batch.into_iter().map(|target| host::run(fleet, deployment, &bundle, target, waker));
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
    let path = &host::hosts(deployment)?.health_path;
    let group = host::name(deployment);
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
