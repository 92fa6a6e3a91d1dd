//! The fleet's own process: what its parts share, and how it starts.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::Response,
    routing::{delete, get, post, put},
};
use pipeyard_listen::{Limits, Listener, tls::Tls};
use pipeyard_model::{Clock, SystemClock, address::may_listen};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    agents::{self, Agents},
    aws,
    bundles::{self, Bundles},
    control,
    credentials::Credentials,
    db::Db,
    engine::{self, Containers, Engine, Routes, Vitals},
    hosts, http_client, probing_client,
    proxy::{ProxyClient, default_admin},
    token::{self, SharedToken},
};

/// How to run the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetConfig {
    /// Where the endpoint listens.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Database, credentials and bundles.
    pub data_dir: PathBuf,
    /// The region that clients must sign for.
    #[serde(default = "default_region")]
    pub region: String,
    /// Where the proxy's admin API listens.
    #[serde(default = "default_admin")]
    pub proxy_admin: SocketAddr,
    /// The proxy's token; made if it isn't there.
    pub proxy_token_file: PathBuf,
    /// Docker's address, `unix:///var/run/docker.sock`. Without it, `DOCKER_HOST` or the default.
    #[serde(default)]
    pub docker_host: Option<String>,
    /// The certificate chain of the endpoint, PEM; with `tls_key` it speaks TLS.
    #[serde(default)]
    pub tls_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(default)]
    pub tls_key: Option<PathBuf>,
    /// A proxy that ends TLS stands in front.
    #[serde(default, alias = "allow_public")]
    pub trusted_proxy: bool,
}

impl FleetConfig {
    /// Refuses addresses that would send credentials over a network in clear text; touches nothing.
    ///
    /// # Errors
    /// When one would.
    pub fn check(&self) -> anyhow::Result<()> {
        may_listen(self.listen, self.tls_cert.is_some(), self.trusted_proxy)?;
        // There is no TLS on the way to the proxy, and its token goes along.
        anyhow::ensure!(
            self.proxy_admin.ip().is_loopback(),
            "proxy_admin is {}: the proxy is told its routes on this machine only, 127.0.0.1",
            self.proxy_admin
        );
        Ok(())
    }
}

/// The endpoint's address unless said otherwise: 127.0.0.1:8471.
#[must_use]
pub fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8471))
}

/// The region unless said otherwise: `local`.
#[must_use]
pub fn default_region() -> String {
    "local".to_owned()
}

/// What all parts of the fleet share.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// The label of everything that it makes.
    pub(crate) id: String,
    pub(crate) region: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) credentials: Credentials,
    pub(crate) db: Db,
    pub(crate) bundles: Bundles,
    pub(crate) agents: Agents,
    pub(crate) engine: Engine,
    pub(crate) routes: Routes,
    pub(crate) vitals: Vitals,
    pub(crate) containers: Containers,
    pub(crate) http: reqwest::Client,
}

/// Bodies of JSON requests.
const JSON_LIMIT: usize = 1 << 20;
/// Bodies of requests that nobody has signed.
const SMALL_LIMIT: usize = 4 << 10;
/// How long requests in progress may take when the fleet ends.
const FAREWELL: Duration = Duration::from_secs(10);

/// Serves and deploys until `shutdown`. Deployments that were active go on where they were.
///
/// # Errors
/// When it can't start: a public address without leave, a database that can't be opened, a port
/// in use.
pub async fn run(config: FleetConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    run_by(Arc::new(SystemClock), config, shutdown).await
}

/// [`run`] by another clock: what waits for minutes can be tested in seconds. How long a program may
/// take to become healthy, and the like, is real time all the same.
///
/// # Errors
/// As [`run`].
pub async fn run_by(
    clock: Arc<dyn Clock>,
    config: FleetConfig,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    config.check()?;
    let tls = Tls::wrapper(config.tls_cert.as_deref(), config.tls_key.as_deref())
        .context("the fleet's TLS")?;
    let data = &config.data_dir;
    pipeyard_private::folder(data, &["fleet.db", "credentials.json"])?;
    let credentials = Credentials::load(data)?;
    refuse_lost(data)?;
    let (db, id) = Db::open(&data.join("fleet.db")).await?;
    let proxy_token = SharedToken::open(&config.proxy_token_file)?;
    let proxy = ProxyClient::sharing(config.proxy_admin, proxy_token, http_client()?);
    let (engine, orders) = Engine::new();
    let fleet = Arc::new(Fleet {
        id: id.clone(),
        region: config.region,
        clock,
        credentials,
        db,
        bundles: Bundles::open(data.join("bundles"))?,
        agents: Agents::default(),
        engine,
        routes: Routes::new(proxy),
        vitals: Vitals::default(),
        containers: Containers::connect(config.docker_host.as_deref(), id.clone())?,
        http: probing_client()?,
    });
    let limits = Limits { trusted_proxy: config.trusted_proxy, ..Limits::default() };
    let listener = Listener::bind(config.listen, limits)
        .await
        .with_context(|| format!("the fleet can't listen on {}", config.listen))?;
    let listener = listener.wrap(tls);
    tracing::info!(listen = %listener.local_addr()?, fleet = id, "the fleet is ready");
    // In a set, so that the engine ends with this future however that ends.
    let mut driving = JoinSet::new();
    driving.spawn(engine::run(Arc::clone(&fleet), orders, shutdown.child_token()));
    listener.serve(router(&fleet), shutdown.clone(), FAREWELL).await;
    shutdown.cancel();
    while driving.join_next().await.is_some() {}
    Ok(())
}

/// Gives the fleet in this data folder another identity: what a restored copy needs, so that it never
/// takes the original's containers for its own. What should serve is made anew at its start. The fleet
/// must not run.
///
/// # Errors
/// When the database can't be opened or written.
pub async fn renew_identity(data_dir: &Path) -> anyhow::Result<()> {
    let database = data_dir.join("fleet.db");
    if database.exists() {
        let (db, _) = Db::open(&database).await?;
        db.renew_identity().await?;
    }
    Ok(())
}

/// Removes every container that the fleet in this data folder made. The fleet must not run; its
/// data stays, so a start brings what should serve back.
///
/// # Errors
/// When the database can't be read, or Docker can't be reached although there is something to
/// remove.
pub async fn remove_everything(data_dir: &Path) -> anyhow::Result<()> {
    let database = data_dir.join("fleet.db");
    if !database.exists() {
        return Ok(());
    }
    let (_, id) = Db::open(&database).await?;
    Ok(Containers::connect(None, id)?.remove_all().await?)
}

/// Says the time by the fleet's clock. The HTTP library keeps the header for a second by a clock that
/// it believes to go forward only: set back, it would say the old time until the clock is there again.
async fn dated(State(fleet): State<Arc<Fleet>>, mut response: Response) -> Response {
    let date = fleet.clock.now().to_jiff().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(date) = HeaderValue::from_str(&date) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

/// A folder that was in use and whose database is gone or empty isn't a new fleet: it would forget
/// what it runs.
fn refuse_lost(data: &Path) -> anyhow::Result<()> {
    let (database, bundles) = (data.join("fleet.db"), data.join("bundles"));
    let is_filled = std::fs::read_dir(&bundles).is_ok_and(|mut entries| entries.next().is_some());
    anyhow::ensure!(
        !crate::db::is_empty(&database) || !is_filled,
        "the database {} is empty or gone, but {} is in use: this was a fleet, and a new one would \
         forget what it runs. Restore a backup with `pipectl admin restore`, or name an empty folder to \
         begin anew",
        database.display(),
        bundles.display()
    );
    Ok(())
}

/// Whether the fleet can do its work: its database takes a write.
async fn ready(State(fleet): State<Arc<Fleet>>) -> (StatusCode, String) {
    match fleet.db.probe().await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

fn router(fleet: &Arc<Fleet>) -> Router {
    let admin = Arc::new(vec![fleet.credentials.token.clone()]);
    let control = Router::new()
        .route(
            "/services/{application}/{group}",
            put(control::put_service).get(control::get_service),
        )
        .route(
            "/traffic/{application}/{group}",
            post(control::set_weight).get(control::get_traffic),
        )
        .route("/health/{application}/{group}", get(control::get_health))
        .route("/hosts", post(hosts::enrol).get(hosts::list))
        .route("/hosts/{name}", delete(hosts::remove))
        .layer(DefaultBodyLimit::max(JSON_LIMIT))
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), token::require));
    let store = Router::new()
        .route("/bundles/{bucket}/{*key}", put(bundles::put))
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(admin, token::require));
    let fetch = Router::new()
        .route("/bundles/{bucket}/{*key}", get(bundles::get))
        .layer(middleware::from_fn_with_state(Arc::clone(fleet), hosts::require_admin_or_host));
    let agents = Router::new()
        .route("/agent/hello", post(agents::hello))
        .route("/agent/poll", post(agents::poll))
        .route("/agent/complete", post(agents::complete))
        .layer(DefaultBodyLimit::max(JSON_LIMIT))
        .layer(middleware::from_fn_with_state(Arc::clone(fleet), hosts::require));
    // The code is the credential.
    let exchange = Router::new()
        .route("/agent/enrol", post(hosts::exchange))
        .layer(DefaultBodyLimit::max(SMALL_LIMIT));
    Router::new()
        .route("/", post(aws::handle))
        .layer(DefaultBodyLimit::max(JSON_LIMIT))
        .merge(control)
        .merge(store)
        .merge(fetch)
        .merge(agents)
        .merge(exchange)
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .layer(middleware::map_response_with_state(Arc::clone(fleet), dated))
        .with_state(Arc::clone(fleet))
}
