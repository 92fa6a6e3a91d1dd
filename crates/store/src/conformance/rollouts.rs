//! Deployments: created once, moved by compare-and-set, ended together with their node.

use std::time::Duration;

use pipeyard_api::deploys::{ArmView, SampleView};
use pipeyard_model::{
    Actor, Clock as _, Conclusion, DeploymentId, IntentId, ManualClock, Timestamp, UserId,
    deployment::{Approval, Deployment, Event, Outcome, Purpose, Reason, State},
    environment::Given,
};

use super::make::{deploy, new_deployment, places, run, setup};
use crate::{
    Store, StoreError,
    deployments::{Change, DeploymentFilter, Look, MAX_SAMPLES, NewDeployment, Stored},
};

/// Asks for `service` at a commit whose letter is repeated.
pub(super) async fn ask<S: Store + ?Sized>(
    store: &S,
    clock: &ManualClock,
    service: &str,
    commit: &str,
) -> Deployment {
    let new = new_deployment("production", service, commit);
    store.create_deployment(new, clock.now()).await.unwrap()
}

pub(super) async fn stored<S: Store + ?Sized>(store: &S, id: DeploymentId) -> Stored {
    store.deployment(id).await.unwrap().unwrap()
}

/// Applies an event to what is stored.
pub(super) async fn step<S: Store + ?Sized>(
    store: &S,
    clock: &ManualClock,
    id: DeploymentId,
    event: Event,
) -> Deployment {
    let applied = stored(store, id).await.deployment.apply(event, clock.now()).unwrap();
    store.change_deployment(Change::of(applied), clock.now()).await.unwrap();
    stored(store, id).await.deployment
}

fn turn() -> Event {
    Event::TurnCame { token: IntentId::new(), replaces: None }
}

/// Ships a commit all at once.
pub(super) async fn ship<S: Store + ?Sized>(
    store: &S,
    clock: &ManualClock,
    service: &str,
    commit: &str,
) -> Deployment {
    let id = ask(store, clock, service, commit).await.id;
    carry(store, clock, id).await
}

pub(super) async fn carry<S: Store + ?Sized>(
    store: &S,
    clock: &ManualClock,
    id: DeploymentId,
) -> Deployment {
    let created = Event::Created { provider: format!("d-{id}"), adopted: false };
    for event in [turn(), created, Event::ProviderSucceeded] {
        clock.advance(Duration::from_secs(1));
        step(store, clock, id, event).await;
    }
    stored(store, id).await.deployment
}

fn code<T: std::fmt::Debug>(result: Result<T, StoreError>) -> &'static str {
    match result.unwrap_err() {
        StoreError::Conflict { code, .. } => code,
        StoreError::NotFound { .. } => "not_found",
        other => panic!("{other}"),
    }
}

/// Each place counts its own deployments from 1; no number is used again, also by a service that was
/// retired meanwhile.
pub async fn sequence_numbers_rise_in_their_place<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web", "worker"]).await;
    let mut numbers = Vec::new();
    for service in ["web", "web", "worker", "web"] {
        numbers.push(ask(store, clock, service, "a").await.sequence);
    }
    assert_eq!(numbers, [1, 2, 1, 3]);
    for id in 1..=4 {
        let event = Event::Aborted { by: "ann".into(), comment: None };
        step(store, clock, DeploymentId(id), event).await;
    }
    places(store, clock, &["worker"]).await;
    let retired = store.create_deployment(new_deployment("production", "web", "b"), clock.now());
    assert_eq!(code(retired.await), "not_found");
    places(store, clock, &["web", "worker"]).await;
    assert_eq!(ask(store, clock, "web", "b").await.sequence, 4);
    let nowhere = store.create_deployment(new_deployment("staging", "web", "b"), clock.now());
    assert_eq!(code(nowhere.await), "not_found");
}

/// One try of a node is one deployment, however often it is asked for; the node knows it.
pub async fn a_deploy_of_a_run_gives_one_deployment<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web"]).await;
    let made = setup(store, clock).await;
    let id = run(store, clock, made.repo, vec![deploy("web")]).await;
    let ready = store.ready_deploys(10).await.unwrap();
    let new = || {
        let mut new = new_deployment("production", "web", "a");
        new.job = Some((ready[0].job, ready[0].attempt));
        new.release.run = id;
        new
    };
    let (first, again) = tokio::join!(
        store.create_deployment(new(), clock.now()),
        store.create_deployment(new(), clock.now())
    );
    let (first, again) = (first.unwrap(), again.unwrap());
    assert_eq!((first.id, first.sequence), (again.id, 1));
    assert_eq!(store.deployments(all()).await.unwrap().len(), 1);
    assert!(store.ready_deploys(10).await.unwrap().is_empty());
    assert_eq!(store.run(id).await.unwrap().unwrap().jobs[0].deployment, Some(first.id.0));
    carry(store, clock, first.id).await;
    let run = store.run(id).await.unwrap().unwrap().run;
    assert_eq!(run.conclusion, Some(Conclusion::Success), "the node ends with its deployment");
}

fn all() -> DeploymentFilter {
    DeploymentFilter { limit: 200, ..DeploymentFilter::default() }
}

/// Of two changes that come from the same version one is refused and leaves nothing.
pub async fn a_stale_change_is_refused<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web"]).await;
    let id = ask(store, clock, "web", "a").await.id;
    let read = stored(store, id).await.deployment;
    let change = |token: IntentId| {
        let event = Event::TurnCame { token, replaces: None };
        let look = Look { provider_id: Some(token.to_string()), ..Look::default() };
        let of = Change::of(read.apply(event, clock.now()).unwrap());
        Change { look: Some(look), judge: Some(token.to_string()), ..of }
    };
    let tokens = [IntentId::new(), IntentId::new()];
    let (a, b) = tokio::join!(
        store.change_deployment(change(tokens[0]), clock.now()),
        store.change_deployment(change(tokens[1]), clock.now())
    );
    let won = if a.is_ok() { tokens[0] } else { tokens[1] };
    assert!(a.is_ok() != b.is_ok(), "exactly one starts it");
    assert_eq!(code(if a.is_ok() { b } else { a }), "stale_deployment");
    let now = stored(store, id).await;
    let State::Starting(intent) = &now.deployment.state else { panic!("{:?}", now.deployment) };
    // The intent that the provider is asked with is the one that was stored, with nothing of the other.
    assert_eq!(intent.token, won);
    assert_eq!((now.look.provider_id, now.judge), (Some(won.to_string()), Some(won.to_string())));
    let codes = timeline(store, id).await;
    assert_eq!(codes, ["requested", "started"]);
}

async fn timeline<S: Store + ?Sized>(store: &S, id: DeploymentId) -> Vec<String> {
    store.timeline(id).await.unwrap().into_iter().map(|entry| entry.code).collect()
}

/// The token stays through a lost answer, so that the deployment can be found and adopted.
pub async fn a_lost_answer_keeps_the_token_for_adoption<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web"]).await;
    let id = ask(store, clock, "web", "a").await.id;
    let token = IntentId::new();
    step(store, clock, id, Event::TurnCame { token, replaces: None }).await;
    let lost = step(store, clock, id, Event::Lost { problem: "timed out".into() }).await;
    let State::Ambiguous(intent) = &lost.state else { panic!("{lost:?}") };
    assert_eq!((intent.token, intent.since), (token, clock.now()));
    let open = store.open_deployments().await.unwrap();
    assert_eq!((open.len(), &open[0].deployment), (1, &lost), "a new server finds it");
    let found = Event::Created { provider: "d-1".into(), adopted: true };
    let adopted = step(store, clock, id, found).await;
    let started = adopted.state.started().unwrap();
    assert_eq!((started.token, started.provider.as_str()), (token, "d-1"));
}

/// A place has one active deployment at most; another place has its own.
pub async fn a_place_has_one_active_deployment<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web", "worker"]).await;
    let mut ids = Vec::new();
    for service in ["web", "web", "worker"] {
        ids.push(ask(store, clock, service, "a").await.id);
    }
    step(store, clock, ids[0], turn()).await;
    let second = stored(store, ids[1]).await.deployment.apply(turn(), clock.now()).unwrap();
    let second = Change::of(second);
    assert_eq!(
        code(store.change_deployment(second.clone(), clock.now()).await),
        "deployment_active"
    );
    assert_eq!(stored(store, ids[1]).await.deployment.state, State::Queued);
    step(store, clock, ids[2], turn()).await;
    let created = Event::Created { provider: "d-1".into(), adopted: false };
    step(store, clock, ids[0], created).await;
    step(store, clock, ids[0], Event::ProviderSucceeded).await;
    store.change_deployment(second, clock.now()).await.unwrap();
}

/// An approval is kept with who gave it and in the audit log.
pub async fn an_approval_is_kept<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web"]).await;
    let why = Reason::new("waits_for_approval", "needs the approval of ann");
    let new = NewDeployment {
        needs_approval: true,
        waits: Some(why.clone()),
        ..new_deployment("production", "web", "a")
    };
    let waits = store.create_deployment(new, clock.now()).await.unwrap();
    assert_eq!((&waits.state, &waits.approval), (&State::AwaitingApproval, &Approval::Needed));
    assert_eq!(waits.reason.as_ref(), Some(&why));
    clock.advance(Duration::from_secs(60));
    let by = UserId::new();
    let own = Given {
        user: Some(by),
        by: "ann".into(),
        at: clock.now(),
        own: Some(true),
        comment: Some("looks good".into()),
    };
    let event = Event::Approved { given: own.clone(), missing: None };
    let applied = waits.apply(event, clock.now()).unwrap();
    let by = Actor::user(by);
    let change = Change { by: Some((by, "deployment.approve")), ..Change::of(applied) };
    store.change_deployment(change, clock.now()).await.unwrap();
    let given = stored(store, waits.id).await.deployment;
    let comment = Some("looks good".to_owned());
    let wanted = Approval::Given { by: "ann".into(), at: clock.now(), own: true, comment };
    assert_eq!((given.state, given.approval), (State::Queued, wanted));
    assert_eq!(given.approvals, [own]);
    let audit = store.audit(None, 1).await.unwrap();
    assert_eq!(audit[0].action, "deployment.approve");
    assert_eq!(audit[0].target, format!("deployment {}", waits.id));
}

/// Every change is an event that names the run and the deployment; a refused one is none.
pub async fn every_change_is_an_event<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web"]).await;
    let asked = ask(store, clock, "web", "a").await;
    let change = Change::of(asked.apply(turn(), clock.now()).unwrap());
    store.change_deployment(change.clone(), clock.now()).await.unwrap();
    store.change_deployment(change, clock.now()).await.unwrap_err();
    let events = store.events(0, None, 100).await.unwrap();
    let own: Vec<_> = events.iter().filter(|e| e.kind == "deployment.changed").collect();
    assert_eq!(own.len(), 2, "asked for, started");
    assert!(
        own.iter().all(|e| e.deployment == Some(asked.id.0) && e.run == Some(asked.release.run))
    );
}

/// What is over never changes.
pub async fn a_finished_deployment_never_changes<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web"]).await;
    let over = ship(store, clock, "web", "a").await;
    let mut next = over.clone();
    next.version += 1;
    next.state = State::Queued;
    let change = Change {
        next,
        entries: vec![],
        look: None,
        judge: None,
        sample: None,
        by: None,
        quiet: false,
    };
    assert_eq!(code(store.change_deployment(change, clock.now()).await), "stale_deployment");
    assert_eq!(stored(store, over.id).await.deployment, over);
    assert!(store.open_deployments().await.unwrap().is_empty());
}

/// What serves, what may be gone back to, what was deployed before, and who is suspected.
pub async fn history_is_told_by_place<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web", "worker"]).await;
    let (production, web) = ("production".parse().unwrap(), "web".parse().unwrap());
    assert!(store.serving(&production, &web).await.unwrap().is_none());
    let first = ship(store, clock, "web", "a").await;
    let second = ship(store, clock, "web", "b").await;
    ship(store, clock, "worker", "z").await;
    let cancelled = ask(store, clock, "web", "c").await.id;
    step(store, clock, cancelled, Event::Aborted { by: "ann".into(), comment: None }).await;
    assert_eq!(store.serving(&production, &web).await.unwrap().unwrap(), second);
    assert_eq!(store.good_before(&second).await.unwrap().unwrap(), first);
    assert!(store.good_before(&first).await.unwrap().is_none());
    let back = NewDeployment {
        purpose: Purpose::Rollback { of: second.id, to: first.id },
        ..new_deployment("production", "web", "a")
    };
    let back = store.create_deployment(back, clock.now()).await.unwrap();
    let back = carry(store, clock, back.id).await;
    assert_eq!(store.serving(&production, &web).await.unwrap().unwrap(), back);
    // Going back once more goes behind what was gone back to; there is nothing.
    assert!(store.good_before(&back).await.unwrap().is_none());
    let shas = store.deployed_shas(&production, &web).await.unwrap();
    assert_eq!(shas, ["a".repeat(40), "b".repeat(40)]);
    let ended = back.times.finished.unwrap();
    let suspect = async |at: Timestamp| store.suspect(&production, &web, at).await.unwrap();
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(suspect(ended).await, Some(back.id));
    assert_eq!(suspect(ended + day).await, Some(back.id));
    assert_eq!(suspect(ended + day + Duration::from_micros(1)).await, None);
    assert_eq!(suspect(second.times.finished.unwrap()).await, Some(second.id));
    assert_eq!(suspect(first.times.created).await, None);
    assert_eq!(first.state.outcome(), Some(Outcome::Succeeded));
}

/// Lists are newest first, filtered, and go on behind the last.
pub async fn deployments_are_listed<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web", "worker"]).await;
    assert_eq!(store.latest_deployment().await.unwrap(), None);
    ship(store, clock, "web", "a").await;
    ask(store, clock, "worker", "a").await;
    ask(store, clock, "web", "b").await;
    let ids = async |filter: DeploymentFilter| -> Vec<i64> {
        let list = store.deployments(filter).await.unwrap();
        list.iter().map(|stored| stored.deployment.id.0).collect()
    };
    assert_eq!(ids(all()).await, [3, 2, 1]);
    assert_eq!(ids(DeploymentFilter { active: true, ..all() }).await, [3, 2]);
    let web = Some("web".parse().unwrap());
    assert_eq!(ids(DeploymentFilter { service: web, ..all() }).await, [3, 1]);
    let staging = Some("staging".parse().unwrap());
    assert!(ids(DeploymentFilter { environment: staging, ..all() }).await.is_empty());
    assert_eq!(ids(DeploymentFilter { limit: 2, ..all() }).await, [3, 2]);
    assert_eq!(ids(DeploymentFilter { before: Some(DeploymentId(2)), ..all() }).await, [1]);
    assert_eq!(store.latest_deployment().await.unwrap(), Some(DeploymentId(3)));
    assert!(store.deployment(DeploymentId(4)).await.unwrap().is_none());
}

/// Samples are kept in order, and thinned when there are too many: the first stays.
pub async fn samples_are_bounded<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web"]).await;
    let id = ask(store, clock, "web", "a").await.id;
    step(store, clock, id, turn()).await;
    let first = clock.now();
    for n in 0..=MAX_SAMPLES {
        let event = if n % 2 == 0 { Event::Lost { problem: "no".into() } } else { Event::Absent };
        let applied = stored(store, id).await.deployment.apply(event, clock.now()).unwrap();
        let (canary, stable) = (ArmView::default(), None);
        let at = clock.now();
        let sample = SampleView { at, intended_weight: 10, measured_weight: None, canary, stable };
        let change = Change { entries: vec![], sample: Some(sample), ..Change::of(applied) };
        store.change_deployment(change, clock.now()).await.unwrap();
        clock.advance(Duration::from_secs(1));
    }
    let samples = store.samples(id).await.unwrap();
    assert_eq!(samples.len() as i64, MAX_SAMPLES / 2 + 1);
    assert_eq!(samples[0].at, first);
    assert!(samples.is_sorted_by_key(|sample| sample.at));
}
