//! Environments and services: applied from a file, listed, rolled back.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use pipeyard_api::{
    ErrorBody,
    deploys::{
        Applied, ContainerSpec, DeploymentView, EnvironmentView, EnvironmentsFile, HostsSpec,
        RollBack, ServiceSpec, ServiceView, Serving,
    },
};
use pipeyard_deploy::provider::TAGS;
use pipeyard_model::{
    DeploymentId, EnvironmentName, ServiceName,
    address::CredentialUrl,
    deployment::{Deployment, Outcome, Purpose, State as Stands},
    environment::frozen,
    plan::{Batch, Otherwise, Strategy},
};
use pipeyard_store::{
    deployments::{Look, NewDeployment, Place},
    retention::KEPT_RELEASES,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    auth::Auth,
    deployments::{comment, deployment_view, named_by, release_view},
    environment_rules,
};
use crate::{
    AppState,
    error::{ApiResult, Failure},
    gate,
};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, apply))
        .routes(routes!(rollback))
        .merge(environment_rules::router())
}

/// Environments with their services, by name.
#[utoipa::path(get, path = "/api/environments", tag = "environments",
    responses((status = 200, body = Vec<EnvironmentView>)))]
async fn list(State(state): State<AppState>) -> ApiResult<Json<Vec<EnvironmentView>>> {
    let open = state.store.open_deployments().await?;
    let mut views = Vec::new();
    for environment in state.store.environments().await? {
        let mut services = Vec::new();
        for (name, spec) in environment.services {
            let here = |d: &Deployment| d.environment == environment.name && d.service == name;
            let of_place = || open.iter().map(|s| &s.deployment).filter(|d| here(d));
            let serving = state.store.serving(&environment.name, &name).await?;
            services.push(ServiceView {
                serving: serving.map(|d| Serving {
                    deployment: d.id,
                    release: release_view(&d.release),
                    since: d.times.finished.unwrap_or(d.times.created),
                }),
                health: state.readings.of(&environment.name, &name),
                active: of_place().find(|d| d.state.is_active()).map(|d| d.id),
                waiting: of_place()
                    .filter(|d| matches!(d.state, Stands::AwaitingApproval | Stands::Queued))
                    .map(|d| d.id)
                    .collect(),
                name,
                spec,
            });
        }
        views.push(EnvironmentView {
            name: environment.name,
            production: environment.production,
            frozen: gate::frozen_view(frozen(&environment.policy.freeze, state.clock.now())),
            policy: environment.policy,
            provider: environment.provider,
            services,
        });
    }
    Ok(Json(views))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct ApplyQuery {
    /// Only tell what would change.
    #[serde(default)]
    dry_run: bool,
}

/// Makes the environments what the file says. What it doesn't name is retired and keeps its
/// history. Administrators only.
#[utoipa::path(put, path = "/api/environments", tag = "environments", params(ApplyQuery),
    request_body = EnvironmentsFile,
    responses((status = 200, body = Applied), (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn apply(
    State(state): State<AppState>,
    auth: Auth,
    Query(query): Query<ApplyQuery>,
    Json(file): Json<EnvironmentsFile>,
) -> ApiResult<Json<Applied>> {
    check(&file).map_err(|message| Failure::bad_request("environments_invalid", message))?;
    let notes = environment_rules::check_file(&state, &file).await?;
    let now = state.clock.now();
    let mut applied =
        state.store.apply_environments(file, query.dry_run, auth.actor(), now).await?;
    applied.notes = notes;
    state.wake.deploy.notify_one();
    Ok(Json(applied))
}

/// What the types don't say. The message names the place in the file.
fn check(file: &EnvironmentsFile) -> Result<(), String> {
    if file.environments.len() > 100 {
        return Err(format!("{} environments; at most 100", file.environments.len()));
    }
    let mut ports = std::collections::BTreeMap::new();
    for (environment, spec) in &file.environments {
        if let Some(endpoint) = &spec.provider.endpoint
            && let Err(refused) = CredentialUrl::parse(endpoint)
        {
            return Err(format!("environments.{environment}.provider.endpoint: {refused}"));
        }
        if spec.services.len() > 200 {
            return Err(format!("environments.{environment}.services: more than 200"));
        }
        for (name, service) in &spec.services {
            let at = format!("environments.{environment}.services.{name}");
            check_service(&at, service)?;
            if let Some(other) = ports.insert((&spec.provider.endpoint, service.listen), at.clone())
            {
                return Err(format!("{at}.listen: {} is {other}'s already", service.listen));
            }
        }
    }
    Ok(())
}

fn check_service(at: &str, service: &ServiceSpec) -> Result<(), String> {
    if service.listen == 0 {
        return Err(format!("{at}.listen: must be a port from 1 to 65535"));
    }
    let path = |path: &str| {
        if path.starts_with('/') && path.len() <= 500 && !path.contains(char::is_whitespace) {
            Ok(())
        } else {
            Err(format!("{at}: health_path {path:?} must begin with '/' and hold no blanks"))
        }
    };
    let within = |seconds: u32| {
        if (5..=3_600).contains(&seconds) {
            Ok(())
        } else {
            Err(format!("{at}: healthy_within_seconds: {seconds}; it can be 5 to 3600"))
        }
    };
    match (&service.container, &service.hosts) {
        (
            Some(ContainerSpec {
                image, port, health_path, replicas, healthy_within_seconds, ..
            }),
            None,
        ) => {
            if image.trim().is_empty() {
                return Err(format!("{at}.container.image: is empty"));
            }
            if *port == 0 {
                return Err(format!("{at}.container.port: must be a port from 1 to 65535"));
            }
            if !(1..=100).contains(replicas) {
                return Err(format!("{at}.container.replicas: {replicas}; it can be 1 to 100"));
            }
            within(*healthy_within_seconds)?;
            path(health_path)
        }
        (None, Some(HostsSpec { tags, count, health_path, healthy_within_seconds })) => {
            if tags.is_empty() {
                return Err(format!(
                    "{at}.hosts.tags: name at least one, so that no host is taken by accident"
                ));
            }
            if tags.len() > TAGS {
                return Err(format!(
                    "{at}.hosts.tags: {} tags; CodeDeploy takes at most {TAGS} that must all match",
                    tags.len()
                ));
            }
            if !(1..=1_000).contains(count) {
                return Err(format!("{at}.hosts.count: {count}; it can be 1 to 1000"));
            }
            within(*healthy_within_seconds)?;
            path(health_path)
        }
        (Some(_), Some(_)) => Err(format!("{at}: has both `container` and `hosts`; keep one")),
        (None, None) => Err(format!("{at}: has neither `container` nor `hosts`; add one")),
    }
}

/// Goes back to an earlier release: past the queue, without judging, as a deployment of its own. Who
/// may is said by the environment; what it takes, and when it is frozen, doesn't matter.
#[utoipa::path(post, path = "/api/environments/{env}/{service}/rollback", tag = "environments",
    params(("env" = EnvironmentName, Path,), ("service" = ServiceName, Path,)),
    request_body = RollBack,
    responses((status = 200, body = DeploymentView), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 410, body = ErrorBody)))]
async fn rollback(
    State(state): State<AppState>,
    auth: Auth,
    Path((environment, service)): Path<(EnvironmentName, ServiceName)>,
    Json(body): Json<RollBack>,
) -> ApiResult<Json<DeploymentView>> {
    let said = comment(body.comment)?;
    let place = state.store.place(&environment, &service).await?.ok_or_else(|| {
        Failure::not_found(format_args!("service {environment}/{service}"))
            .hint("pipectl envs list")
    })?;
    let policy = state.store.policy(&environment).await?.unwrap_or_default();
    named_by(&state, &auth, &environment, &policy).await?;
    let open = state.store.open_deployments().await?;
    let active = open
        .iter()
        .map(|s| &s.deployment)
        .find(|d| d.environment == environment && d.service == service && d.state.is_active());
    if let Some(active) = active {
        let message = format!("deployment {} of {environment}/{service} is under way", active.id);
        let hint = format!("take it back: pipectl deploy abort {}", active.id);
        return Err(Failure::conflict("deployment_active", message).hint(hint));
    }
    let nothing = |why: &str| {
        Failure::conflict(
            "no_release_to_roll_back_to",
            format!("{environment}/{service} can't go back: {why}"),
        )
    };
    let serving = state.store.serving(&environment, &service).await?;
    let serving = serving.ok_or_else(|| nothing("no deployment has succeeded yet"))?;
    let target = target(&state, &serving, body.to).await?.ok_or_else(|| {
        nothing(&format!("no other release succeeded before deployment {}", serving.id))
    })?;
    if state.blobs.path(&target.release.sha256).is_none() {
        let message = format!(
            "the bundle of deployment {} was removed because of its age; those of the last {KEPT_RELEASES} releases of a service are kept",
            target.id
        );
        return Err(Failure::new(StatusCode::GONE, "release_removed", message)
            .hint("run its commit again, or go back to a newer release"));
    }
    let new = NewDeployment {
        environment,
        service,
        purpose: Purpose::Rollback { of: serving.id, to: target.id },
        release: target.release,
        strategy: strategy(&place, &serving),
        limits: Vec::new(),
        otherwise: Otherwise::Hold,
        job: None,
        requested_by: auth.name.clone(),
        needs_approval: false,
        asks_approval: false,
        waits: None,
        comment: said,
        by: auth.actor(),
    };
    let deployment = state.store.create_deployment(new, state.clock.now()).await?;
    state.wake.deploy.notify_one();
    Ok(Json(deployment_view(&deployment, &Look::default())))
}

/// The deployment whose release should serve again.
async fn target(
    state: &AppState,
    serving: &Deployment,
    to: Option<DeploymentId>,
) -> ApiResult<Option<Deployment>> {
    let Some(id) = to else { return Ok(state.store.good_before(serving).await?) };
    let found = state.store.deployment(id).await?.map(|stored| stored.deployment);
    let found = found
        .filter(|d| d.environment == serving.environment && d.service == serving.service)
        .ok_or_else(|| {
            Failure::not_found(format_args!(
                "deployment {id} of {}/{}",
                serving.environment, serving.service
            ))
        })?;
    if found.state.outcome() != Some(Outcome::Succeeded) {
        let message = format!("deployment {id} never succeeded: it is {}", found.state.as_str());
        return Err(Failure::conflict("no_release_to_roll_back_to", message));
    }
    Ok(Some(found))
}

/// As fast as it can be without an outage: a set of containers at once, hosts in batches.
fn strategy(place: &Place, serving: &Deployment) -> Strategy {
    match (&place.spec.hosts, &serving.strategy) {
        (None, _) => Strategy::AllAtOnce,
        (Some(_), Strategy::Rolling { batch }) => Strategy::Rolling { batch: *batch },
        (Some(_), Strategy::AllAtOnce | Strategy::Canary { .. }) => {
            Strategy::Rolling { batch: Batch::Percent(50) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(service: &str) -> Result<(), String> {
        let json = format!(
            r#"{{"environments": {{"production": {{"production": true,
                "provider": {{"endpoint": "http://127.0.0.1:1", "credentials": "fleet"}},
                "services": {{"web": {service}}}}}}}}}"#
        );
        let file: EnvironmentsFile = serde_json::from_str(&json).map_err(|e| e.to_string())?;
        check(&file)
    }

    #[test]
    fn a_service_is_of_containers_or_on_hosts() {
        let container = r#""container": {"image": "x", "port": 80}"#;
        let hosts = r#""hosts": {"tags": {"role": "worker"}, "count": 3}"#;
        assert_eq!(file(&format!(r#"{{"listen": 1, {container}}}"#)), Ok(()));
        assert_eq!(file(&format!(r#"{{"listen": 1, {hosts}}}"#)), Ok(()));
        let both = file(&format!(r#"{{"listen": 1, {container}, {hosts}}}"#)).unwrap_err();
        assert_eq!(
            both,
            "environments.production.services.web: has both `container` and `hosts`; keep one"
        );
        assert!(file(r#"{"listen": 1}"#).is_err());
    }

    #[test]
    fn mistakes_are_refused_with_their_place() {
        for (service, words) in [
            (r#"{"listen": 0, "container": {"image": "x", "port": 80}}"#, "web.listen"),
            (
                r#"{"listen": 1, "container": {"image": "x", "port": 80, "replicas": 0}}"#,
                "web.container.replicas",
            ),
            (r#"{"listen": 1, "hosts": {"tags": {}, "count": 3}}"#, "web.hosts.tags"),
            (
                r#"{"listen": 1, "hosts": {"tags": {"a": "", "b": "", "c": "", "d": ""}, "count": 3}}"#,
                "web.hosts.tags: 4 tags",
            ),
            (
                r#"{"listen": 1, "container": {"image": "x", "port": 80, "health_path": "up"}}"#,
                "health_path",
            ),
            (
                r#"{"listen": 1, "container": {"image": "x", "port": 80, "healthy_within_seconds": 0}}"#,
                "healthy_within_seconds: 0",
            ),
            (r#"{"listen": 1, "containers": {}}"#, "unknown field"),
        ] {
            let error = file(service).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
