//! Networks. Making and removing one costs more than a third of a second, and Docker's own address
//! pools end at about the thirtieth, so none is made for a single job.
//!
//! Jobs without services share one network on which containers can't reach each other. A job with
//! services borrows one of a bounded number of small networks and gives it back. All of them lie in
//! an address range of our own, are labelled, and stay for the next process of the installation.
//!
//! Invariant: a network is lent to one job at a time, and lent again only when it is empty.

use std::sync::Arc;

use bollard::{
    Docker,
    models::{Ipam, IpamConfig, NetworkCreateRequest},
    query_parameters::{InspectNetworkOptions, ListNetworksOptions},
};
use pipeyard_model::InstallationId;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::{
    egress::BRIDGE,
    fault::{self, Fault},
    labels,
    subnet::Subnet,
};

/// Room for 253 jobs.
const SHARED_PREFIX: u8 = 24;
/// Room for thirteen containers: the job, a step's own container and eleven services.
const LENT_PREFIX: u8 = 28;
/// The most services of one job.
pub(crate) const MAX_SERVICES: usize = 11;
/// How many subnets are tried when others take them at the same time.
const TRIES: usize = 40;

const KIND: &str = "pipeyard.network";
const SHARED: &str = "shared";
const LENT: &str = "lent";

#[derive(Debug)]
pub(crate) struct Networks {
    docker: Docker,
    installation: InstallationId,
    range: Subnet,
    slots: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    shared: Option<String>,
    /// Empty, as far as we know.
    free: Vec<String>,
    /// Given back while something of the job may still be there.
    doubtful: Vec<String>,
}

/// A network that belongs to one job. Give it back; a dropped one is lost until the next start.
#[derive(Debug)]
#[must_use = "give it back"]
pub(crate) struct Lent {
    pub(crate) id: String,
    _turn: Turn,
}

/// The right to borrow one network.
#[derive(Debug)]
pub(crate) struct Turn(
    #[expect(dead_code, reason = "it counts while it lives")] OwnedSemaphorePermit,
);

impl Networks {
    /// Takes over what an earlier process of the installation made.
    pub(crate) async fn adopt(
        docker: Docker,
        installation: InstallationId,
        range: Subnet,
        limit: usize,
    ) -> Result<Self, Fault> {
        let mut state = State::default();
        for network in list(&docker, Some(installation)).await? {
            match network.kind.as_str() {
                SHARED if state.shared.is_none() => state.shared = Some(network.id),
                LENT => state.doubtful.push(network.id),
                _ => {}
            }
        }
        let slots = Arc::new(Semaphore::new(limit));
        Ok(Self { docker, installation, range, slots, state: Mutex::new(state) })
    }

    /// The network of the jobs without services. It is looked at each time: `docker network prune`
    /// removes it whenever no job runs.
    pub(crate) async fn shared(&self) -> Result<String, Fault> {
        let mut state = self.state.lock().await;
        if let Some(id) = &state.shared
            && self.containers(id).await?.is_some()
        {
            return Ok(id.clone());
        }
        let id = self.make(SHARED, SHARED_PREFIX).await?;
        state.shared = Some(id.clone());
        Ok(id)
    }

    /// Whether the networks' bridges are here: their daemon may live in another network namespace.
    pub(crate) async fn are_here(&self) -> Result<bool, Fault> {
        let id = self.shared().await?;
        let network = self
            .docker
            .inspect_network(&id, None::<InspectNetworkOptions>)
            .await
            .map_err(|error| Fault::of("inspect a network", &error))?;
        let named = network
            .options
            .and_then(|mut options| options.remove("com.docker.network.bridge.name"));
        let bridge = named.unwrap_or_else(|| format!("br-{}", id.get(..12).unwrap_or(&id)));
        Ok(std::path::Path::new("/sys/class/net").join(bridge).exists())
    }

    /// Whether any installation has a network here.
    pub(crate) async fn any(docker: &Docker) -> Result<bool, Fault> {
        Ok(list(docker, None).await?.iter().any(|network| !network.kind.is_empty()))
    }

    /// Waits for the right to borrow a network. May be dropped at any time.
    pub(crate) async fn turn(&self) -> Result<Turn, Fault> {
        let closed = |_| Fault::new("internal", "the pool of networks is closed");
        Arc::clone(&self.slots).acquire_owned().await.map(Turn).map_err(closed)
    }

    /// An empty network for one job. Must not be dropped half-way: it may be making one.
    pub(crate) async fn lend(&self, turn: Turn) -> Result<Lent, Fault> {
        let mut state = self.state.lock().await;
        let State { free, doubtful, .. } = &mut *state;
        for id in std::mem::take(doubtful) {
            match self.containers(&id).await {
                Ok(Some(0)) => free.push(id),
                Ok(Some(_)) | Err(_) => doubtful.push(id),
                Ok(None) => {}
            }
        }
        while let Some(id) = free.pop() {
            match self.containers(&id).await? {
                Some(0) => return Ok(Lent { id, _turn: turn }),
                Some(_) => doubtful.push(id),
                None => {}
            }
        }
        let id = self.make(LENT, LENT_PREFIX).await?;
        Ok(Lent { id, _turn: turn })
    }

    /// Takes a network back. `is_empty`: every container of the job is known to be gone.
    pub(crate) async fn give_back(&self, lent: Lent, is_empty: bool) {
        let mut state = self.state.lock().await;
        let Lent { id, _turn } = lent;
        if is_empty { state.free.push(id) } else { state.doubtful.push(id) }
    }

    /// Removes every network of the installation that is empty.
    pub(crate) async fn remove_all(&self) -> Result<usize, Fault> {
        let mut state = self.state.lock().await;
        *state = State::default();
        let mut removed = 0;
        for network in list(&self.docker, Some(self.installation)).await? {
            if self.docker.remove_network(&network.id).await.is_ok() {
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// How many containers are on the network; `None` if it doesn't exist.
    async fn containers(&self, id: &str) -> Result<Option<usize>, Fault> {
        match self.docker.inspect_network(id, None::<InspectNetworkOptions>).await {
            Ok(network) => Ok(Some(network.containers.unwrap_or_default().len())),
            Err(error) if fault::status(&error) == Some(404) => Ok(None),
            Err(error) => Err(Fault::of("inspect a network", &error)),
        }
    }

    async fn make(&self, kind: &'static str, prefix: u8) -> Result<String, Fault> {
        if let Some(id) = self.try_make(kind, prefix).await? {
            return Ok(id);
        }
        // Installations that came and went, such as demos and tests, have left theirs behind.
        let reclaimed = self.reclaim().await?;
        tracing::warn!(networks.count = reclaimed, "the address range was used up");
        self.try_make(kind, prefix).await?.ok_or_else(|| {
            let message = format!(
                "No free subnet is left in {}: remove unused networks with `docker network prune`, \
                 or give the runner another range.",
                self.range
            );
            Fault::new("networks_exhausted", message)
        })
    }

    /// `None` when no subnet is free.
    async fn try_make(&self, kind: &'static str, prefix: u8) -> Result<Option<String>, Fault> {
        let used: Vec<Subnet> =
            list(&self.docker, None).await?.into_iter().flat_map(|found| found.subnets).collect();
        for subnet in self.range.free_parts(prefix, &used).take(TRIES) {
            match self.docker.create_network(self.request(kind, subnet)).await {
                Ok(made) => return Ok(Some(made.id)),
                Err(error) if is_taken(&error) => {}
                Err(error) => return Err(Fault::of("make a network", &error)),
            }
        }
        Ok(None)
    }

    /// Removes other installations' networks in our range that nothing is on. One that lives makes its own again.
    async fn reclaim(&self) -> Result<usize, Fault> {
        let mut removed = 0;
        for network in list(&self.docker, None).await? {
            let is_anothers =
                !network.kind.is_empty() && network.installation != Some(self.installation);
            let is_in_the_way = network.subnets.iter().any(|subnet| subnet.overlaps(self.range));
            // Docker refuses to remove a network that a container is on.
            if is_anothers && is_in_the_way && self.docker.remove_network(&network.id).await.is_ok()
            {
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn request(&self, kind: &'static str, subnet: Subnet) -> NetworkCreateRequest {
        let short = self.installation.0.simple().to_string();
        let place = subnet.to_string().replace(['.', '/'], "-");
        let reachable = if kind == SHARED { "false" } else { "true" };
        // A name by which the packet filter knows our bridges.
        let bridge = format!("{BRIDGE}{}", &uuid::Uuid::new_v4().simple().to_string()[..10]);
        let options = [
            ("com.docker.network.bridge.enable_icc", reachable.to_owned()),
            ("com.docker.network.bridge.name", bridge),
        ];
        let mut labels = labels::installation(self.installation);
        labels.insert(KIND.to_owned(), kind.to_owned());
        let config = IpamConfig { subnet: Some(subnet.to_string()), ..IpamConfig::default() };
        NetworkCreateRequest {
            name: format!("pipeyard-{kind}-{}-{place}", &short[20..]),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam { config: Some(vec![config]), ..Ipam::default() }),
            options: Some(options.map(|(name, value)| (name.to_owned(), value)).into()),
            labels: Some(labels),
            ..NetworkCreateRequest::default()
        }
    }
}

fn is_taken(error: &bollard::errors::Error) -> bool {
    let words = error.to_string();
    words.contains("overlap") || words.contains("already exists")
}

struct Found {
    id: String,
    installation: Option<InstallationId>,
    kind: String,
    subnets: Vec<Subnet>,
}

async fn list(docker: &Docker, installation: Option<InstallationId>) -> Result<Vec<Found>, Fault> {
    let filters = installation.map(labels::filter);
    let options = ListNetworksOptions { filters };
    let found = docker
        .list_networks(Some(options))
        .await
        .map_err(|error| Fault::of("list networks", &error))?;
    let describe = |network: bollard::models::Network| {
        let mut all = network.labels.unwrap_or_default();
        let configs = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
        Found {
            id: network.id.unwrap_or_default(),
            installation: all.get(labels::INSTALLATION).and_then(|id| id.parse().ok()),
            kind: all.remove(KIND).unwrap_or_default(),
            subnets: configs.into_iter().filter_map(|config| config.subnet?.parse().ok()).collect(),
        }
    };
    Ok(found.into_iter().map(describe).collect())
}
