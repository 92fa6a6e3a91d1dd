//! What is told about deployments, incidents and failed runs.

use std::time::Duration;

use pipeyard_model::{
    Actor, Clock as _, Conclusion, DeploymentId, IntentId, ManualClock, UserId,
    deployment::{Answer, Deployment, Event, Replaced, Verdict},
    environment::Given,
    plan::{CanaryStep, Strategy},
};
use serde_json::Value;

use super::{
    claims::{end, of},
    kept::github,
    make::{claim, job, need, new_deployment, places, run, setup},
    places::incident,
    rollouts::step,
};
use crate::{
    Store,
    deployments::NewDeployment,
    outbox::{CommitState, Notice},
};

/// The messages that are due, until there are none: `event` of a notification with its data, the
/// commit's state of a status.
async fn told<S: Store>(
    store: &S,
    clock: &ManualClock,
) -> (Vec<(String, Value)>, Vec<CommitState>) {
    let (mut events, mut states) = (Vec::new(), Vec::new());
    loop {
        let due = store.due_messages(clock.now(), 100).await.unwrap();
        if due.is_empty() {
            return (events, states);
        }
        for message in due {
            match message.notice {
                Notice::Notification { event, data } => events.push((event, data)),
                Notice::DeploymentStatus { state, place, .. } => {
                    assert_eq!(place, "production/web");
                    states.push(state);
                }
                Notice::CommitStatus { .. } => {}
            }
            store.message_sent(message.id, clock.now()).await.unwrap();
        }
    }
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(event, _)| event.as_str()).collect()
}

fn started(id: DeploymentId, replaces: Option<&Deployment>) -> [Event; 2] {
    let replaces =
        replaces.map(|old| Replaced { deployment: old.id, release: old.release.clone() });
    let token = IntentId::new();
    [
        Event::TurnCame { token, replaces },
        Event::Created { provider: format!("d-{id}"), adopted: false },
    ]
}

/// Waiting for approval, started, succeeded: each once and in order, to whoever listens and on the
/// commit; what nobody need know isn't told.
pub async fn a_deployment_is_told_from_start_to_end<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web"]).await;
    let repo = github(store, clock, true).await;
    let mut new =
        NewDeployment { needs_approval: true, ..new_deployment("production", "web", "a") };
    new.release.repo = repo;
    let id = store.create_deployment(new, clock.now()).await.unwrap().id;
    let (events, states) = told(store, clock).await;
    assert_eq!(names(&events), ["deployment.waiting_for_approval"]);
    assert_eq!(states, [CommitState::Pending]);
    let given = Given { user: None, by: "ann".into(), at: clock.now(), own: None, comment: None };
    let approved = Event::Approved { given, missing: None };
    step(store, clock, id, approved).await;
    let [turn, created] = started(id, None);
    step(store, clock, id, turn).await;
    step(store, clock, id, Event::Lost { problem: "timed out".into() }).await;
    assert!(told(store, clock).await.0.is_empty(), "whether it started isn't known");
    step(store, clock, id, created).await;
    step(store, clock, id, Event::TrafficBegan).await;
    let (events, _) = told(store, clock).await;
    assert_eq!(names(&events), ["deployment.started"]);
    step(store, clock, id, Event::ProviderSucceeded).await;
    let (events, states) = told(store, clock).await;
    assert_eq!(names(&events), ["deployment.succeeded"]);
    assert_eq!(states, [CommitState::Success]);
    let data = &events[0].1;
    assert_eq!((&data["deployment"], &data["environment"]), (&id.0.into(), &"production".into()));
    assert_eq!(data["commit"], "a".repeat(40));
}

/// A release that the judge takes back is told with the judge's words.
pub async fn a_rollback_is_told_with_the_judges_reason<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web"]).await;
    let first = super::rollouts::ask(store, clock, "web", "a").await.id;
    for event in started(first, None).into_iter().chain([Event::ProviderSucceeded]) {
        step(store, clock, first, event).await;
    }
    let first = super::rollouts::stored(store, first).await.deployment;
    let steps = vec![CanaryStep { weight: 10, hold: Duration::from_secs(60) }];
    let new = NewDeployment {
        strategy: Strategy::Canary { steps },
        ..new_deployment("production", "web", "b")
    };
    let id = store.create_deployment(new, clock.now()).await.unwrap().id;
    told(store, clock).await;
    let verdict = Verdict {
        answer: Answer::Broken,
        code: "limit_broken".into(),
        message: "error_rate 8 % is over 1 %".into(),
        at: clock.now(),
    };
    let story = started(id, Some(&first)).into_iter().chain([
        Event::Ready,
        Event::WeightSet,
        Event::Judged(verdict),
        Event::Restored,
        Event::Returned,
    ]);
    for event in story {
        step(store, clock, id, event).await;
    }
    let (events, states) = told(store, clock).await;
    assert_eq!(names(&events), ["deployment.started", "deployment.rolled_back"]);
    assert!(states.is_empty(), "nobody gave a token for the forge");
    let data = &events[1].1;
    assert_eq!(data["reason"]["code"], "limit_broken");
    assert_eq!(data["verdict"]["message"], "error_rate 8 % is over 1 %");
    assert_eq!(data["serves_again"], "a".repeat(40));
}

/// An incident is told when it is opened and when it is over, once each.
pub async fn an_incident_is_told<S: Store>(store: &S, clock: &ManualClock) {
    places(store, clock, &["web"]).await;
    let new = || crate::deployments::NewIncident {
        key: Some("pager-1".into()),
        ..incident(clock, "web")
    };
    let opened = store.open_incident(new(), clock.now()).await.unwrap();
    store.open_incident(new(), clock.now()).await.unwrap();
    let now = clock.now();
    store.close_incident(opened.id, now, "bob", Actor::user(UserId::new()), now).await.unwrap();
    store.close_incident(opened.id, now, "bob", Actor::user(UserId::new()), now).await.unwrap_err();
    let (events, _) = told(store, clock).await;
    assert_eq!(names(&events), ["incident.opened", "incident.resolved"]);
    assert_eq!(events[1].1["incident"], opened.id.0);
    assert_eq!(events[1].1["closed_by"], "bob");
}

/// A run that failed says which job failed first, and why: in the list, on its page and to whoever
/// listens.
pub async fn a_failed_run_says_which_job_and_why<S: Store>(store: &S, clock: &ManualClock) {
    let made = setup(store, clock).await;
    let nodes = vec![job("test", |_| {}), need(job("package", |_| {}), &["test"])];
    let id = run(store, clock, made.repo, nodes).await;
    let attempt = of(&claim(store, clock, made.runner).await);
    assert!(store.run(id).await.unwrap().unwrap().run.reason.is_none());
    let mut failure = end(Conclusion::Failure, clock);
    failure.reason = Some(pipeyard_api::runner::ReasonView {
        code: "step_failed".into(),
        message: "Step 2 (cargo test) exited with 101.".into(),
    });
    store.finish_attempt(made.runner, attempt, failure, clock.now()).await.unwrap();
    let message = "job test: step 2 (cargo test) exited with 101.";
    let listed = store
        .runs(crate::runs::RunFilter { limit: 1, ..crate::runs::RunFilter::default() })
        .await
        .unwrap();
    let viewed = store.run(id).await.unwrap().unwrap().run;
    for run in [&listed[0], &viewed] {
        let reason = run.reason.as_ref().unwrap();
        assert_eq!((reason.code.as_str(), reason.message.as_str()), ("step_failed", message));
    }
    let (events, _) = told(store, clock).await;
    assert_eq!(names(&events), ["run.failed"]);
    assert_eq!(events[0].1["reason"]["message"], message);
    // Started again, it hasn't failed yet.
    store.rerun(id, true, Actor::user(UserId::new()), clock.now()).await.unwrap();
    assert!(store.run(id).await.unwrap().unwrap().run.reason.is_none());
}
