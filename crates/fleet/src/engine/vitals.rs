//! Whether what should serve does, and bringing back what is down.
//!
//! Every second each service is looked at: its containers in Docker, their health checks, the
//! proxy's route. What [`super::care`] decides is done beside everything else, one service at a
//! time by one task. What came of it can be asked for, and a time in which nobody was served is a
//! row, so that a reader who wasn't there at that moment still hears of it.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use pipeyard_model::{
    Timestamp,
    fleet::{
        ContainerService, HostService, ServiceDefinition, ServiceHealth, ServicePlatform,
        ServingState,
    },
};
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    task::JoinSet,
};

use super::{
    EngineError,
    care::{Care, Mend, Seen, Standing, Turn},
    docker::{Replica, ReplicaState},
    health, sets,
};
use crate::{
    deployment::{Deployment, Phase, Platform},
    fleet::Fleet,
    proxy::RouteStatus,
};

/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// What is known of every service's health. In memory; only outages are rows.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    services: Mutex<BTreeMap<String, Arc<Watched>>>,
}

#[derive(Debug, Default)]
struct Watched {
    /// Held by the one look that is under way.
    memory: Arc<AsyncMutex<Memory>>,
    latest: Mutex<Option<Latest>>,
}

impl Watched {
    /// Remembers what was seen; a state that lasts keeps its beginning.
    fn tell(&self, latest: Latest) {
        let mut known = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let since = known.as_ref().filter(|known| known.state == latest.state);
        let since = since.map_or(latest.since, |known| known.since);
        *known = Some(Latest { since, ..latest });
    }
}

#[derive(Debug, Clone)]
struct Latest {
    state: ServingState,
    since: Timestamp,
    healthy: u32,
    wanted: u32,
    reason: Option<String>,
    at: Timestamp,
}

/// What is remembered of a service between two looks.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// By deployment and place in its set.
    cares: HashMap<(String, u32), Care>,
    standing: Option<Standing>,
}

/// What one look found.
#[derive(Debug, Default)]
struct Found {
    healthy: u32,
    wanted: u32,
    /// Something runs that may answer the next time.
    runs: bool,
    wrong: Vec<String>,
    mends: Vec<Wanted>,
    /// Deployments change what serves on purpose; then nothing is called an outage.
    planned: bool,
}

impl Vitals {
    fn of(&self, name: &str) -> Arc<Watched> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(services.entry(name.to_owned()).or_default())
    }

    /// The health of a service; none before the first look at it.
    pub(crate) async fn health(
        &self,
        fleet: &Fleet,
        application: &str,
        group: &str,
    ) -> Result<Option<ServiceHealth>, crate::db::DbError> {
        let watched = self.of(&format!("{application}/{group}"));
        let latest = watched.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(latest) = latest else { return Ok(None) };
        Ok(Some(ServiceHealth {
            fleet: fleet.id.clone(),
            state: latest.state,
            since: latest.since,
            healthy: latest.healthy,
            wanted: latest.wanted,
            reason: latest.reason,
            at: latest.at,
            outages: fleet.db.outages(application, group).await?,
        }))
    }
}

/// Keeps looks at a service away for as long as it is held: somebody else makes or starts its
/// containers.
pub(super) async fn alone(
    fleet: &Fleet,
    application: &str,
    group: &str,
) -> OwnedMutexGuard<Memory> {
    let watched = fleet.vitals.of(&format!("{application}/{group}"));
    Arc::clone(&watched.memory).lock_owned().await
}

/// Looks at every service that isn't being looked at already.
pub(super) async fn look(fleet: &Arc<Fleet>, tasks: &mut JoinSet<()>) {
    let services = match fleet.db.services().await {
        Ok(services) => services,
        Err(error) => return tracing::warn!(%error, "services can't be read"),
    };
    {
        let mut watched = fleet.vitals.services.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|name, _| services.iter().any(|(a, g, _)| *name == format!("{a}/{g}")));
    }
    if services.is_empty() {
        return;
    }
    let containers = fleet.containers.list(None).await.map_err(|error| error.to_string());
    let routes = fleet.routes.all().await.map_err(|error| error.to_string());
    let (containers, routes) = (Arc::new(containers), Arc::new(routes));
    for (application, group, definition) in services {
        let name = format!("{application}/{group}");
        let watched = fleet.vitals.of(&name);
        let (fleet, containers, routes) =
            (Arc::clone(fleet), Arc::clone(&containers), Arc::clone(&routes));
        tasks.spawn(async move {
            let Ok(mut memory) = watched.memory.try_lock() else { return };
            let place = Place { fleet: &fleet, application: &application, group: &group };
            let looked = place.look(&mut memory, &definition, &containers, &routes).await;
            match looked {
                Ok((latest, mends)) => {
                    watched.tell(latest);
                    // Told before: an image may have to be fetched first.
                    place.mend_all(&mut memory, mends).await;
                }
                Err(error) => tracing::warn!(service = name, %error, "its health isn't known"),
            }
        });
    }
}

type Containers = Result<Vec<Replica>, String>;
type Routes = Result<BTreeMap<String, RouteStatus>, String>;

/// One service of one group.
struct Place<'f> {
    fleet: &'f Fleet,
    application: &'f str,
    group: &'f str,
}

impl Place<'_> {
    async fn look(
        &self,
        memory: &mut Memory,
        definition: &ServiceDefinition,
        containers: &Containers,
        routes: &Routes,
    ) -> Result<(Latest, Vec<Wanted>), EngineError> {
        let now = self.fleet.clock.now();
        let mut found = match &definition.platform {
            ServicePlatform::Container(_) => self.containers(memory, containers).await?,
            ServicePlatform::Hosts(hosts) => self.hosts(hosts).await?,
        };
        if found.wanted > 0 {
            self.way_in(&mut found, routes).await;
        }
        let reason = (!found.wrong.is_empty()).then(|| found.wrong.join("; "));
        let out = self.judge(memory, &found, reason.as_deref(), now).await?;
        let state = match (found.wanted, found.healthy) {
            (0, _) => ServingState::Nothing,
            _ if out => ServingState::Down,
            (wanted, healthy) if healthy >= wanted && reason.is_none() => ServingState::Serving,
            _ => ServingState::Impaired,
        };
        let latest = Latest {
            state,
            since: now,
            healthy: found.healthy,
            wanted: found.wanted,
            reason,
            at: now,
        };
        Ok((latest, found.mends))
    }

    /// Writes down when an outage begins and ends; says whether there is one.
    async fn judge(
        &self,
        memory: &mut Memory,
        found: &Found,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<bool, EngineError> {
        let (db, application, group) = (&self.fleet.db, self.application, self.group);
        if memory.standing.is_none() {
            let open = db.outages(application, group).await?.iter().any(|o| o.ended.is_none());
            let standing = if open { Standing::in_outage() } else { Standing::default() };
            memory.standing = Some(standing);
        }
        let standing = memory.standing.get_or_insert_default();
        if found.planned && !standing.is_out() {
            return Ok(false);
        }
        // Nothing that should serve isn't an outage, and ends one: the group was emptied.
        let answers = found.healthy > 0 || found.wanted == 0;
        match standing.look(answers, !found.runs, Instant::now()) {
            Some(Turn::Out(ago)) => {
                let reason = reason.unwrap_or("nothing answers");
                tracing::error!(service = %self.name(), reason, "users aren't served");
                db.begin_outage(application, group, now - ago, reason).await?;
            }
            Some(Turn::Back(ago)) => {
                tracing::info!(service = %self.name(), "users are served again");
                db.end_outage(application, group, now - ago).await?;
            }
            None => {}
        }
        Ok(standing.is_out())
    }

    fn name(&self) -> String {
        format!("{}/{}", self.application, self.group)
    }

    /// The way from the users: the proxy, its port, its route.
    async fn way_in(&self, found: &mut Found, routes: &Routes) {
        let wrong = match routes {
            Err(error) => Some(error.clone()),
            Ok(routes) => match routes.get(&self.name()) {
                Some(status) if status.listening => None,
                // It lost its routes, or its port: it is told again at once.
                _ => {
                    let (application, group) = (self.application, self.group);
                    let told = self.fleet.routes.sync(self.fleet, application, group, "lost").await;
                    match told {
                        Ok(status) if status.listening => None,
                        Ok(status) => {
                            Some(format!("the proxy couldn't open port {}", status.route.listen))
                        }
                        Err(error) => Some(error.to_string()),
                    }
                }
            },
        };
        if let Some(wrong) = wrong {
            found.healthy = 0;
            // A proxy that is started again is back within a second.
            found.runs = true;
            found.wrong.insert(0, wrong);
        }
    }

    async fn containers(
        &self,
        memory: &mut Memory,
        containers: &Containers,
    ) -> Result<Found, EngineError> {
        let all = match containers {
            Ok(all) => all,
            Err(error) => return self.without_docker(error).await,
        };
        let mut found = Found::default();
        let mut cares = HashMap::new();
        for set in self.sets().await? {
            let container = sets::container(&set.deployment)?;
            let own: Vec<&Replica> =
                all.iter().filter(|replica| replica.deployment == set.deployment.id).collect();
            let seen = self.see(container, &own).await;
            for (index, seen) in (0u32..).zip(&seen) {
                let key = (set.deployment.id.clone(), index);
                let mut care = memory.cares.remove(&key).unwrap_or_default();
                let slow = Duration::from_secs(u64::from(container.healthy_within));
                if let Some(mend) = care.look(seen, slow, Instant::now()) {
                    let replica = own.iter().find(|replica| replica.index == index);
                    found.mends.push(Wanted {
                        deployment: set.deployment.clone(),
                        index,
                        replica: replica.map(|replica| (*replica).clone()),
                        seen: seen.clone(),
                        mend,
                    });
                }
                if set.in_traffic {
                    found.wanted += 1;
                    found.healthy += u32::from(*seen == Seen::Healthy);
                    found.runs |= seen.runs();
                    if let Some(what) = seen.says() {
                        let tried = care.says(Instant::now());
                        let tried = tried.map_or_else(String::new, |tried| format!(" ({tried})"));
                        found.wrong.push(format!("container {index}: {what}{tried}"));
                    }
                }
                cares.insert(key, care);
            }
        }
        memory.cares = cares;
        Ok(found)
    }

    /// Does what was decided, and tells the proxy where it is now.
    async fn mend_all(&self, memory: &mut Memory, mends: Vec<Wanted>) {
        if mends.is_empty() {
            return;
        }
        for Wanted { deployment, index, replica, seen, mend } in mends {
            let done = self.mend(&deployment, replica.as_ref(), mend).await;
            let problem = done.err().map(|error| error.to_string());
            tracing::warn!(
                service = %self.name(), container = index, problem, ?mend,
                "{}", seen.says().unwrap_or_default()
            );
            let care = memory.cares.entry((deployment.id, index)).or_default();
            care.tried(&seen, problem, Instant::now());
        }
        let told = self.fleet.routes.sync(self.fleet, self.application, self.group, "mended");
        if let Err(error) = told.await {
            tracing::warn!(service = %self.name(), %error, "the proxy is told again soon");
        }
    }

    /// The sets that should run now, and whether users are sent to them.
    async fn sets(&self) -> Result<Vec<CaredSet>, EngineError> {
        let (db, application, group) = (&self.fleet.db, self.application, self.group);
        let active = db.active_in(application, group).await?;
        let except = active.as_ref().map_or("", |active| &active.id);
        let good = db.last_good(application, group, except).await?;
        let (new_weight, old_runs) = match active.as_ref().map(|active| active.phase) {
            None | Some(Phase::New | Phase::Starting | Phase::Reverting { .. }) => (None, true),
            Some(Phase::Ready { .. } | Phase::Shifting { .. } | Phase::Keeping { .. }) => {
                (active.as_ref().map(|active| active.weight), true)
            }
            // The old set is being taken away.
            Some(Phase::Retiring) => (Some(100), false),
            Some(Phase::Rolling | Phase::Done) => (None, false),
        };
        let mut sets = Vec::new();
        if let Some(good) = good.filter(|good| old_runs && good.platform == Platform::Ecs) {
            let in_traffic = new_weight.is_none_or(|weight| weight < 100);
            sets.push(CaredSet { deployment: good, in_traffic });
        }
        if let (Some(weight), Some(active)) = (new_weight, active) {
            sets.push(CaredSet { deployment: active, in_traffic: weight > 0 });
        }
        Ok(sets)
    }

    async fn see(&self, container: &ContainerService, own: &[&Replica]) -> Vec<Seen> {
        let each = (0..container.replicas).map(async |index| {
            let Some(replica) = own.iter().find(|replica| replica.index == index) else {
                return Seen::Missing;
            };
            let words = || replica.words.clone();
            match replica.state {
                ReplicaState::Created => Seen::Unstarted,
                ReplicaState::Paused => Seen::Paused,
                ReplicaState::Detached => Seen::Detached,
                ReplicaState::Restarting => Seen::Restarting(words()),
                ReplicaState::Down => Seen::Down(words()),
                ReplicaState::Running => {
                    let path = &container.health_path;
                    let answer = health::probe(&self.fleet.http, replica.address, path).await;
                    answer.map_or(Seen::Healthy, Seen::Sick)
                }
            }
        });
        join_all(each).await
    }

    async fn mend(
        &self,
        deployment: &Deployment,
        replica: Option<&Replica>,
        mend: Mend,
    ) -> Result<(), EngineError> {
        let containers = &self.fleet.containers;
        if let Some(replica) = replica {
            let done = match mend {
                Mend::Start => containers.start(&replica.id).await,
                Mend::Unpause => containers.unpause(&replica.id).await,
                Mend::Restart => containers.restart(&replica.id).await,
                Mend::Remake => {
                    containers.remove(&replica.id).await?;
                    return sets::make(self.fleet, deployment).await;
                }
            };
            let Err(error) = done else { return Ok(()) };
            // Its port may be another's by now, or its files may be gone.
            tracing::warn!(container = replica.id, %error, "made anew instead");
            containers.remove(&replica.id).await?;
        }
        sets::make(self.fleet, deployment).await
    }

    /// Docker is away. What it started may still run, so the addresses of the route are asked.
    async fn without_docker(&self, error: &str) -> Result<Found, EngineError> {
        let mut found = Found::default();
        let Some(set) = self.sets().await?.into_iter().find(|set| set.in_traffic) else {
            return Ok(found);
        };
        let path = &sets::container(&set.deployment)?.health_path;
        let told = self.fleet.db.traffic(self.application, self.group).await?;
        let arms = told.map(|(_, doc)| doc.arms).unwrap_or_default();
        let arms = arms.into_iter().filter(|arm| arm.weight > 0);
        let addresses: Vec<SocketAddr> = arms.flat_map(|arm| arm.addresses).collect();
        found.wanted = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        found.runs = true;
        found.wrong.push(format!("nothing can be brought back: {error}"));
        for wrong in self.probe(&addresses, path).await {
            match wrong {
                None => found.healthy += 1,
                Some(wrong) => found.wrong.push(wrong),
            }
        }
        Ok(found)
    }

    async fn probe(&self, addresses: &[SocketAddr], path: &str) -> Vec<Option<String>> {
        join_all(addresses.iter().map(|address| health::probe(&self.fleet.http, *address, path)))
            .await
    }

    /// Hosts are looked at; their programs are their own supervisors' to start.
    async fn hosts(&self, service: &HostService) -> Result<Found, EngineError> {
        let (db, name) = (&self.fleet.db, self.name());
        let told = db.traffic(self.application, self.group).await?;
        let arms = told.map(|(_, doc)| doc.arms).unwrap_or_default();
        let addresses: Vec<SocketAddr> = arms.into_iter().flat_map(|arm| arm.addresses).collect();
        let known = db.instances().await?;
        let mut found = Found {
            wanted: u32::try_from(addresses.len()).unwrap_or(u32::MAX),
            planned: db.active_in(self.application, self.group).await?.is_some(),
            runs: true,
            ..Found::default()
        };
        let answers = self.probe(&addresses, &service.health_path).await;
        for (address, wrong) in addresses.iter().zip(answers) {
            let host = known.iter().find(|host| {
                host.doc.address == Some(*address) && host.doc.installed.contains_key(&name)
            });
            let host = host.map_or_else(|| address.to_string(), |host| host.name.clone());
            match wrong {
                None => found.healthy += 1,
                Some(wrong) => found.wrong.push(format!(
                    "host {host}: {wrong}; start its program there, or deploy again"
                )),
            }
        }
        Ok(found)
    }
}

/// A container that should be brought back.
#[derive(Debug)]
struct Wanted {
    deployment: Deployment,
    index: u32,
    replica: Option<Replica>,
    seen: Seen,
    mend: Mend,
}

/// A set that should run.
struct CaredSet {
    deployment: Deployment,
    in_traffic: bool,
}
