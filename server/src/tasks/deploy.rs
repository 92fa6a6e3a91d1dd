//! Moves deployments: one pass looks at every place (a service in an environment) and does what
//! each deployment's state asks for.
//!
//! The rows are the only memory. What is done at the provider may be done twice, but for the
//! creation, which follows decision 11: the intent is stored first, a lost answer is looked for by
//! its token, and it is asked again only when the token is proven absent. Killing this task at any
//! moment loses and doubles nothing.
//!
//! One pass at a time works on a place; places don't wait for each other.

mod back;
mod carry;
mod commits;
mod judging;
mod place;
mod plan;
mod start;
#[cfg(test)]
mod tests;
mod trouble;
mod watch;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pipeyard_model::{
    Actor, AttemptId, Conclusion, DeploymentId, EnvironmentName, ServiceName, Who,
    deployment::{Event, Purpose, Reason, Release},
    environment::Verdict,
    origin::may_deploy,
};
use pipeyard_store::{
    StoreResult,
    deployments::{Change, NewDeployment, Stored},
    runs::ReadyDeploy,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{AppState, gate};

/// Between two passes while a deployment is under way.
const TICK: Duration = Duration::from_secs(1);
/// Between two passes while none is.
const IDLE: Duration = Duration::from_secs(5);
/// Commits that come close together make one pass.
const GATHER: Duration = Duration::from_millis(100);
/// Deploys that one pass takes in.
const BATCH: u32 = 50;

/// A service in an environment.
type Place = (EnvironmentName, ServiceName);

/// Runs until `shutdown`.
pub async fn run(state: AppState, shutdown: CancellationToken) {
    let busy: Arc<Mutex<HashSet<Place>>> = Arc::default();
    let places = TaskTracker::new();
    let mut commits = state.store.wake();
    while !shutdown.is_cancelled() {
        let open = match gather(&state).await {
            Ok(open) => open,
            Err(error) => {
                tracing::warn!(error = %error, "deployments can't be read");
                BTreeMap::new()
            }
        };
        let pause = if open.is_empty() { IDLE } else { TICK };
        for (place, deployments) in open {
            if !busy.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone()) {
                continue;
            }
            let (state, busy, stop) = (state.clone(), Arc::clone(&busy), shutdown.clone());
            places.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = drive(&state, deployments) => {}
                }
                busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&place);
            });
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = state.wake.deploy.notified() => {}
            () = tokio::time::sleep(pause) => {}
            // A job's end may make a deploy ready. Our own commits come back here too: while a
            // deployment is under way the timer is enough.
            Ok(()) = commits.changed(), if pause == IDLE => {
                tokio::time::sleep(GATHER).await;
            }
        }
        commits.mark_unchanged();
    }
    places.close();
    places.wait().await;
}

/// One pass over everything, one place after another.
///
/// # Errors
/// When the store can't be read.
pub async fn run_once(state: &AppState) -> StoreResult<()> {
    for (_, deployments) in gather(state).await? {
        drive(state, deployments).await;
    }
    Ok(())
}

async fn drive(state: &AppState, deployments: Vec<Stored>) {
    if let Err(error) = place::drive(state, deployments).await {
        // Somebody else moved a row: the next pass sees it.
        if !error.is_stale() {
            tracing::warn!(error = %error, "a deployment could not be moved on; it is tried again");
        }
    }
}

/// Takes in ready deploys and cancelled ones, and answers what isn't over, by place.
async fn gather(state: &AppState) -> StoreResult<BTreeMap<Place, Vec<Stored>>> {
    // One that can't be moved must not stand in the way of the others.
    for ready in state.store.ready_deploys(BATCH).await? {
        let job = ready.job;
        if let Err(error) = take_in(state, ready).await {
            tracing::warn!(job.id = %job, error = %error, "a deploy can't be taken in; it is tried again");
        }
    }
    for (_, deployment) in state.store.cancelled_deploys(BATCH).await? {
        if let Err(error) = cancel(state, DeploymentId(deployment)).await {
            tracing::warn!(deployment.id = deployment, error = %error, "a deployment can't be cancelled; it is tried again");
        }
    }
    let mut places: BTreeMap<Place, Vec<Stored>> = BTreeMap::new();
    for stored in state.store.open_deployments().await? {
        let d = &stored.deployment;
        places.entry((d.environment.clone(), d.service.clone())).or_default().push(stored);
    }
    Ok(places)
}

async fn take_in(state: &AppState, ready: ReadyDeploy) -> StoreResult<()> {
    let now = state.clock.now();
    if let Err((conclusion, reason)) = may_deploy(&ready.origin, ready.overtaken) {
        tracing::info!(job.id = %ready.job, code = reason.code, "a deploy isn't taken in");
        let reason = Some((reason.code, reason.message));
        return state.store.deploy_finished(ready.job, conclusion, reason, now).await;
    }
    match admit(state, &ready).await? {
        Err(reason) => {
            tracing::info!(job.id = %ready.job, code = reason.code, "a deploy can't be started");
            let reason = Some((reason.code, reason.message));
            state.store.deploy_finished(ready.job, Conclusion::Error, reason, now).await
        }
        Ok((release, verdict)) => {
            let spec = ready.spec;
            let waits = verdict.approvals.waits();
            let new = NewDeployment {
                environment: spec.environment,
                service: spec.service,
                purpose: Purpose::Ship,
                release,
                strategy: spec.strategy,
                limits: spec.healthy_when,
                otherwise: spec.otherwise,
                job: Some((ready.job, ready.attempt)),
                requested_by: ready.author,
                needs_approval: waits.is_some(),
                asks_approval: spec.approve,
                waits: waits.or(verdict.frozen.map(|frozen| frozen.reason)),
                comment: None,
                by: Actor::of(Who::Attempt(AttemptId { job: ready.job, epoch: ready.attempt })),
            };
            let deployment = state.store.create_deployment(new, now).await?;
            tracing::info!(deployment.id = %deployment.id, run.id = %ready.run, "a deployment is asked for");
            Ok(())
        }
    }
}

/// What the deploy ships, and how the environment's rules stand to it; otherwise why there won't be a
/// deployment. Whether the environment takes it is asked before anything else.
async fn admit(
    state: &AppState,
    ready: &ReadyDeploy,
) -> StoreResult<Result<(Release, Verdict), Reason>> {
    let environment = &ready.spec.environment;
    let Some(facts) = gate::facts(state, environment, ready.run).await? else {
        return Ok(Err(plan::no_service(environment, &ready.spec.service)));
    };
    let verdict = facts.verdict(state, environment, ready.spec.approve, &[]);
    if let Err(reason) = &verdict.taken {
        return Ok(Err(reason.clone()));
    }
    Ok(plan::release(state, ready).await?.map(|release| (release, verdict)))
}

/// A person cancelled the run.
async fn cancel(state: &AppState, id: DeploymentId) -> StoreResult<()> {
    let Some(stored) = state.store.deployment(id).await? else { return Ok(()) };
    if matches!(stored.deployment.state, pipeyard_model::deployment::State::RollingBack(..)) {
        return Ok(());
    }
    let now = state.clock.now();
    let comment = Some("its run was cancelled".to_owned());
    let by = "pipeyard".to_owned();
    // Refused: too late, all traffic goes to it already.
    let Ok(applied) = stored.deployment.apply(Event::Aborted { by, comment }, now) else {
        return Ok(());
    };
    if applied.entries.is_empty() {
        return Ok(());
    }
    match state.store.change_deployment(Change::of(applied), now).await {
        Err(pipeyard_store::StoreError::Conflict { code: "stale_deployment", .. }) => Ok(()),
        other => other,
    }
}
