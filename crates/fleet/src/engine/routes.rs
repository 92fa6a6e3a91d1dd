//! What the proxy should serve, derived from the database and from what runs.
//!
//! Nobody says "set the weight to 10": a weight is written to the deployment, and the route is
//! derived again under the group's lock. So a late or repeated call can only bring the proxy to
//! what the database says. The route is a row before the proxy hears of it, and the row's number
//! is the epoch that fences an older one out.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use pipeyard_model::fleet::ServicePlatform;
use tokio::sync::Mutex as AsyncMutex;

use super::{EngineError, docker::ReplicaState};
use crate::{
    aws::matches_all,
    db::TrafficDoc,
    deployment::{Phase, TargetStatus},
    fleet::Fleet,
    proxy::{ArmRole, ProxyClient, ProxyError, Refusal, Route, RouteArm, RouteStatus},
};

/// Requests that took the old table a moment ago may not be counted yet.
const GRACE: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub(crate) struct Routes {
    proxy: ProxyClient,
    locks: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
}

fn route(version: i64, doc: &TrafficDoc) -> Route {
    let epoch = u64::try_from(version).unwrap_or(0);
    Route { epoch, listen: doc.listen, arms: doc.arms.clone() }
}

impl Routes {
    pub(crate) fn new(proxy: ProxyClient) -> Self {
        Self { proxy, locks: Mutex::default() }
    }

    fn lock(&self, name: &str) -> Arc<AsyncMutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(name.to_owned()).or_default())
    }

    pub(crate) async fn status(
        &self,
        application: &str,
        group: &str,
    ) -> Result<Option<RouteStatus>, ProxyError> {
        self.proxy.get(&format!("{application}/{group}")).await
    }

    /// What the proxy serves, by name of the service.
    pub(super) async fn all(&self) -> Result<BTreeMap<String, RouteStatus>, ProxyError> {
        self.proxy.all().await
    }

    /// Brings the proxy to what the database says. Does nothing if it is there already.
    pub(crate) async fn sync(
        &self,
        fleet: &Fleet,
        application: &str,
        group: &str,
        reason: &str,
    ) -> Result<RouteStatus, EngineError> {
        let name = format!("{application}/{group}");
        let lock = self.lock(&name);
        let _one = lock.lock().await;
        let mut after = 0;
        for _ in 0..3 {
            let wanted = desired(fleet, application, group, reason).await?;
            let told = fleet.db.traffic(application, group).await?;
            let mut version = 0;
            if let Some((last, doc)) = told
                && (doc.listen, &doc.arms) == (wanted.listen, &wanted.arms)
                && last > after
            {
                let present = self.proxy.get(&name).await?;
                match present {
                    Some(status) if status.route == route(last, &doc) => return Ok(status),
                    // It doesn't know yet: the same row is told again.
                    Some(status) if status.route.epoch < route(last, &doc).epoch => version = last,
                    None => version = last,
                    Some(_) => {}
                }
            }
            let now = fleet.clock.now();
            if version == 0 {
                version = fleet.db.write_traffic(application, group, &wanted, after, now).await?;
            }
            match self.proxy.put(&name, &route(version, &wanted)).await {
                Ok(status) => {
                    fleet.db.traffic_applied(version, fleet.clock.now()).await?;
                    return Ok(status);
                }
                // The proxy outlived this database; what it says comes from the same hand.
                Err(ProxyError::Refused(Refusal::StaleEpoch { current })) => {
                    after = i64::try_from(current).unwrap_or(i64::MAX);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(ProxyError::Refused(Refusal::StaleEpoch { current: 0 }).into())
    }

    /// Closes a group's port.
    pub(crate) async fn remove(
        &self,
        fleet: &Fleet,
        application: &str,
        group: &str,
    ) -> Result<(), EngineError> {
        let name = format!("{application}/{group}");
        let lock = self.lock(&name);
        let _one = lock.lock().await;
        if fleet.db.service(application, group).await?.is_none() {
            self.proxy.remove(&name, u64::MAX).await?;
        }
        Ok(())
    }

    /// Waits until no request is in flight to these addresses, at most `within`.
    pub(super) async fn drained(
        &self,
        application: &str,
        group: &str,
        addresses: &[SocketAddr],
        within: Duration,
    ) -> Result<bool, EngineError> {
        let began = Instant::now();
        tokio::time::sleep(GRACE).await;
        loop {
            let status = self.status(application, group).await?;
            let busy = status.is_some_and(|status| {
                status.in_flight.keys().any(|address| addresses.contains(address))
            });
            if !busy || began.elapsed() > within {
                return Ok(!busy);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The route as it should be now.
async fn desired(
    fleet: &Fleet,
    application: &str,
    group: &str,
    reason: &str,
) -> Result<TrafficDoc, EngineError> {
    let definition = fleet.db.service(application, group).await?.ok_or(EngineError::NoService)?;
    let arms = match definition.platform {
        ServicePlatform::Container(_) => container_arms(fleet, application, group).await?,
        ServicePlatform::Hosts(_) => host_arms(fleet, application, group).await?,
    };
    Ok(TrafficDoc { listen: definition.listen, arms, reason: reason.to_owned() })
}

async fn container_arms(
    fleet: &Fleet,
    application: &str,
    group: &str,
) -> Result<Vec<RouteArm>, EngineError> {
    let service = format!("{application}/{group}");
    let running = fleet.containers.list(None).await?;
    let addresses = |deployment: &str| -> Vec<SocketAddr> {
        let own = running.iter().filter(|replica| {
            replica.service == service
                && replica.deployment == deployment
                && replica.state != ReplicaState::Created
        });
        own.map(|replica| replica.address).collect()
    };
    let active = fleet.db.active_in(application, group).await?;
    let except = active.as_ref().map_or("", |active| &active.id);
    let good = fleet.db.last_good(application, group, except).await?;
    let stable = good.map(|good| (addresses(&good.id), good.id));
    let stable = stable.filter(|(addresses, _)| !addresses.is_empty());
    let canary = active.and_then(|active| {
        let weight = match active.phase {
            Phase::Ready { .. } | Phase::Shifting { .. } | Phase::Keeping { .. } => active.weight,
            Phase::Retiring => 100,
            Phase::New
            | Phase::Starting
            | Phase::Reverting { .. }
            | Phase::Rolling
            | Phase::Done => return None,
        };
        let alone = active.phase == Phase::Retiring;
        Some((addresses(&active.id), active.id, weight, alone))
    });
    let arm = |id: String, role, weight, addresses| RouteArm { id, role, weight, addresses };
    Ok(match (stable, canary) {
        (None, None) => Vec::new(),
        (Some((addresses, id)), None) => vec![arm(id, ArmRole::Stable, 100, addresses)],
        (_, Some((addresses, id, _, true))) | (None, Some((addresses, id, _, false))) => {
            vec![arm(id, ArmRole::Stable, 100, addresses)]
        }
        (Some((old, old_id)), Some((new, id, weight, false))) => vec![
            arm(old_id, ArmRole::Stable, 100 - weight, old),
            arm(id, ArmRole::Canary, weight, new),
        ],
    })
}

async fn host_arms(
    fleet: &Fleet,
    application: &str,
    group: &str,
) -> Result<Vec<RouteArm>, EngineError> {
    let active = fleet.db.active_in(application, group).await?;
    let settings = match &active {
        Some(active) => Some(active.settings.clone()),
        None => fleet.db.last_attempted(application, group).await?.map(|d| d.settings),
    };
    let Some(settings) = settings else { return Ok(Vec::new()) };
    let at_work: Vec<String> = match &active {
        Some(active) => {
            let targets = fleet.db.targets(&active.id).await?;
            let busy = targets.into_iter().filter(|t| t.status == TargetStatus::InProgress);
            busy.map(|target| target.id).collect()
        }
        None => Vec::new(),
    };
    let name = format!("{application}/{group}");
    let hosts = fleet.db.instances().await?.into_iter().filter(|host| {
        host.deregistered.is_none()
            && matches_all(&settings.tags, &host.tags)
            && host.doc.installed.get(&name).is_some_and(|installed| installed.good)
            && !at_work.contains(&host.name)
    });
    let addresses: Vec<SocketAddr> = hosts.filter_map(|host| host.doc.address).collect();
    let role = ArmRole::Stable;
    Ok(vec![RouteArm { id: "hosts".into(), role, weight: 100, addresses }])
}
