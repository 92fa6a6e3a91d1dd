//! One service in the proxy: its arms, their counters, and the table that requests are read from.
//!
//! A request takes the table once and keeps it, so a change never touches a request in flight:
//! it ends at the address at which it began.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use pipeyard_model::fleet::LatencyHistogram;

use super::{
    backend::Backend,
    route::{ArmRole, ArmStatus, Route, RouteStatus},
    select::{Turn, slots},
};

/// What one arm counts. Lives as long as the route has an arm of its id.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    at_change: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) in_flight: AtomicU64,
    latency: Vec<AtomicU64>,
    latency_sum: AtomicU64,
}

impl Counters {
    fn new() -> Self {
        Self {
            requests: AtomicU64::new(0),
            at_change: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            latency: (0..LatencyHistogram::BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            latency_sum: AtomicU64::new(0),
        }
    }

    pub(super) fn observe(&self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency[LatencyHistogram::index(us)].fetch_add(1, Ordering::Relaxed);
        self.latency_sum.fetch_add(us, Ordering::Relaxed);
    }

    fn status(&self, id: &str) -> ArmStatus {
        let counts: Vec<u64> = self.latency.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        let requests = self.requests.load(Ordering::Relaxed);
        ArmStatus {
            id: id.to_owned(),
            requests,
            requests_since_change: requests - self.at_change.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            latency: LatencyHistogram::from_counts(
                &counts,
                self.latency_sum.load(Ordering::Relaxed),
            ),
        }
    }
}

/// One arm as requests see it.
#[derive(Debug)]
pub(super) struct Arm {
    pub(super) role: ArmRole,
    pub(super) weight: u8,
    pub(super) counters: Arc<Counters>,
    backends: Vec<Arc<Backend>>,
    next: AtomicUsize,
}

impl Arm {
    /// The arm's addresses, beginning with the one whose turn it is; those that refused a
    /// connection a moment ago come last.
    pub(super) fn candidates(&self) -> Vec<Arc<Backend>> {
        let count = self.backends.len();
        if count == 0 {
            return Vec::new();
        }
        let first = self.next.fetch_add(1, Ordering::Relaxed) % count;
        let turn = self.backends[first..].iter().chain(&self.backends[..first]);
        let (shunned, mut good): (Vec<_>, Vec<_>) = turn.cloned().partition(|b| b.is_shunned());
        good.extend(shunned);
        good
    }
}

/// An immutable picture of the route.
#[derive(Debug)]
pub(super) struct Table {
    route: Route,
    pub(super) arms: Vec<Arm>,
    slots: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Service {
    table: RwLock<Arc<Table>>,
    turn: Turn,
    backends: Mutex<HashMap<SocketAddr, Arc<Backend>>>,
}

impl Service {
    pub(super) fn new(route: Route) -> Self {
        let empty = Table { route: route.clone(), arms: Vec::new(), slots: Vec::new() };
        let service = Self {
            table: RwLock::new(Arc::new(empty)),
            turn: Turn::default(),
            backends: Mutex::default(),
        };
        service.apply(route);
        service
    }

    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn route(&self) -> Route {
        self.table().route.clone()
    }

    /// Gives the next request to an arm and counts it there.
    pub(super) fn next_arm(&self, table: &Table) -> Option<usize> {
        let index = self.turn.next(&table.slots)?;
        table.arms[index].counters.requests.fetch_add(1, Ordering::Relaxed);
        Some(index)
    }

    /// Serves `route` from the next request on.
    pub(super) fn apply(&self, route: Route) {
        let old = self.table();
        let weights = |route: &Route| -> Vec<(String, u8)> {
            route.arms.iter().map(|arm| (arm.id.clone(), arm.weight)).collect()
        };
        let reweighed = weights(&old.route) != weights(&route);
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        let arms = route.arms.iter().map(|arm| {
            let known = old.route.arms.iter().position(|other| other.id == arm.id);
            let known = known.and_then(|i| old.arms.get(i)).map(|a| Arc::clone(&a.counters));
            let counters = known.unwrap_or_else(|| Arc::new(Counters::new()));
            if reweighed {
                let now = counters.requests.load(Ordering::Relaxed);
                counters.at_change.store(now, Ordering::Relaxed);
            }
            let addresses = arm.addresses.iter().map(|address| {
                let backend = backends.entry(*address);
                Arc::clone(backend.or_insert_with(|| Arc::new(Backend::new(*address))))
            });
            Arm {
                role: arm.role,
                weight: arm.weight,
                counters,
                backends: addresses.collect(),
                next: AtomicUsize::new(0),
            }
        });
        let arms: Vec<Arm> = arms.collect();
        backends.retain(|address, backend| {
            route.arms.iter().any(|arm| arm.addresses.contains(address))
                || backend.in_flight.load(Ordering::Relaxed) > 0
        });
        let slots = slots(&route.arms.iter().map(|arm| arm.weight).collect::<Vec<_>>());
        let table = Arc::new(Table { route, arms, slots });
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    pub(super) fn status(&self, boot: &str, listening: bool) -> RouteStatus {
        let table = self.table();
        let arms = table.route.arms.iter().zip(&table.arms);
        let backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        let in_flight = backends.iter().filter_map(|(address, backend)| {
            let count = backend.in_flight.load(Ordering::Relaxed);
            (count > 0).then_some((*address, count))
        });
        RouteStatus {
            boot: boot.to_owned(),
            listening,
            arms: arms.map(|(arm, live)| live.counters.status(&arm.id)).collect(),
            in_flight: in_flight.collect::<BTreeMap<_, _>>(),
            route: table.route.clone(),
        }
    }
}
