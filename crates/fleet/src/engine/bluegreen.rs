//! Container services: a new set beside the old one, traffic in steps, then one of them goes.
//!
//! `New -> Starting -> (Ready) -> Shifting -> (Keeping) -> Retiring -> Succeeded`, and from
//! everywhere before `Retiring` by `Reverting` to `Stopped` or `Failed`. The old set keeps its
//! containers until `Retiring`, so going back is a change of weights and takes no start.

use std::time::Duration;

use tokio::sync::Notify;

use super::{
    EngineError, Flow,
    docker::ReplicaState,
    ended, set,
    sets::{self, Start},
    vitals,
};
use crate::{
    aws::{Plan, Shift, lookup},
    deployment::{Deployment, DeploymentStatus, Diagnostics, Phase, Target, TargetStatus, TaskSet},
    fleet::Fleet,
};

pub(super) async fn advance(
    fleet: &Fleet,
    deployment: &Deployment,
    waker: &Notify,
) -> Result<Flow, EngineError> {
    let (id, now) = (&deployment.id, fleet.clock.now());
    if deployment.stop.is_some()
        && !matches!(deployment.phase, Phase::Reverting { .. } | Phase::Retiring)
    {
        let why = ("MANUAL_STOP", "stopped on request; the old version has all traffic");
        revert(fleet, deployment, DeploymentStatus::Stopped, Some(why)).await?;
        return Ok(Flow::Again);
    }
    if let Some(phase) = sooner(fleet, deployment).await? {
        set(fleet, id, |d| d.phase = phase).await?;
        return Ok(Flow::Again);
    }
    match deployment.phase {
        Phase::New | Phase::Rolling => {
            set(fleet, id, |d| {
                d.status = DeploymentStatus::InProgress;
                d.started = d.started.or(Some(now));
                d.phase = Phase::Starting;
            })
            .await?;
            Ok(Flow::Again)
        }
        Phase::Starting => start(fleet, deployment, waker).await,
        Phase::Ready { until } => ready(fleet, deployment, until).await,
        Phase::Shifting { step, until } => {
            if now < until {
                watch(fleet, deployment).await?;
                return Ok(Flow::Until(until));
            }
            shift(fleet, deployment, step).await
        }
        Phase::Keeping { until } => {
            if now < until && !deployment.proceed.termination {
                watch(fleet, deployment).await?;
                return Ok(Flow::Until(until));
            }
            set(fleet, id, |d| d.phase = Phase::Retiring).await?;
            Ok(Flow::Again)
        }
        Phase::Retiring => retire(fleet, deployment).await,
        Phase::Reverting { end } => back(fleet, deployment, end).await,
        Phase::Done => Ok(Flow::Again),
    }
}

/// The same phase with a nearer end, if its end is further away than it can be: the clock was set back
/// since it was written.
async fn sooner(fleet: &Fleet, deployment: &Deployment) -> Result<Option<Phase>, EngineError> {
    let now = fleet.clock.now();
    let minutes = |minutes: u32| Duration::from_secs(u64::from(minutes) * 60);
    let (until, most) = match deployment.phase {
        Phase::Ready { until } => (until, minutes(deployment.settings.ready_minutes.unwrap_or(0))),
        Phase::Keeping { until } => (until, minutes(deployment.settings.termination_minutes)),
        Phase::Shifting { step, until } => {
            let before = step.checked_sub(1);
            let shift = match lookup(&fleet.db, &deployment.config).await? {
                Some(Plan::Ecs(shift)) => shift,
                _ => Shift::AllAtOnce,
            };
            let wait = before.and_then(|before| shift.step(before)).map(|(_, wait)| wait);
            (until, wait.unwrap_or_default())
        }
        _ => return Ok(None),
    };
    let end = now + most;
    Ok((until > end).then_some(match deployment.phase {
        Phase::Ready { .. } => Phase::Ready { until: end },
        Phase::Keeping { .. } => Phase::Keeping { until: end },
        Phase::Shifting { step, .. } => Phase::Shifting { step, until: end },
        phase => phase,
    }))
}

/// Turns round. The weight goes to zero with the phase, so that no derived route has it.
pub(super) async fn revert(
    fleet: &Fleet,
    deployment: &Deployment,
    end: DeploymentStatus,
    error: Option<(&str, &str)>,
) -> Result<(), EngineError> {
    let now = fleet.clock.now();
    let error = error.map(|(code, message)| crate::deployment::ErrorInformation {
        code: code.to_owned(),
        message: message.to_owned(),
    });
    set(fleet, &deployment.id, |d| {
        d.status = DeploymentStatus::InProgress;
        d.phase = Phase::Reverting { end };
        d.weight = 0;
        d.weight_since = now;
        d.error = error;
    })
    .await
}

async fn start(
    fleet: &Fleet,
    deployment: &Deployment,
    waker: &Notify,
) -> Result<Flow, EngineError> {
    let container = sets::container(deployment)?;
    let id = deployment.id.as_str();
    note(fleet, deployment, |target, now| {
        target.status = TargetStatus::InProgress;
        target.event("Install").begin(now);
    })
    .await?;
    let detail = format!("{} containers of {}", container.replicas, container.image);
    let step = fleet.db.begin_step(id, None, "start", &detail, fleet.clock.now()).await?;
    let made = sets::make(fleet, deployment).await;
    if let Err(error) = &made {
        fleet.db.end_step(step, &error.to_string(), fleet.clock.now()).await?;
    }
    made?;
    let healthy = sets::become_healthy(fleet, deployment, container, waker).await?;
    let outcome = match &healthy {
        Start::Healthy => "healthy".to_owned(),
        Start::Stopped => "stopped".to_owned(),
        Start::Sick(diagnostics) => diagnostics.message.clone(),
    };
    fleet.db.end_step(step, &outcome, fleet.clock.now()).await?;
    match healthy {
        Start::Stopped => return Ok(Flow::Again),
        Start::Sick(diagnostics) => {
            let text = diagnostics.message.clone();
            note(fleet, deployment, |target, now| {
                target.event("Install").finish(now, diagnostics);
            })
            .await?;
            let why = Some(("CUSTOMER_APPLICATION_UNHEALTHY", text.as_str()));
            revert(fleet, deployment, DeploymentStatus::Failed, why).await?;
            return Ok(Flow::Again);
        }
        Start::Healthy => {}
    }
    note(fleet, deployment, |target, now| {
        let text = format!("{} containers are healthy", container.replicas);
        target.event("Install").finish(now, Diagnostics::success(text));
    })
    .await?;
    let old = sets::old_set(fleet, deployment).await?;
    let now = fleet.clock.now();
    let phase = match deployment.settings.ready_minutes {
        _ if old.is_empty() => Phase::Retiring,
        Some(minutes) => Phase::Ready { until: now + Duration::from_secs(u64::from(minutes) * 60) },
        None => Phase::Shifting { step: 0, until: now },
    };
    let ready = matches!(phase, Phase::Ready { .. });
    if ready {
        note(fleet, deployment, |target, _| target.status = TargetStatus::Ready).await?;
    }
    set(fleet, id, |d| {
        d.phase = phase;
        if ready {
            d.status = DeploymentStatus::Ready;
        }
        if phase == Phase::Retiring {
            d.weight = 100;
        }
        d.weight_since = now;
    })
    .await?;
    Ok(Flow::Again)
}

async fn ready(
    fleet: &Fleet,
    deployment: &Deployment,
    until: pipeyard_model::Timestamp,
) -> Result<Flow, EngineError> {
    sync(fleet, deployment, "ready").await?;
    let now = fleet.clock.now();
    if deployment.proceed.ready {
        set(fleet, &deployment.id, |d| {
            d.status = DeploymentStatus::InProgress;
            d.phase = Phase::Shifting { step: 0, until: now };
        })
        .await?;
        return Ok(Flow::Again);
    }
    if now >= until {
        let why = ("TIMEOUT", "nobody continued the deployment in time; the old version serves");
        revert(fleet, deployment, DeploymentStatus::Stopped, Some(why)).await?;
        return Ok(Flow::Again);
    }
    watch(fleet, deployment).await?;
    Ok(Flow::Until(until))
}

/// Serves step `step` of the configuration's shift, never less than was served before.
async fn shift(fleet: &Fleet, deployment: &Deployment, step: u32) -> Result<Flow, EngineError> {
    let plan = match lookup(&fleet.db, &deployment.config).await? {
        Some(Plan::Ecs(shift)) => shift,
        _ => Shift::AllAtOnce,
    };
    // A set that waited for a word may have died meanwhile.
    if step == 0
        && let Some(why) = sets::answers(fleet, deployment).await?
    {
        let text = format!("the new version doesn't answer any more: {why}");
        let why = Some(("CUSTOMER_APPLICATION_UNHEALTHY", text.as_str()));
        revert(fleet, deployment, DeploymentStatus::Failed, why).await?;
        return Ok(Flow::Again);
    }
    let now = fleet.clock.now();
    let Some((weight, wait)) = plan.step(step) else {
        let minutes = u64::from(deployment.settings.termination_minutes);
        let until = now + Duration::from_secs(minutes * 60);
        let phase = if minutes == 0 { Phase::Retiring } else { Phase::Keeping { until } };
        set(fleet, &deployment.id, |d| d.phase = phase).await?;
        return Ok(Flow::Again);
    };
    note(fleet, deployment, |target, now| {
        target.status = TargetStatus::InProgress;
        if target.event("AllowTraffic").started.is_none() {
            target.event("AllowTraffic").begin(now);
        }
    })
    .await?;
    let weight = weight.max(deployment.weight);
    let detail = format!("{weight} %");
    let row = fleet.db.begin_step(&deployment.id, None, "shift", &detail, now).await?;
    // Written first: whoever derives the route from now on derives this weight.
    set(fleet, &deployment.id, |d| {
        if d.stop.is_none() && d.weight != weight {
            d.weight = weight;
            d.weight_since = now;
        }
    })
    .await?;
    sync(fleet, deployment, "shift").await?;
    fleet.db.end_step(row, "served", fleet.clock.now()).await?;
    let until = fleet.clock.now() + wait;
    set(fleet, &deployment.id, |d| d.phase = Phase::Shifting { step: step + 1, until }).await?;
    Ok(Flow::Again)
}

async fn sync(fleet: &Fleet, deployment: &Deployment, reason: &str) -> Result<(), EngineError> {
    let (application, group) = (&deployment.application, &deployment.group);
    fleet.routes.sync(fleet, application, group, reason).await?;
    Ok(())
}

async fn retire(fleet: &Fleet, deployment: &Deployment) -> Result<Flow, EngineError> {
    sync(fleet, deployment, "retire").await?;
    let old = sets::old_set(fleet, deployment).await?;
    sets::remove(fleet, deployment, &old, "retire").await?;
    note(fleet, deployment, |target, now| {
        target.status = TargetStatus::Succeeded;
        if target.event("AllowTraffic").started.is_none() {
            target.event("AllowTraffic").begin(now);
        }
        target.event("AllowTraffic").finish(now, Diagnostics::success("100 % of the traffic"));
    })
    .await?;
    finish(fleet, deployment, DeploymentStatus::Succeeded).await
}

async fn back(
    fleet: &Fleet,
    deployment: &Deployment,
    end: DeploymentStatus,
) -> Result<Flow, EngineError> {
    sync(fleet, deployment, "revert").await?;
    restore(fleet, deployment).await?;
    let new = fleet.containers.list(Some(&deployment.id)).await?;
    sets::remove(fleet, deployment, &new, "revert").await?;
    note(fleet, deployment, |target, _| {
        target.status = match end {
            DeploymentStatus::Stopped => TargetStatus::Skipped,
            _ => TargetStatus::Failed,
        };
    })
    .await?;
    finish(fleet, deployment, end).await
}

/// The old set may have been stopped or have died meanwhile: it is brought back, and only what
/// answers its health check is called restored.
async fn restore(fleet: &Fleet, deployment: &Deployment) -> Result<(), EngineError> {
    let (application, group) = (&deployment.application, &deployment.group);
    let Some(good) = fleet.db.last_good(application, group, &deployment.id).await? else {
        return Ok(());
    };
    let step =
        fleet.db.begin_step(&deployment.id, None, "restore", &good.id, fleet.clock.now()).await?;
    let made = {
        let _alone = vitals::alone(fleet, application, group).await;
        sets::make(fleet, &good).await
    };
    let answer = match made {
        Ok(()) => {
            sync(fleet, deployment, "restore").await?;
            sets::answers(fleet, &good).await?
        }
        Err(error) if error.permanent().is_some() => Some(error.to_string()),
        Err(error) => return Err(error),
    };
    let outcome = answer.clone().unwrap_or_else(|| "healthy".to_owned());
    fleet.db.end_step(step, &outcome, fleet.clock.now()).await?;
    if let Some(why) = answer {
        tracing::error!(deployment = deployment.id, why, "the old version doesn't answer");
        set(fleet, &deployment.id, |d| {
            let told = d.error.take();
            let code = told.as_ref().map_or("CUSTOMER_APPLICATION_UNHEALTHY", |e| &e.code);
            let before = told.as_ref().map_or("", |e| &e.message);
            let message = format!("{before}. The old version doesn't serve: {why}")
                .trim_start_matches(". ")
                .to_owned();
            d.error = Some(crate::deployment::ErrorInformation { code: code.to_owned(), message });
        })
        .await?;
    }
    Ok(())
}

async fn finish(
    fleet: &Fleet,
    deployment: &Deployment,
    end: DeploymentStatus,
) -> Result<Flow, EngineError> {
    let now = fleet.clock.now();
    set(fleet, &deployment.id, |d| *d = ended(d, end, None, now)).await?;
    // The arm changes its part only: the same containers, the same counters.
    if let Err(error) = sync(fleet, deployment, "finish").await {
        tracing::warn!(deployment = deployment.id, %error, "the route is told again soon");
    }
    tracing::info!(deployment = deployment.id, status = %end, "a deployment is over");
    Ok(Flow::Again)
}

/// Keeps the target's picture of both sets fresh.
async fn watch(fleet: &Fleet, deployment: &Deployment) -> Result<(), EngineError> {
    note(fleet, deployment, |_, _| {}).await
}

/// Changes the deployment's one target and writes it if it differs.
async fn note(
    fleet: &Fleet,
    deployment: &Deployment,
    change: impl FnOnce(&mut Target, pipeyard_model::Timestamp),
) -> Result<(), EngineError> {
    let id = format!("{}:{}", deployment.application, deployment.group);
    let now = fleet.clock.now();
    let mut targets = fleet.db.targets(&deployment.id).await?;
    let before = targets.pop();
    let mut target = before.clone().unwrap_or_else(|| Target::new(&id, now));
    change(&mut target, now);
    let weight = fleet.db.deployment(&deployment.id).await?.map_or(0, |d| d.weight);
    let service = sets::service(deployment);
    let all = fleet.containers.list(None).await?;
    let mut sets: Vec<TaskSet> = Vec::new();
    for replica in all.iter().filter(|replica| replica.service == service) {
        let green = replica.deployment == deployment.id;
        let place = sets.iter().position(|set| set.id == replica.deployment);
        let index = place.unwrap_or_else(|| {
            let weight = if green { weight } else { 100 - weight };
            let id = replica.deployment.clone();
            sets.push(TaskSet { id, green, desired: 0, running: 0, weight });
            sets.len() - 1
        });
        sets[index].desired += 1;
        sets[index].running += u32::from(replica.state == ReplicaState::Running);
    }
    target.sets = sets;
    if before.as_ref() != Some(&target) {
        target.updated = now;
        fleet.db.put_target(&deployment.id, &target).await?;
    }
    Ok(())
}
