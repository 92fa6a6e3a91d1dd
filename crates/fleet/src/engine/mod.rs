//! The engine: drives every active deployment from where its row says it is.
//!
//! A deployment has one task. It reads the row, does the next thing, writes the row, and so on;
//! each thing may be repeated, so a kill at any moment costs at most a repetition. What Docker,
//! the proxy and the hosts have is looked at again instead of remembered. Every second each service
//! is looked at, and what is down of a set that should run is brought back. Every ten seconds the
//! engine compares the whole: containers that nobody owns are removed, and the proxy is told again
//! what it should have.

mod batch;
mod bluegreen;
mod care;
mod docker;
mod health;
mod host;
mod reconcile;
mod rolling;
mod routes;
mod sets;
mod vitals;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use pipeyard_model::Timestamp;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub(crate) use docker::{Containers, DockerError};
pub(crate) use routes::Routes;
pub(crate) use vitals::Vitals;

use crate::{
    bundles::{BundleError, locate, repack},
    db::{Changed, Created, DbError},
    deployment::{
        Creator, Deployment, DeploymentStatus, ErrorInformation, Phase, Platform, Proceed,
        RollbackInfo, mint_id,
    },
    fleet::Fleet,
    proxy::ProxyError,
};

/// How long a part of the surroundings may fail until the deployment does.
const PATIENCE: Duration = Duration::from_secs(300);
const RECONCILE: Duration = Duration::from_secs(10);

/// Why the next thing couldn't be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the group has no service definition any more")]
    NoService,
}

impl EngineError {
    /// CodeDeploy's code if trying again can't help.
    fn permanent(&self) -> Option<&'static str> {
        match self {
            Self::Bundle(BundleError::Missing { .. } | BundleError::Changed { .. }) => {
                Some("REVISION_MISSING")
            }
            Self::Bundle(BundleError::Damaged { .. } | BundleError::Archive(_)) => {
                Some("INVALID_REVISION")
            }
            Self::Docker(DockerError::Permanent(_)) => Some("CUSTOMER_APPLICATION_UNHEALTHY"),
            Self::NoService => Some("DEPLOYMENT_GROUP_MISSING"),
            Self::Db(_) | Self::Docker(_) | Self::Proxy(_) | Self::Bundle(_) | Self::Io(_) => None,
        }
    }
}

/// What a step of a deployment leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// The row changed: look again.
    Again,
    /// Nothing to do before this time, or before somebody says something.
    Until(Timestamp),
}

enum Message {
    Start(String),
    Retire(String, String),
}

/// Where the API tells the engine.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    sender: mpsc::UnboundedSender<Message>,
    wakers: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
}

/// The engine's end of it.
pub(crate) struct Orders(mpsc::UnboundedReceiver<Message>);

impl Engine {
    pub(crate) fn new() -> (Self, Orders) {
        // Bounded by the number of groups: a group has one active deployment.
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, wakers: Arc::default() }, Orders(receiver))
    }

    /// A deployment was created.
    pub(crate) fn start(&self, id: &str) {
        let _ = self.sender.send(Message::Start(id.to_owned()));
    }

    /// A group was deleted: its port closes and its containers go.
    pub(crate) fn retire_group(&self, application: &str, group: &str) {
        let message = Message::Retire(application.to_owned(), group.to_owned());
        let _ = self.sender.send(message);
    }

    /// A deployment was told something.
    pub(crate) fn wake(&self, id: &str) {
        let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waker) = wakers.get(id) {
            waker.notify_one();
        }
    }

    /// Some command ended.
    pub(crate) fn wake_all(&self) {
        let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        for waker in wakers.values() {
            waker.notify_waiters();
            waker.notify_one();
        }
    }

    fn waker(&self, id: &str) -> Arc<Notify> {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(wakers.entry(id.to_owned()).or_default())
    }

    fn forget(&self, id: &str) {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// Drives deployments until `shutdown`; then everything stops where it is.
pub(crate) async fn run(fleet: Arc<Fleet>, mut orders: Orders, shutdown: CancellationToken) {
    let mut drivers = JoinSet::new();
    match fleet.db.active_ids().await {
        Ok(ids) => {
            for id in ids {
                drivers.spawn(drive(Arc::clone(&fleet), id));
            }
        }
        Err(error) => tracing::error!(%error, "active deployments can't be read"),
    }
    let one = Arc::new(AsyncMutex::new(()));
    let mut broom = tokio::time::interval(Duration::from_secs(3_600));
    let mut tick = tokio::time::interval(RECONCILE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    drivers.spawn(watch(Arc::clone(&fleet), shutdown.clone()));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            message = orders.0.recv() => match message {
                Some(Message::Start(id)) => {
                    drivers.spawn(drive(Arc::clone(&fleet), id));
                }
                Some(Message::Retire(application, group)) => {
                    let (fleet, one) = (Arc::clone(&fleet), Arc::clone(&one));
                    drivers.spawn(async move {
                        let removed = fleet.routes.remove(&fleet, &application, &group).await;
                        if let Err(error) = removed {
                            tracing::warn!(application, group, %error, "a route stays for now");
                        }
                        let _one = one.lock_owned().await;
                        reconcile::compare(&fleet).await;
                    });
                }
                None => break,
            },
            _ = tick.tick() => {
                // Beside the loop, so that a container that ends slowly delays no deployment.
                if let Ok(one) = Arc::clone(&one).try_lock_owned() {
                    let fleet = Arc::clone(&fleet);
                    drivers.spawn(async move {
                        reconcile::compare(&fleet).await;
                        drop(one);
                    });
                }
            }
            _ = broom.tick() => {
                if let Err(error) = reconcile::sweep(&fleet).await {
                    tracing::warn!(%error, "old bundles can't be removed");
                }
            }
            Some(_) = drivers.join_next() => {}
        }
    }
    drivers.shutdown().await;
}

/// Looks at every service each second. A look that takes long, say because an image must be fetched,
/// holds up its own service only.
async fn watch(fleet: Arc<Fleet>, shutdown: CancellationToken) {
    let mut looks = JoinSet::new();
    let mut tick = tokio::time::interval(vitals::LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = tick.tick() => vitals::look(&fleet, &mut looks).await,
        }
        while looks.try_join_next().is_some() {}
    }
    looks.shutdown().await;
}

async fn drive(fleet: Arc<Fleet>, id: String) {
    let waker = fleet.engine.waker(&id);
    let mut trouble: Option<Instant> = None;
    loop {
        let deployment = match fleet.db.deployment(&id).await {
            Ok(Some(deployment)) if deployment.status.is_active() => deployment,
            Ok(_) => break,
            Err(error) => {
                tracing::error!(deployment = id, %error, "a deployment can't be read");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let advanced = match deployment.platform {
            Platform::Ecs => bluegreen::advance(&fleet, &deployment, &waker).await,
            Platform::Server => rolling::advance(&fleet, &deployment, &waker).await,
        };
        let error = match advanced {
            Ok(Flow::Again) => {
                trouble = None;
                continue;
            }
            Ok(Flow::Until(time)) => {
                trouble = None;
                // Looks again at least every two seconds: what runs may have changed.
                let wait = time.since(fleet.clock.now()).min(Duration::from_secs(2));
                let _ = tokio::time::timeout(wait, waker.notified()).await;
                continue;
            }
            Err(error) => error,
        };
        let since = *trouble.get_or_insert_with(Instant::now);
        tracing::warn!(deployment = id, phase = ?deployment.phase, %error, "will try again");
        let code = error.permanent();
        if let Some(code) =
            code.or_else(|| (since.elapsed() > PATIENCE).then_some("INTERNAL_ERROR"))
        {
            if let Err(error) = fail(&fleet, &deployment, code, &error.to_string()).await {
                tracing::error!(deployment = id, %error, "a failure can't be written down");
            }
            trouble = None;
        }
        let pause = Duration::from_secs(since.elapsed().as_secs().clamp(1, 10));
        let _ = tokio::time::timeout(pause, waker.notified()).await;
    }
    fleet.engine.forget(&id);
}

/// Turns a deployment towards its failed end. One that is on its way back already stays on it:
/// traffic must return whatever fails.
async fn fail(
    fleet: &Fleet,
    deployment: &Deployment,
    code: &str,
    message: &str,
) -> Result<(), EngineError> {
    if matches!(deployment.phase, Phase::Reverting { .. } | Phase::Retiring) {
        return Ok(());
    }
    match deployment.platform {
        Platform::Ecs => {
            let end = DeploymentStatus::Failed;
            bluegreen::revert(fleet, deployment, end, Some((code, message))).await
        }
        Platform::Server => {
            let error = Some((code, message));
            rolling::finish(fleet, deployment, DeploymentStatus::Failed, error).await
        }
    }
}

/// Writes a change of the deployment's row.
async fn set(
    fleet: &Fleet,
    id: &str,
    change: impl FnOnce(&mut Deployment),
) -> Result<(), EngineError> {
    let changed = fleet.db.change(id, |deployment| {
        change(deployment);
        Changed::Write(())
    });
    changed.await?;
    Ok(())
}

fn ended(
    deployment: &Deployment,
    status: DeploymentStatus,
    error: Option<(&str, &str)>,
    now: Timestamp,
) -> Deployment {
    let mut ended = deployment.clone();
    ended.status = status;
    ended.phase = Phase::Done;
    ended.completed = Some(now);
    if let Some((code, message)) = error {
        ended.error = Some(ErrorInformation { code: code.to_owned(), message: message.to_owned() });
    }
    ended
}

/// The deployment that brings the version before back. Its own failure brings nothing back again.
fn rollback_of(ended: &Deployment, good: &Deployment, now: Timestamp) -> Deployment {
    let info = RollbackInfo {
        rollback_deployment_id: None,
        rollback_triggering_deployment_id: Some(ended.id.clone()),
        rollback_message: Some(format!("rolls {} back to the revision of {}", ended.id, good.id)),
    };
    let mut settings = good.settings.clone();
    settings.rollback_on = Vec::new();
    settings.tags.clone_from(&ended.settings.tags);
    Deployment {
        id: mint_id(),
        status: DeploymentStatus::Created,
        created: now,
        started: None,
        completed: None,
        description: ended
            .description
            .clone()
            .map(|text| format!("Rollback of {}. {text}", ended.id).chars().take(256).collect()),
        creator: Creator::CodeDeployRollback,
        config: ended.config.clone(),
        revision: good.revision.clone(),
        previous_revision: Some(ended.revision.clone()),
        settings,
        phase: Phase::New,
        stop: None,
        proceed: Proceed::default(),
        error: None,
        rollback: Some(info),
        weight: 0,
        weight_since: now,
        weight_epoch: 0,
        ..ended.clone()
    }
}

/// Ends a deployment, and in the same transaction begins its rollback.
async fn end_with_rollback(
    fleet: &Fleet,
    mut ended: Deployment,
    good: &Deployment,
) -> Result<(), EngineError> {
    let new = rollback_of(&ended, good, fleet.clock.now());
    ended.rollback = Some(RollbackInfo {
        rollback_deployment_id: Some(new.id.clone()),
        rollback_triggering_deployment_id: None,
        rollback_message: Some(format!("rolled back to the revision of {} by {}", good.id, new.id)),
    });
    match fleet.db.create_deployment(&new, None, Some(&ended)).await? {
        Created::New => fleet.engine.start(&new.id),
        Created::Again(id) | Created::Busy(id) => {
            tracing::error!(deployment = ended.id, by = id, "the group wasn't free for a rollback");
        }
    }
    Ok(())
}

/// Unpacks a revision's bundle for containers; the file lives as long as the handle.
async fn unpacked(
    fleet: &Fleet,
    deployment: &Deployment,
) -> Result<(String, tempfile::NamedTempFile), EngineError> {
    let located = locate(fleet, &deployment.revision).await?;
    let path = located.path.clone();
    let packed = tokio::task::spawn_blocking(move || -> Result<_, BundleError> {
        let file = tempfile::NamedTempFile::new()?;
        repack(&path, file.reopen()?)?;
        Ok(file)
    });
    let file = packed.await.map_err(std::io::Error::other)??;
    Ok((located.sha256, file))
}
