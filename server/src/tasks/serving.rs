//! Whether what was deployed still serves. Each service's provider is asked every few seconds; a time
//! in which nobody was served becomes an incident, of which people are told, and the incident is
//! closed when users are served again.
//!
//! An outage is known by the fleet's own number, so it is one incident however often it is read and
//! whoever reads it, also when it was over before this task looked.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use pipeyard_api::deploys::HealthView;
use pipeyard_deploy::provider::GroupName;
use pipeyard_model::{
    Actor, EnvironmentName, ServiceName, Timestamp,
    fleet::{Outage, ServiceHealth},
};
use pipeyard_store::{StoreError, StoreResult, deployments::NewIncident};
use tokio_util::sync::CancellationToken;

use crate::AppState;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(3);
/// Providers that are asked at the same time.
const AT_ONCE: usize = 16;
/// An outage that was over for longer when it was first read is history: the fleet may be older than
/// this installation.
const RECENT: Duration = Duration::from_secs(3600);
/// The longest title of an incident, in characters.
const TITLE: usize = 200;
/// Who opens and closes such an incident.
const US: &str = "pipeyard";

/// Runs until `shutdown`.
pub async fn run(state: AppState, shutdown: CancellationToken) {
    let mut told = Told::default();
    while !shutdown.is_cancelled() {
        if let Err(error) = look(&state, &mut told).await {
            tracing::warn!(error = %error, "whether services serve isn't known");
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Outages that need nothing any more. Only saves writes: they may be told again.
#[derive(Debug, Default)]
pub struct Told {
    opened: HashSet<String>,
    closed: HashSet<String>,
}

type Place = (EnvironmentName, ServiceName);

/// One look at every service.
///
/// # Errors
/// When the store can't be read or written.
pub async fn look(state: &AppState, told: &mut Told) -> StoreResult<()> {
    let mut places = Vec::new();
    for environment in state.store.environments().await? {
        for (name, _) in &environment.services {
            places.push((environment.name.clone(), name.clone(), environment.provider.clone()));
        }
    }
    let asked = stream::iter(places).map(async |(environment, service, provider)| {
        let reach = state.providers.reach(&provider).await.ok()?;
        // AWS isn't asked: it has alarms of its own.
        let traffic = reach.traffic?;
        let found = traffic.health(&GroupName::new(&environment, &service)).await;
        Some(((environment, service), found))
    });
    let found: Vec<_> = asked.buffer_unordered(AT_ONCE).filter_map(async |x| x).collect().await;
    let now = state.clock.now();
    let mut readings = BTreeMap::new();
    for (place, health) in found {
        match health {
            Ok(health) => {
                for outage in &health.outages {
                    tell(state, told, &place, &health, outage, now).await?;
                }
                readings.insert(place, view(health));
            }
            // Nothing was ever deployed there, or the fleet is of an earlier version.
            Err(pipeyard_deploy::provider::ProviderError::Refused { .. }) => {}
            Err(error @ pipeyard_deploy::provider::ProviderError::Unreachable(_)) => {
                readings.insert(place, unknown(error.to_string(), now));
            }
        }
    }
    if state.readings.replace(readings) {
        tracing::info!("how it stands with services has changed");
    }
    Ok(())
}

fn view(health: ServiceHealth) -> HealthView {
    HealthView {
        state: health.state.as_str().to_owned(),
        since: health.since,
        healthy: health.healthy,
        wanted: health.wanted,
        reason: health.reason,
        at: health.at,
    }
}

fn unknown(reason: String, now: Timestamp) -> HealthView {
    let state = "unknown".to_owned();
    HealthView { state, since: now, healthy: 0, wanted: 0, reason: Some(reason), at: now }
}

/// Opens an outage's incident, and closes it when the outage is over.
async fn tell(
    state: &AppState,
    told: &mut Told,
    (environment, service): &Place,
    health: &ServiceHealth,
    outage: &Outage,
    now: Timestamp,
) -> StoreResult<()> {
    let key = format!("outage {} {}", health.fleet, outage.id);
    let is_old = outage.ended.is_some_and(|ended| now.since(ended) > RECENT);
    if told.closed.contains(&key) || (is_old && !told.opened.contains(&key)) {
        return Ok(());
    }
    if outage.ended.is_none() && told.opened.contains(&key) {
        return Ok(());
    }
    let began = outage.began.min(now);
    let title = format!("{environment}/{service} served nobody: {}", outage.reason);
    let new = NewIncident {
        key: Some(key.clone()),
        environment: environment.clone(),
        service: service.clone(),
        title: title.chars().take(TITLE).collect(),
        impact_at: began,
        detected_at: now,
        // What stops a container isn't a deployment's doing; who knows better can say so.
        deployment: None,
        by: US.to_owned(),
        actor: Actor::pipeyard(),
    };
    let incident = state.store.open_incident(new, now).await?;
    told.opened.insert(key.clone());
    let Some(ended) = outage.ended else { return Ok(()) };
    if incident.restored_at.is_none() {
        let ended = ended.max(began).min(now.max(began));
        match state.store.close_incident(incident.id, ended, US, Actor::pipeyard(), now).await {
            // A person was earlier.
            Ok(_) | Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    told.closed.insert(key);
    Ok(())
}
