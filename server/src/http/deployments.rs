//! Deployments: listed, viewed, approved, aborted, promoted.

mod view;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use pipeyard_api::{
    ErrorBody,
    deploys::{Decide, DeploymentDetail, DeploymentView},
    views::Page,
};
use pipeyard_model::{
    DeploymentId, EnvironmentName, ServiceName, Timestamp,
    deployment::{Deployment, Event, Reason, State::AwaitingApproval},
    environment::{self, Given, Policy},
};
use pipeyard_store::{
    StoreError,
    deployments::{Change, DeploymentFilter, Stored},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::Auth;
use crate::{
    AppState,
    error::{ApiResult, Failure},
    gate,
};

pub(crate) use view::{deployment_view, release_view};

/// The longest comment of a person, in characters.
const COMMENT: usize = 2_000;
/// How often a decision is tried again when the deployment moves at the same moment.
const TRIES: u32 = 10;

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(detail))
        .routes(routes!(approve))
        .routes(routes!(abort))
        .routes(routes!(promote))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct DeploymentsQuery {
    /// Only to this environment.
    env: Option<EnvironmentName>,
    /// Only of this service.
    service: Option<ServiceName>,
    /// Only those that aren't over.
    #[serde(default)]
    active: bool,
    /// 1 to 200, 50 if absent.
    limit: Option<u32>,
    /// `next` of the page before.
    before: Option<DeploymentId>,
}

/// Deployments, newest first.
#[utoipa::path(get, path = "/api/deployments", tag = "deployments", params(DeploymentsQuery),
    responses((status = 200, body = Page<DeploymentView>), (status = 400, body = ErrorBody)))]
async fn list(
    State(state): State<AppState>,
    Query(query): Query<DeploymentsQuery>,
) -> ApiResult<Json<Page<DeploymentView>>> {
    let limit = query.limit.unwrap_or(50).clamp(1, 200);
    let filter = DeploymentFilter {
        environment: query.env,
        service: query.service,
        active: query.active,
        before: query.before,
        limit,
    };
    let rows = state.store.deployments(filter).await?;
    let full = rows.len() == limit as usize;
    let next = rows.last().filter(|_| full).map(|row| row.deployment.id.to_string());
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut view = deployment_view(&row.deployment, &row.look);
        gate::explain(&state, row, &mut view).await?;
        items.push(view);
    }
    Ok(Json(Page { items, next }))
}

async fn named(state: &AppState, text: &str) -> ApiResult<Stored> {
    let id = if text == "latest" {
        let latest = state.store.latest_deployment().await?;
        latest.ok_or_else(|| {
            Failure::not_found("deployment yet")
                .hint("add a deploy to the pipeline, and its service by pipectl envs apply FILE")
        })?
    } else {
        text.parse().map_err(|_| {
            let message = format!("{text:?} is no deployment: give its number or `latest`");
            Failure::bad_request("bad_deployment", message)
        })?
    };
    state.store.deployment(id).await?.ok_or_else(|| {
        Failure::not_found(format_args!("deployment {id}")).hint("pipectl deploy list")
    })
}

/// One deployment with everything behind it.
#[utoipa::path(get, path = "/api/deployments/{id}", tag = "deployments", params(("id" = String, Path,)),
    responses((status = 200, body = DeploymentDetail), (status = 404, body = ErrorBody)))]
async fn detail(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> ApiResult<Json<DeploymentDetail>> {
    let stored = named(&state, &id).await?;
    let id = stored.deployment.id;
    let (environment, service) = (&stored.deployment.environment, &stored.deployment.service);
    let incidents = state.store.incidents(Some(environment), Some(service), None).await?;
    let incidents = incidents.iter().filter(|i| i.deployment == Some(id)).map(|i| i.id).collect();
    let seen = view::Seen {
        timeline: state.store.timeline(id).await?,
        samples: state.store.samples(id).await?,
        commits: state.store.commits(id).await?,
        incidents,
    };
    let mut detail = view::detail(&stored, seen);
    gate::explain(&state, &stored, &mut detail.deployment).await?;
    Ok(Json(detail))
}

/// Approves a deployment that waits for it. Once nothing is missing, it starts when its turn comes.
/// Who may is said by its environment.
#[utoipa::path(post, path = "/api/deployments/{id}/approve", tag = "deployments",
    params(("id" = String, Path,)), request_body = Decide,
    responses((status = 200, body = DeploymentView), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn approve(
    State(state): State<AppState>,
    auth: Auth,
    Path(id): Path<String>,
    Json(body): Json<Decide>,
) -> ApiResult<Json<DeploymentView>> {
    let comment = comment(body.comment)?;
    let person = gate::person(&state, &auth).await?;
    let (id, environment, facts) = place_of(&state, &id).await?;
    let now = state.clock.now();
    decide(&state, &auth, id, "deployment.approve", |d| {
        let new = |own| Given {
            user: Some(person.id),
            by: person.name.clone(),
            at: now,
            own,
            comment: comment.clone(),
        };
        environment::may_command(&environment, &facts.policy, &person).map_err(refused)?;
        if d.state != AwaitingApproval {
            // The state machine says why not.
            return Ok(Event::Approved { given: new(None), missing: None });
        }
        let source = facts.source.as_ref().map_err(|r| refused(r.clone()))?;
        let mut given = d.given();
        let may =
            environment::may_approve(&environment, &facts.policy, &source.author, &given, &person);
        let new = new(may.map_err(refused)?);
        given.push(new.clone());
        let verdict = facts.verdict(&state, &environment, d.asks_approval(), &given);
        verdict.taken.map_err(refused)?;
        Ok(Event::Approved { given: new, missing: verdict.approvals.waits() })
    })
    .await
}

/// A deployment's number, its environment, and what the rules are asked about.
async fn place_of(
    state: &AppState,
    id: &str,
) -> ApiResult<(DeploymentId, EnvironmentName, gate::Facts)> {
    let d = named(state, id).await?.deployment;
    let facts = gate::facts(state, &d.environment, d.release.run).await?;
    let facts = facts.ok_or_else(|| {
        Failure::not_found(format_args!("environment {}", d.environment)).hint("pipectl envs list")
    })?;
    Ok((d.id, d.environment, facts))
}

/// Refuses everybody whom the environment doesn't name.
pub(crate) async fn named_by(
    state: &AppState,
    auth: &Auth,
    environment: &EnvironmentName,
    policy: &Policy,
) -> ApiResult<()> {
    let person = gate::person(state, auth).await?;
    environment::may_command(environment, policy, &person).map_err(refused)
}

/// The rules' answer as the API's.
fn refused(Reason { code, message }: Reason) -> Failure {
    let status = match code.as_str() {
        "not_named" | "own_change" | "author_unknown" => StatusCode::FORBIDDEN,
        _ => StatusCode::CONFLICT,
    };
    Failure::new(status, &code, message)
}

/// Ends a deployment: before its start for good, after it by going back to the old release.
#[utoipa::path(post, path = "/api/deployments/{id}/abort", tag = "deployments",
    params(("id" = String, Path,)), request_body = Decide,
    responses((status = 200, body = DeploymentView), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn abort(
    State(state): State<AppState>,
    auth: Auth,
    Path(id): Path<String>,
    Json(body): Json<Decide>,
) -> ApiResult<Json<DeploymentView>> {
    let comment = comment(body.comment)?;
    let id = named(&state, &id).await?.deployment.id;
    decide(&state, &auth, id, "deployment.abort", |_| {
        Ok(Event::Aborted { by: auth.name.clone(), comment: comment.clone() })
    })
    .await
}

/// Ends the judging: all traffic to the new release. Who may is said by its environment; nobody may
/// while it is frozen.
#[utoipa::path(post, path = "/api/deployments/{id}/promote", tag = "deployments",
    params(("id" = String, Path,)), request_body = Decide,
    responses((status = 200, body = DeploymentView), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn promote(
    State(state): State<AppState>,
    auth: Auth,
    Path(id): Path<String>,
    Json(body): Json<Decide>,
) -> ApiResult<Json<DeploymentView>> {
    let comment = comment(body.comment)?;
    let (id, environment, facts) = place_of(&state, &id).await?;
    named_by(&state, &auth, &environment, &facts.policy).await?;
    if let Some(frozen) = environment::frozen(&facts.policy.freeze, state.clock.now()) {
        let hint = format!("its own steps go on; to go back: pipectl deploy abort {id}");
        let reason = Reason::new(
            frozen.reason.code,
            format!(
                "deployment {id} can't be promoted: {environment} is {}",
                frozen.reason.message
            ),
        );
        return Err(refused(reason).hint(hint));
    }
    decide(&state, &auth, id, "deployment.promote", |_| {
        Ok(Event::Promoted { by: auth.name.clone(), comment: comment.clone() })
    })
    .await
}

/// Applies a person's decision to the deployment as it is at that moment.
async fn decide(
    state: &AppState,
    auth: &Auth,
    id: DeploymentId,
    action: &'static str,
    event: impl Fn(&Deployment) -> ApiResult<Event>,
) -> ApiResult<Json<DeploymentView>> {
    for _ in 0..TRIES {
        let stored = named(state, &id.to_string()).await?;
        let now = state.clock.now();
        let applied = stored.deployment.apply(event(&stored.deployment)?, now);
        let applied = applied.map_err(|r| Failure::conflict(r.code, r.message))?;
        let next = applied.next.clone();
        let change = Change { by: Some((auth.actor(), action)), ..Change::of(applied) };
        match state.store.change_deployment(change, now).await {
            Ok(()) => {
                state.wake.deploy.notify_one();
                let stored = Stored { deployment: next, ..stored };
                let mut view = deployment_view(&stored.deployment, &stored.look);
                gate::explain(state, &stored, &mut view).await?;
                return Ok(Json(view));
            }
            // It moved meanwhile: the decision is about what it is now.
            Err(StoreError::Conflict { code: "stale_deployment", .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::conflict("stale_deployment", "the deployment moves too fast; try again"))
}

/// A comment without blanks around it; an empty one is none.
pub(crate) fn comment(text: Option<String>) -> ApiResult<Option<String>> {
    let text = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    if text.as_ref().is_some_and(|text| text.chars().count() > COMMENT) {
        let message = format!("the comment has more than {COMMENT} characters");
        return Err(Failure::bad_request("comment_too_long", message));
    }
    Ok(text)
}

/// A time that a person gave, or the present; never in the future.
pub(crate) fn past(given: Option<Timestamp>, now: Timestamp, what: &str) -> ApiResult<Timestamp> {
    // Clocks of two machines differ a little.
    let soon = now + std::time::Duration::from_secs(60);
    match given {
        None => Ok(now),
        Some(at) if at <= soon => Ok(at.min(now)),
        Some(at) => {
            Err(Failure::bad_request("in_the_future", format!("{what} {at} is in the future")))
        }
    }
}
