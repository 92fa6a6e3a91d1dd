//! Sets of containers: making one, waiting until it is healthy, taking one out of the world.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use pipeyard_model::fleet::{ContainerService, ServicePlatform};
use tokio::sync::Notify;

use super::{
    EngineError,
    docker::{Replica, ReplicaState, Set},
    health, unpacked,
};
use crate::{
    deployment::{Deployment, Diagnostics, LifecycleErrorCode},
    fleet::Fleet,
};

/// A container that Docker restarted so often is in a loop.
const CRASHES: i64 = 3;
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn container(deployment: &Deployment) -> Result<&ContainerService, EngineError> {
    match &deployment.settings.service.platform {
        ServicePlatform::Container(container) => Ok(container),
        ServicePlatform::Hosts(_) => Err(EngineError::NoService),
    }
}

pub(super) fn service(deployment: &Deployment) -> String {
    format!("{}/{}", deployment.application, deployment.group)
}

/// Makes what is missing of the deployment's set. May be repeated.
pub(super) async fn make(fleet: &Fleet, deployment: &Deployment) -> Result<(), EngineError> {
    let (sha256, tar) = unpacked(fleet, deployment).await?;
    let service = service(deployment);
    let set = Set {
        deployment: &deployment.id,
        service: &service,
        container: container(deployment)?,
        sha256: &sha256,
        tar: tar.path(),
    };
    Ok(fleet.containers.ensure(set).await?)
}

pub(super) enum Start {
    Healthy,
    Sick(Diagnostics),
    Stopped,
}

/// Waits until every container answered its health check twice in a row.
pub(super) async fn become_healthy(
    fleet: &Fleet,
    deployment: &Deployment,
    container: &ContainerService,
    waker: &Notify,
) -> Result<Start, EngineError> {
    let limit = Duration::from_secs(u64::from(container.healthy_within));
    let began = Instant::now();
    let count = usize::try_from(container.replicas).unwrap_or(usize::MAX);
    let mut good = vec![0u32; count];
    loop {
        let set = fleet.containers.list(Some(&deployment.id)).await?;
        let mut reason = (set.len() < count).then(|| "a container is gone".to_owned());
        let mut culprit = None;
        for replica in &set {
            let Some(good) = usize::try_from(replica.index).ok().and_then(|i| good.get_mut(i))
            else {
                continue;
            };
            let path = &container.health_path;
            match health::probe(&fleet.http, replica.address, path).await {
                None => *good += 1,
                Some(why) => {
                    *good = 0;
                    reason = Some(format!("container {}: {why}", replica.index));
                    culprit = Some(replica.id.clone());
                    let (restarts, code) = fleet.containers.restarts(&replica.id).await?;
                    if restarts >= CRASHES {
                        let code = code.unwrap_or_default();
                        let text = format!(
                            "container {} was restarted {restarts} times, last exit code {code}",
                            replica.index
                        );
                        return Ok(Start::Sick(sick(fleet, replica, text).await));
                    }
                }
            }
        }
        if reason.is_none() && good.iter().all(|good| *good >= 2) {
            return Ok(Start::Healthy);
        }
        if began.elapsed() > limit {
            let reason = reason.unwrap_or_else(|| "not steady".to_owned());
            let text = format!("not healthy within {} s: {reason}", limit.as_secs());
            let replica = culprit.and_then(|id| set.iter().find(|r| r.id == id));
            return Ok(Start::Sick(match replica {
                Some(replica) => sick(fleet, replica, text).await,
                None => Diagnostics::new(LifecycleErrorCode::UnknownError, text),
            }));
        }
        let _ = tokio::time::timeout(LOOK, waker.notified()).await;
        let fresh = fleet.db.deployment(&deployment.id).await?;
        if fresh.is_none_or(|fresh| fresh.stop.is_some()) {
            return Ok(Start::Stopped);
        }
    }
}

/// Waits until every container of a set that served before answers its health check; otherwise says
/// what the last of them did instead.
pub(super) async fn answers(
    fleet: &Fleet,
    deployment: &Deployment,
) -> Result<Option<String>, EngineError> {
    let container = container(deployment)?;
    let limit = Duration::from_secs(u64::from(container.healthy_within));
    let began = Instant::now();
    loop {
        let set = fleet.containers.list(Some(&deployment.id)).await?;
        let mut wrong = (set.len() < usize::try_from(container.replicas).unwrap_or(usize::MAX))
            .then(|| "a container is gone".to_owned());
        for replica in &set {
            if let Some(why) =
                health::probe(&fleet.http, replica.address, &container.health_path).await
            {
                wrong = Some(format!("container {}: {why}", replica.index));
            }
        }
        if wrong.is_none() || began.elapsed() > limit {
            return Ok(wrong);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn sick(fleet: &Fleet, replica: &Replica, text: String) -> Diagnostics {
    let mut diagnostics = Diagnostics::new(LifecycleErrorCode::UnknownError, text);
    diagnostics.log_tail = fleet.containers.log_tail(&replica.id).await;
    diagnostics
}

pub(super) async fn old_set(
    fleet: &Fleet,
    deployment: &Deployment,
) -> Result<Vec<Replica>, EngineError> {
    let service = service(deployment);
    let all = fleet.containers.list(None).await?;
    let old = all.into_iter().filter(|replica| {
        replica.service == service
            && replica.deployment != deployment.id
            && replica.state != ReplicaState::Created
    });
    Ok(old.collect())
}

/// Takes a set out of the world, after its requests ended.
pub(super) async fn remove(
    fleet: &Fleet,
    deployment: &Deployment,
    set: &[Replica],
    name: &str,
) -> Result<(), EngineError> {
    let addresses: Vec<_> = set.iter().map(|replica| replica.address).collect();
    let within = Duration::from_secs(u64::from(container(deployment)?.drain_within));
    let (application, group) = (&deployment.application, &deployment.group);
    let detail = format!("{} containers", set.len());
    let step = fleet.db.begin_step(&deployment.id, None, name, &detail, fleet.clock.now()).await?;
    let drained = if set.is_empty() {
        true
    } else {
        fleet.routes.drained(application, group, &addresses, within).await?
    };
    try_join_all(set.iter().map(|replica| fleet.containers.retire(&replica.id))).await?;
    let outcome = if drained { "removed" } else { "removed with requests in flight" };
    fleet.db.end_step(step, outcome, fleet.clock.now()).await?;
    Ok(())
}
