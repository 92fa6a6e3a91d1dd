//! The rules of environments: checked against what there is, allowed one by one, and asked beforehand.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use pipeyard_api::{
    ErrorBody,
    deploys::{Allowed, DeployCheck, EnvironmentsFile},
};
use pipeyard_model::{
    EnvironmentName, RepoName,
    environment::{self, Accept, Author, Identity, RunEvent, Source},
};
use pipeyard_store::{
    StoreError,
    repos::{Forge, Repo},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::Auth;
use crate::{
    AppState,
    error::{ApiResult, Failure},
    gate,
};

/// How often a rule is written again when somebody else writes one at the same moment.
const TRIES: u32 = 10;

/// The routes of this file.
pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(allow)).routes(routes!(check))
}

/// Checks the rules of a file against the repositories and users that there are, before anything of
/// it is written. Answers what can't come of it as it stands.
///
/// # Errors
/// With the place in the file, what is wrong there, and the fix.
pub(crate) async fn check_file(
    state: &AppState,
    file: &EnvironmentsFile,
) -> ApiResult<Vec<String>> {
    let now = state.clock.now();
    let repos = state.store.repos().await?;
    let people = state.store.people().await?;
    let bad = |message: String| Failure::bad_request("environments_invalid", message);
    let mut notes = Vec::new();
    for (name, spec) in &file.environments {
        let policy = spec.policy();
        let at = |place: &str| format!("environments.{name}.{place}");
        policy.check(now).map_err(|why| bad(at(&why)))?;
        for (n, rule) in policy.accepts.iter().enumerate() {
            let repo = repos.iter().find(|repo| repo.name == rule.repo);
            let Some(repo) = repo else {
                let place = at(&format!("accepts[{n}].repo"));
                return Err(unknown_repo(&repos, &rule.repo, &place));
            };
            for event in &rule.events {
                let event = match event.as_str() {
                    "manual" => RunEvent::Manual,
                    "schedule" => RunEvent::Schedule,
                    _ => RunEvent::Push,
                };
                for note in gate::notes(name, &policy, repo.name.as_str(), tells(repo), event) {
                    if !notes.contains(&note) {
                        notes.push(note);
                    }
                }
            }
        }
        for (n, user) in policy.approvals.of.iter().flatten().enumerate() {
            if !people.iter().any(|person| person.name == *user) {
                let known: Vec<&str> = people.iter().map(|p| p.name.as_str()).take(20).collect();
                let text = format!(
                    "{}: there is no user {user:?}; users are {}",
                    at(&format!("approvals.of[{n}]")),
                    known.join(", ")
                );
                return Err(bad(text).hint("pipectl users list; teams can't be named yet"));
            }
        }
        let admins = people.iter().filter(|person| person.admin).count();
        let count = usize::try_from(policy.approvals.count).unwrap_or(usize::MAX);
        if policy.approvals.of.is_none() && count > admins {
            notes.push(format!(
                "{name}: {count} administrators must approve, and there are {admins} today"
            ));
        }
        if spec.accepts.is_some() {
            if policy.accepts.is_empty() {
                notes.push(format!("{name}: `accepts` is empty, so it takes nothing"));
            }
            continue;
        }
        // Rules that were made by `envs allow`, or by a file of somebody else, don't go in silence.
        let known = state.store.policy(name).await?.unwrap_or_default().accepts;
        if known.is_empty() {
            notes.push(format!(
                "{name}: no rule says what it takes, so it takes nothing: `pipectl envs allow {name} --repo REPO`, or `accepts` in the file"
            ));
        } else {
            let words: Vec<String> = known.iter().map(Accept::words).collect();
            let rules: Vec<String> =
                known.iter().filter_map(|rule| serde_json::to_string(rule).ok()).collect();
            let text = format!(
                "{}: is missing, and {name} has rules: {}. They would be lost; write them into the file, or `accepts: []` to take nothing",
                at("accepts"),
                words.join("; ")
            );
            let hint = format!("accepts: [{}]", rules.join(", "));
            return Err(Failure::bad_request("accepts_missing", text).hint(hint));
        }
    }
    Ok(notes)
}

/// Whether its forge says who pushed.
fn tells(repo: &Repo) -> bool {
    match repo.forge {
        Forge::Github => true,
        Forge::Git => false,
    }
}

fn unknown_repo(repos: &[Repo], name: &RepoName, place: &str) -> Failure {
    let close = repos.iter().find(|repo| {
        let (known, name) = (repo.name.as_str(), name.as_str());
        known.eq_ignore_ascii_case(name)
            || known.rsplit('/').next() == Some(name)
            || name.rsplit('/').next() == Some(known)
    });
    let close =
        close.map(|repo| format!("; {:?} is meant?", repo.name.as_str())).unwrap_or_default();
    let text = format!("{place}: there is no repository {:?}{close}", name.as_str());
    Failure::bad_request("environments_invalid", text)
        .hint("pipectl repos list; add it first: pipectl repos add URL")
}

/// Adds a rule to what an environment takes. A rule that is there already changes nothing.
/// Administrators only.
#[utoipa::path(post, path = "/api/environments/{env}/accepts", tag = "environments",
    params(("env" = EnvironmentName, Path,)), request_body = Accept,
    responses((status = 200, body = Allowed), (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn allow(
    State(state): State<AppState>,
    auth: Auth,
    Path(environment): Path<EnvironmentName>,
    Json(mut rule): Json<Accept>,
) -> ApiResult<Json<Allowed>> {
    let repos = state.store.repos().await?;
    let repo = repos.iter().find(|repo| repo.name == rule.repo);
    let repo = repo.ok_or_else(|| unknown_repo(&repos, &rule.repo, "repo"))?;
    if rule.branches.is_empty() && rule.tags.is_empty() {
        // Written out, so that the rule says what it takes.
        rule.branches =
            environment::RefPattern::exactly(&repo.default_branch).into_iter().collect();
    }
    for _ in 0..TRIES {
        let from = state.store.policy(&environment).await?.ok_or_else(|| {
            Failure::not_found(format_args!("environment {environment}")).hint("pipectl envs list")
        })?;
        let Some(to) = from.allow(&rule) else {
            let rule = rule.words();
            let accepts = from.accepts;
            return Ok(Json(Allowed { environment, rule, known: true, accepts }));
        };
        let now = state.clock.now();
        to.check(now).map_err(|why| Failure::bad_request("environments_invalid", why))?;
        let accepts = to.accepts.clone();
        let words = rule.words();
        match state.store.change_policy(&environment, from, to, &words, auth.actor(), now).await {
            Ok(()) => {
                state.wake.deploy.notify_one();
                return Ok(Json(Allowed { environment, rule: words, known: false, accepts }));
            }
            Err(StoreError::Conflict { code: "stale_policy", .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::conflict("stale_policy", "the rules change too fast; try again"))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct CheckQuery {
    /// The repository.
    repo: RepoName,
    /// The branch that the run is on; the default branch if neither branch nor tag is given.
    branch: Option<String>,
    /// The tag that the run is on.
    tag: Option<String>,
    /// What starts the run: `push` (if absent), `pull_request`, `manual`, `schedule`.
    #[param(value_type = Option<String>)]
    event: Option<RunEvent>,
    /// The pipeline asks for an approval.
    #[serde(default)]
    approve: bool,
}

/// What would come of a deploy: whether a rule takes it, whose approval it needs, and whether
/// anything may start now. Changes nothing.
#[utoipa::path(get, path = "/api/environments/{env}/check", tag = "environments",
    params(("env" = EnvironmentName, Path,), CheckQuery),
    responses((status = 200, body = DeployCheck), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn check(
    State(state): State<AppState>,
    Path(environment): Path<EnvironmentName>,
    Query(query): Query<CheckQuery>,
) -> ApiResult<Json<DeployCheck>> {
    let CheckQuery { repo, branch, tag, event, approve } = query;
    let policy = state.store.policy(&environment).await?.ok_or_else(|| {
        Failure::not_found(format_args!("environment {environment}")).hint("pipectl envs list")
    })?;
    let repos = state.store.repos().await?;
    let repo = repos
        .iter()
        .find(|known| known.name == repo)
        .ok_or_else(|| unknown_repo(&repos, &repo, "repo"))?;
    let reference = match (branch, tag) {
        (Some(_), Some(_)) => {
            let message = "a ref is a branch or a tag: give one of them";
            return Err(Failure::bad_request("bad_check", message));
        }
        (None, Some(tag)) => format!("refs/tags/{tag}"),
        (branch, None) => {
            format!("refs/heads/{}", branch.as_ref().unwrap_or(&repo.default_branch))
        }
    };
    if let Err(bad) = pipeyard_git::check_ref(&reference) {
        return Err(Failure::bad_request("bad_check", bad.to_string())
            .hint("give the name without refs/heads/ or refs/tags/"));
    }
    let event = event.unwrap_or(RunEvent::Push);
    // Somebody will have pushed it; who, is known then.
    let forge = tells(repo).then(|| Identity { forge: "github".into(), login: String::new() });
    let source = Source {
        repo: repo.name.clone(),
        default_branch: repo.default_branch.clone(),
        event,
        reference,
        fork: false,
        author: Author { forge: forge.into_iter().collect(), starter: None },
    };
    let now = state.clock.now();
    let verdict = environment::decide(&environment, &policy, &source, approve, &[], now);
    let notes = gate::notes(&environment, &policy, repo.name.as_str(), tells(repo), event);
    Ok(Json(gate::check_view(environment, &source, verdict, notes)))
}
