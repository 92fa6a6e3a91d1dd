//! The fleet's own two resources: services and traffic. See [`pipeyard_model::fleet`].

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use pipeyard_model::fleet::{
    ArmReport, ControlError, ServiceDefinition, ServiceHealth, ServicePlatform, SetWeight,
    TrafficReport,
};

use crate::{
    db::{Changed, DbError},
    deployment::{Phase, Platform},
    engine::EngineError,
    fleet::Fleet,
    proxy::{ArmRole, ProxyError, Refusal, RouteStatus},
};

/// A refusal with its status.
#[derive(Debug)]
pub(crate) struct Refused {
    status: StatusCode,
    error: ControlError,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, error: ControlError { code: code.to_owned(), message: message.into() } }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        let text = "the fleet failed; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(self.error)).into_response()
    }
}

impl From<DbError> for Refused {
    fn from(error: DbError) -> Self {
        Self::internal(&error)
    }
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Self::internal(&error)
    }
}

impl From<JsonRejection> for Refused {
    fn from(error: JsonRejection) -> Self {
        Self::invalid(error.body_text())
    }
}

impl From<ProxyError> for Refused {
    fn from(error: ProxyError) -> Self {
        match error {
            ProxyError::Refused(refusal @ (Refusal::Port { .. } | Refusal::Invalid { .. })) => {
                Self::invalid(refusal.to_string())
            }
            error => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "proxy_unreachable",
                format!("{error}: start the proxy, or look into its log"),
            ),
        }
    }
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Proxy(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}

type Names = Path<(String, String)>;

fn check(definition: &ServiceDefinition, platform: Platform) -> Result<(), Refused> {
    if definition.listen == 0 {
        return Err(Refused::invalid("listen must be a port, 1 to 65535"));
    }
    let path = match (&definition.platform, platform) {
        (ServicePlatform::Container(container), Platform::Ecs) => {
            if container.image.is_empty() || container.port == 0 {
                return Err(Refused::invalid("a container service needs an image and a port"));
            }
            if !(1..=100).contains(&container.replicas) {
                return Err(Refused::invalid("replicas must be 1 to 100"));
            }
            if container.env.keys().any(|key| key.is_empty() || key.contains(['=', '\0'])) {
                return Err(Refused::invalid("a variable's name can't be empty or hold '='"));
            }
            &container.health_path
        }
        (ServicePlatform::Hosts(hosts), Platform::Server) => &hosts.health_path,
        (ServicePlatform::Container(_), Platform::Server) => {
            let text = "containers need an application of computePlatform ECS, this one is Server";
            return Err(Refused::invalid(text));
        }
        (ServicePlatform::Hosts(_), Platform::Ecs) => {
            let text = "hosts need an application of computePlatform Server, this one is ECS";
            return Err(Refused::invalid(text));
        }
    };
    if !path.starts_with('/') || path.parse::<http::Uri>().is_err() {
        return Err(Refused::invalid("health_path must be a path that begins with /"));
    }
    Ok(())
}

/// `PUT /services/{application}/{group}`: says what a group runs and opens its port.
pub(crate) async fn put_service(
    State(fleet): State<Arc<Fleet>>,
    Path((application, group)): Names,
    body: Result<Json<ServiceDefinition>, JsonRejection>,
) -> Result<Json<ServiceDefinition>, Refused> {
    let Json(definition) = body?;
    let found = fleet.db.application(&application).await?;
    let found = found.ok_or_else(|| Refused::not_found(format!("no application {application}")))?;
    if fleet.db.group(&application, &group).await?.is_none() {
        return Err(Refused::not_found(format!("no group {group} in {application}")));
    }
    check(&definition, found.platform)?;
    let taken = fleet.db.services().await?.into_iter().find(|(a, g, other)| {
        other.listen == definition.listen && (a, g) != (&application, &group)
    });
    if let Some((a, g, _)) = taken {
        let text = format!("port {} is {a}/{g}'s: choose another", definition.listen);
        return Err(Refused::invalid(text));
    }
    fleet.db.put_service(&application, &group, &definition).await?;
    fleet.routes.sync(&fleet, &application, &group, "service").await?;
    Ok(Json(definition))
}

/// `GET /services/{application}/{group}`.
pub(crate) async fn get_service(
    State(fleet): State<Arc<Fleet>>,
    Path((application, group)): Names,
) -> Result<Json<ServiceDefinition>, Refused> {
    let found = fleet.db.service(&application, &group).await?;
    found.map(Json).ok_or_else(|| Refused::not_found(format!("no service {application}/{group}")))
}

/// `POST /traffic/{application}/{group}`: moves the weight of the deployment that is `Ready`.
pub(crate) async fn set_weight(
    State(fleet): State<Arc<Fleet>>,
    Path((application, group)): Names,
    body: Result<Json<SetWeight>, JsonRejection>,
) -> Result<Json<TrafficReport>, Refused> {
    let Json(wish) = body?;
    if wish.weight > 100 {
        return Err(Refused::invalid("weight must be 0 to 100"));
    }
    let now = fleet.clock.now();
    let changed = fleet.db.change(&wish.deployment, |deployment| {
        let ours = deployment.application == application && deployment.group == group;
        let ready = matches!(deployment.phase, Phase::Ready { .. });
        if !ours || !ready || deployment.stop.is_some() || deployment.proceed.ready {
            return Changed::Leave(Err(deployment.status));
        }
        if wish.epoch < deployment.weight_epoch {
            return Changed::Leave(Ok(false));
        }
        deployment.weight_epoch = wish.epoch;
        if deployment.weight != wish.weight {
            deployment.weight = wish.weight;
            deployment.weight_since = now;
        }
        Changed::Write(Ok(true))
    });
    match changed.await?.map(|(decided, _)| decided) {
        Some(Ok(true)) => {}
        Some(Ok(false)) => {
            let text = "somebody with a higher epoch moved the weight already";
            return Err(Refused::new(StatusCode::CONFLICT, "stale_epoch", text));
        }
        Some(Err(status)) => {
            let text = format!(
                "{} isn't waiting in {application}/{group}: it is {status}",
                wish.deployment
            );
            return Err(Refused::new(StatusCode::CONFLICT, "deployment_not_ready", text));
        }
        None => return Err(Refused::not_found(format!("no deployment {}", wish.deployment))),
    }
    // Without the proxy the weight stays written and is told as soon as it is back; the caller
    // hears that it isn't served yet.
    let status = fleet.routes.sync(&fleet, &application, &group, "weight").await?;
    Ok(Json(report(&fleet, &application, &group, status).await?))
}

/// `GET /traffic/{application}/{group}`.
pub(crate) async fn get_traffic(
    State(fleet): State<Arc<Fleet>>,
    Path((application, group)): Names,
) -> Result<Json<TrafficReport>, Refused> {
    let status = fleet.routes.status(&application, &group).await?;
    let status = status
        .ok_or_else(|| Refused::not_found(format!("{application}/{group} has no traffic yet")))?;
    Ok(Json(report(&fleet, &application, &group, status).await?))
}

/// `GET /health/{application}/{group}`.
pub(crate) async fn get_health(
    State(fleet): State<Arc<Fleet>>,
    Path((application, group)): Names,
) -> Result<Json<ServiceHealth>, Refused> {
    if fleet.db.service(&application, &group).await?.is_none() {
        return Err(Refused::not_found(format!("no service {application}/{group}")));
    }
    let known = fleet.vitals.health(&fleet, &application, &group).await?;
    known.map(Json).ok_or_else(|| {
        let text = format!("{application}/{group} wasn't looked at yet; ask again in a second");
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "not_looked_at", text)
    })
}

async fn report(
    fleet: &Fleet,
    application: &str,
    group: &str,
    status: RouteStatus,
) -> Result<TrafficReport, Refused> {
    let active = fleet.db.active_in(application, group).await?;
    let arm = |role: ArmRole| {
        let arms = status.route.arms.iter().zip(&status.arms);
        let mut arms = arms.filter(|(arm, _)| arm.role == role);
        arms.next().map(|(arm, counted)| ArmReport {
            id: arm.id.clone(),
            weight: arm.weight,
            addresses: arm.addresses.iter().map(ToString::to_string).collect(),
            requests: counted.requests,
            errors: counted.errors,
            in_flight: counted.in_flight,
            latency: counted.latency.clone(),
        })
    };
    let counted = |role: ArmRole| -> u64 {
        let arms = status.route.arms.iter().zip(&status.arms);
        arms.filter(|(arm, _)| arm.role == role).map(|(_, c)| c.requests_since_change).sum()
    };
    let (stable, canary) = (counted(ArmRole::Stable), counted(ArmRole::Canary));
    let all = stable + canary;
    Ok(TrafficReport {
        intended: active.as_ref().map_or(0, |deployment| deployment.weight),
        since: active.as_ref().map_or_else(|| fleet.clock.now(), |d| d.weight_since),
        deployment: active.map(|deployment| deployment.id),
        measured: (all > 0).then(|| canary as f64 * 100.0 / all as f64),
        measured_requests: all,
        at: fleet.clock.now(),
        boot: status.boot.clone(),
        stable: arm(ArmRole::Stable),
        canary: arm(ArmRole::Canary),
    })
}
