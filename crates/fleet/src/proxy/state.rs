//! All services of the proxy, their listeners, and the file that outlives a restart.
//!
//! A change is checked, its port is opened, it is written to disk, and only then served: what the
//! proxy acknowledged it still serves after a kill.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pipeyard_listen::{Places, places::Held};
use tokio::{net::TcpListener, sync::Mutex as AsyncMutex};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    forward::{forward, peer_ip},
    route::{Refusal, Route, RouteStatus},
    service::Service,
};
use crate::files::{set_aside, write_atomically};

/// Connections at one port. One more takes the place of the one that has been idle for longest.
const CONNECTIONS: usize = 4_096;
/// For a whole request header, and for a connection that is idle.
const HEADER: Duration = Duration::from_secs(60);

pub(super) struct State {
    host: IpAddr,
    file: PathBuf,
    boot: String,
    open: Mutex<BTreeMap<String, Open>>,
    /// Held while a change is on its way, so that changes happen one after another.
    changing: AsyncMutex<()>,
    shutdown: CancellationToken,
    pub(super) connections: TaskTracker,
}

struct Open {
    service: Arc<Service>,
    port: u16,
    /// Ends the listener; none while its port couldn't be opened.
    listener: Option<CancellationToken>,
}

/// The routes in a file, if it is one and each of them can be served.
fn read_routes(bytes: &[u8]) -> Result<BTreeMap<String, Route>, String> {
    let routes: BTreeMap<String, Route> = serde_json::from_slice(bytes)
        .map_err(|error| format!("it isn't a file of routes: {error}"))?;
    for (name, route) in &routes {
        route.check().map_err(|problem| format!("the route of {name}: {problem}"))?;
    }
    Ok(routes)
}

impl State {
    /// Reads the routes of the last time; a file that can't be read is set aside. A port that can't be opened yet is tried again every
    /// second; the others serve at once.
    pub(super) async fn load(
        host: IpAddr,
        file: PathBuf,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let routes = match tokio::fs::read(&file).await {
            Ok(bytes) => read_routes(&bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error.to_string()),
        };
        // The fleet knows all routes and tells them within seconds; without a proxy nobody is served.
        let routes = routes.unwrap_or_else(|problem| {
            set_aside(&file, &problem);
            BTreeMap::new()
        });
        let open = routes.into_iter().map(|(name, route)| {
            let port = route.listen;
            (name, Open { service: Arc::new(Service::new(route)), port, listener: None })
        });
        let state = Arc::new(Self {
            host,
            file,
            boot: uuid::Uuid::now_v7().simple().to_string(),
            open: Mutex::new(open.collect()),
            changing: AsyncMutex::default(),
            shutdown,
            connections: TaskTracker::new(),
        });
        state.open_missing().await;
        state
    }

    /// Opens the ports that are not open yet; says whether all are.
    pub(super) async fn open_missing(&self) -> bool {
        let _one = self.changing.lock().await;
        let closed: Vec<(String, u16)> = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let closed = open.iter().filter(|(_, o)| o.listener.is_none());
            closed.map(|(name, o)| (name.clone(), o.port)).collect()
        };
        let mut all = true;
        for (name, port) in closed {
            match TcpListener::bind((self.host, port)).await {
                Ok(listener) => self.with(&name, |open| {
                    open.listener = Some(self.serve(listener, &open.service));
                }),
                Err(error) => {
                    all = false;
                    tracing::warn!(service = name, port, %error, "the port can't be opened yet");
                }
            }
        }
        all
    }

    fn with(&self, name: &str, change: impl FnOnce(&mut Open)) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.get_mut(name) {
            change(open);
        }
    }

    pub(super) async fn put(&self, name: &str, route: Route) -> Result<RouteStatus, Refusal> {
        route.check().map_err(|message| Refusal::Invalid { message })?;
        let _one = self.changing.lock().await;
        let present = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.get(name).map(|o| (o.service.route(), o.listener.is_some()))
        };
        if let Some((now, _)) = &present
            && (now.epoch > route.epoch || (now.epoch == route.epoch && *now != route))
        {
            return Err(Refusal::StaleEpoch { current: now.epoch });
        }
        let listens = present.is_some_and(|(now, open)| open && now.listen == route.listen);
        let listener = if listens {
            None
        } else {
            let bound = TcpListener::bind((self.host, route.listen)).await;
            let port = route.listen;
            Some(bound.map_err(|error| Refusal::Port { port, message: error.to_string() })?)
        };
        self.keep(name, Some(&route)).await?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let port = route.listen;
        let entry = open.entry(name.to_owned()).or_insert_with(|| Open {
            service: Arc::new(Service::new(route.clone())),
            port,
            listener: None,
        });
        entry.service.apply(route);
        if let Some(listener) = listener {
            entry.port = port;
            let new = self.serve(listener, &entry.service);
            if let Some(old) = entry.listener.replace(new) {
                old.cancel();
            }
        }
        Ok(entry.service.status(&self.boot, entry.listener.is_some()))
    }

    pub(super) async fn remove(&self, name: &str, epoch: u64) -> Result<(), Refusal> {
        let _one = self.changing.lock().await;
        let current = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.get(name).ok_or(Refusal::Unknown)?.service.route().epoch
        };
        if current > epoch {
            return Err(Refusal::StaleEpoch { current });
        }
        self.keep(name, None).await?;
        let removed = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(listener) = removed.and_then(|open| open.listener) {
            listener.cancel();
        }
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<RouteStatus> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(name).map(|o| o.service.status(&self.boot, o.listener.is_some()))
    }

    pub(super) fn all(&self) -> BTreeMap<String, RouteStatus> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let each = open.iter();
        each.map(|(name, o)| (name.clone(), o.service.status(&self.boot, o.listener.is_some())))
            .collect()
    }

    /// Writes all routes with one replaced.
    async fn keep(&self, name: &str, route: Option<&Route>) -> Result<(), Refusal> {
        let mut routes: BTreeMap<String, Route> = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.iter().map(|(name, o)| (name.clone(), o.service.route())).collect()
        };
        match route {
            Some(route) => routes.insert(name.to_owned(), route.clone()),
            None => routes.remove(name),
        };
        let disk = |message: String| Refusal::Disk { message };
        let bytes = serde_json::to_vec_pretty(&routes).map_err(|error| disk(error.to_string()))?;
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || write_atomically(&file, &bytes, 0o600));
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(disk(error.to_string())),
            Err(error) => Err(disk(error.to_string())),
        }
    }

    /// Accepts connections until the returned token is cancelled. Connections go on after that;
    /// they end with the client, or with the proxy's shutdown.
    fn serve(&self, listener: TcpListener, service: &Arc<Service>) -> CancellationToken {
        let stop = self.shutdown.child_token();
        let (token, all, service) = (stop.clone(), self.shutdown.clone(), Arc::clone(service));
        let tracker = self.connections.clone();
        // Clients may all come by one address: the limit by address is that of all.
        let total = CONNECTIONS.min(pipeyard_listen::raise_open_files() / 4).max(64);
        let places = Places::new(total, total);
        self.connections.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = token.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let (stream, peer) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file descriptors, mostly: wait until connections end.
                        tracing::warn!(%error, "a connection can't be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                };
                let Some(guest) = places.admit(peer) else {
                    tracing::warn!(%peer, "a client was turned away: all connections are in use");
                    continue;
                };
                let _ = stream.set_nodelay(true);
                let (service, all) = (Arc::clone(&service), all.clone());
                tracker.spawn(async move {
                    let handler = service_fn(|request| {
                        let (service, busy) = (Arc::clone(&service), guest.busy());
                        async move {
                            let response = forward(&service, peer_ip(peer), request).await;
                            let held = response.map(|body| Held::new(body, busy));
                            Ok::<_, std::convert::Infallible>(held)
                        }
                    });
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEADER)
                        .serve_connection(TokioIo::new(stream), handler)
                        .with_upgrades();
                    tokio::pin!(connection);
                    let ended = tokio::select! {
                        ended = connection.as_mut() => ended,
                        () = all.cancelled() => {
                            connection.as_mut().graceful_shutdown();
                            connection.await
                        }
                        () = guest.gives_way() => {
                            if !guest.has_asked() {
                                return;
                            }
                            connection.as_mut().graceful_shutdown();
                            connection.await
                        }
                    };
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a client's connection ended");
                    }
                });
            }
        });
        stop
    }
}
