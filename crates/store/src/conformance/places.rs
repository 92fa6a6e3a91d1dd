//! Environments, services, commits and incidents.

use std::time::Duration;

use pipeyard_api::deploys::EnvironmentsFile;
use pipeyard_model::{Actor, Clock as _, DeploymentId, IncidentId, ManualClock, UserId};

use super::{
    make::{environments, places},
    rollouts::{ask, step},
};
use crate::{
    Store, StoreError, StoreResult,
    deployments::{DeployedCommit, NewIncident},
};

const HOUR: Duration = Duration::from_secs(3600);

fn code<T: std::fmt::Debug>(result: StoreResult<T>) -> &'static str {
    match result.unwrap_err() {
        StoreError::Conflict { code, .. } => code,
        StoreError::NotFound { .. } => "not_found",
        other => panic!("{other}"),
    }
}

async fn apply<S: Store>(
    store: &S,
    clock: &ManualClock,
    file: EnvironmentsFile,
    dry_run: bool,
) -> StoreResult<Vec<String>> {
    let applied =
        store.apply_environments(file, dry_run, Actor::user(UserId::new()), clock.now()).await?;
    assert_eq!(applied.dry_run, dry_run);
    Ok(applied.changes.iter().map(|c| format!("{} {}", c.change, c.what)).collect())
}

/// The file is the whole truth: applied again it changes nothing, what it doesn't name is retired,
/// and a dry run says the same and writes nothing.
pub async fn a_file_makes_the_environments<S: Store>(store: &S, clock: &ManualClock) {
    let both = || environments(&["web", "worker"]);
    let first = apply(store, clock, both(), true).await.unwrap();
    assert!(store.environments().await.unwrap().is_empty(), "a dry run writes nothing");
    assert_eq!(apply(store, clock, both(), false).await.unwrap(), first);
    assert_eq!(first.len(), 5, "{first:?}");
    assert!(apply(store, clock, both(), false).await.unwrap().is_empty());
    let rows = store.audit(None, 200).await.unwrap().len();
    let (production, worker) = ("production".parse().unwrap(), "worker".parse().unwrap());
    assert!(store.place(&production, &worker).await.unwrap().unwrap().production);
    let one = apply(store, clock, environments(&["web"]), false).await.unwrap();
    assert_eq!(one, ["retired service production/worker"]);
    assert_eq!(store.audit(None, 200).await.unwrap().len(), rows + 1, "a change is audited");
    assert!(store.place(&production, &worker).await.unwrap().is_none());
    let list = store.environments().await.unwrap();
    let names: Vec<_> = list.iter().map(|e| (e.name.as_str(), e.services.len())).collect();
    assert_eq!(names, [("production", 1), ("testing", 1)]);
    let back = apply(store, clock, both(), false).await.unwrap();
    assert_eq!(back, ["restored service production/worker"]);
}

/// A service with a deployment that isn't over can't be retired, and nothing else of the file counts.
pub async fn a_service_in_work_is_not_retired<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web", "worker"]).await;
    let id = ask(store, clock, "worker", "a").await.id;
    let refused = apply(store, clock, environments(&["api"]), false).await;
    assert_eq!(code(refused), "deployment_active");
    let list = store.environments().await.unwrap();
    let services: Vec<_> = list[0].services.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(services, ["web", "worker"]);
    let end = pipeyard_model::deployment::Event::Aborted { by: "ann".into(), comment: None };
    step(store, clock, id, end).await;
    assert_eq!(apply(store, clock, environments(&["api"]), false).await.unwrap().len(), 3);
}

pub(super) fn commit(name: &str, clock: &ManualClock) -> DeployedCommit {
    let at = clock.now() - HOUR;
    DeployedCommit {
        sha: name.to_owned(),
        title: format!("Change {name}"),
        author: "Ada".to_owned(),
        authored_at: at,
        committed_at: at,
        first_seen: Some(at),
        is_merge: false,
        is_cherry_pick: false,
    }
}

/// Commits are replaced as a whole; the newest 100 are shown and all are counted.
pub async fn commits_are_replaced<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web"]).await;
    let id = ask(store, clock, "web", "a").await.id;
    assert_eq!(store.commits(id).await.unwrap().state, "pending");
    let many = (0..150).map(|n| commit(&format!("{n}"), clock)).collect();
    store.set_commits(id, "known", many).await.unwrap();
    let view = store.commits(id).await.unwrap();
    assert_eq!((view.state.as_str(), view.count, view.items.len()), ("known", 150, 100));
    assert_eq!(view.items[0].sha, "0");
    store.set_commits(id, "first_deployment", vec![]).await.unwrap();
    let view = store.commits(id).await.unwrap();
    assert_eq!((view.state.as_str(), view.count), ("first_deployment", 0));
    let nowhere = store.set_commits(DeploymentId(99), "known", vec![commit("a", clock)]).await;
    assert_eq!(code(nowhere), "not_found");
    assert_eq!(code(store.commits(DeploymentId(99)).await), "not_found");
}

pub(super) fn incident(clock: &ManualClock, service: &str) -> NewIncident {
    NewIncident {
        key: None,
        environment: "production".parse().unwrap(),
        service: service.parse().unwrap(),
        title: "checkout fails".into(),
        impact_at: clock.now(),
        detected_at: clock.now(),
        deployment: None,
        by: "ann".into(),
        actor: Actor::user(UserId::new()),
    }
}

/// An incident is opened once by its key, linked to a deployment of its own place, closed once, and
/// not before it began.
pub async fn an_incident_is_opened_and_closed_once<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web", "worker"]).await;
    let deployment = ask(store, clock, "web", "a").await.id;
    let link = |service: &str, id: DeploymentId| NewIncident {
        key: Some("pager-1".into()),
        deployment: Some((id, "manual".into())),
        ..incident(clock, service)
    };
    for (service, id) in [("worker", deployment), ("web", DeploymentId(99))] {
        let refused = store.open_incident(link(service, id), clock.now()).await;
        assert_eq!(code(refused), "not_found", "{service} {id}");
    }
    assert_eq!(code(store.open_incident(incident(clock, "api"), clock.now()).await), "not_found");
    assert!(
        store.incidents(None, None, None).await.unwrap().is_empty(),
        "a refusal leaves nothing"
    );
    let first = store.open_incident(link("web", deployment), clock.now()).await.unwrap();
    assert_eq!((first.deployment, first.link.as_deref()), (Some(deployment), Some("manual")));
    let again = NewIncident { title: "another".into(), ..link("web", deployment) };
    assert_eq!(store.open_incident(again, clock.now()).await.unwrap().id, first.id);
    let close = async |at| {
        store.close_incident(first.id, at, "bob", Actor::user(UserId::new()), clock.now()).await
    };
    assert_eq!(code(close(first.impact_at - HOUR).await), "restored_before_impact");
    let closed = close(first.impact_at + HOUR).await.unwrap();
    assert_eq!(closed.restored_at, Some(first.impact_at + HOUR));
    assert_eq!(closed.closed_by.as_deref(), Some("bob"));
    assert_eq!(code(close(first.impact_at + HOUR).await), "incident_closed");
    let unknown = store
        .close_incident(IncidentId(99), clock.now(), "bob", Actor::user(UserId::new()), clock.now())
        .await;
    assert_eq!(code(unknown), "not_found");
    let audit = store.audit(None, 2).await.unwrap();
    let actions: Vec<_> = audit.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(actions, ["incident.close", "incident.open"]);
    let events = store.events(0, None, 100).await.unwrap();
    let own: Vec<_> = events.iter().filter(|e| e.kind == "incident.changed").collect();
    assert_eq!(own.len(), 2);
    assert!(own.iter().all(|event| event.deployment == Some(deployment.0)));
}

/// Incidents are listed newest impact first: all, open or restored, of a place or of all.
pub async fn incidents_are_listed<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web", "worker"]).await;
    for (service, back) in [("web", 3), ("worker", 1), ("web", 2)] {
        let impact_at = clock.now() - back * HOUR;
        let new = NewIncident { impact_at, ..incident(clock, service) };
        store.open_incident(new, clock.now()).await.unwrap();
    }
    let now = clock.now();
    store.close_incident(IncidentId(3), now, "bob", Actor::user(UserId::new()), now).await.unwrap();
    let web = "web".parse().unwrap();
    let testing = "testing".parse().unwrap();
    let ids = async |environment, service, open| -> Vec<i64> {
        let list = store.incidents(environment, service, open).await.unwrap();
        list.iter().map(|incident| incident.id.0).collect()
    };
    assert_eq!(ids(None, None, None).await, [2, 3, 1]);
    assert_eq!(ids(None, None, Some(true)).await, [2, 1]);
    assert_eq!(ids(None, None, Some(false)).await, [3]);
    assert_eq!(ids(None, Some(&web), None).await, [3, 1]);
    assert!(ids(Some(&testing), None, None).await.is_empty());
}
