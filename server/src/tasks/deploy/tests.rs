//! The whole driver over a real store, with a provider in memory and a clock that the test moves.

mod faults;
mod harness;
mod http;
mod metrics;
mod notices;
mod rules;
mod serving;
mod trouble;

use std::time::Duration;

use harness::Harness;
use pipeyard_deploy::provider::ProviderStatus;
use pipeyard_model::{
    DeploymentId,
    deployment::{Answer, Outcome, State},
    plan::{Batch, CanaryStep, HealthLimit, Otherwise, Strategy},
};
use pipeyard_store::deployments::Change;

pub(super) fn canary(holds: &[(u8, u64)]) -> Strategy {
    let steps = holds.iter().map(|(weight, seconds)| CanaryStep {
        weight: *weight,
        hold: Duration::from_secs(*seconds),
    });
    Strategy::Canary { steps: steps.collect() }
}

#[tokio::test]
async fn a_canary_goes_through_its_weights_to_all_traffic() {
    let h = Harness::new().await;
    let first = h.ship("web", "a", canary(&[(10, 10), (50, 10)])).await;
    assert_eq!(h.until_over(first).await, Outcome::Succeeded);
    let second = h.ship("web", "b", canary(&[(10, 10), (50, 10)])).await;
    let mut weights = vec![];
    for _ in 0..60 {
        h.pass().await;
        let weight = h.fake.weight(&h.group("web"));
        if weights.last() != Some(&weight) {
            weights.push(weight);
        }
        if h.outcome(second).await.is_some() {
            break;
        }
    }
    assert_eq!(weights, [0, 10, 50, 0], "the fake forgets the weight when the set is all there is");
    let stored = h.stored(second).await;
    assert_eq!(stored.deployment.state, State::Finished(Outcome::Succeeded));
    let verdict = stored.deployment.verdict.unwrap();
    assert_eq!(verdict.answer, Answer::Healthy);
    assert!(verdict.message.starts_with("all limits held: error_rate 0 %"), "{}", verdict.message);
    assert_eq!(stored.deployment.replaces.unwrap().deployment, first);
    let codes: Vec<String> = h.timeline(second).await;
    let story = [
        "requested",
        "started",
        "created",
        "weight_set",
        "step_passed",
        "weight_set",
        "verdict",
        "completing",
        "succeeded",
    ];
    assert_eq!(codes, story);
    assert!(!h.state.store.samples(second).await.unwrap().is_empty());
    // At 10 requests a second the hundred that are needed take a second more.
    assert_eq!(stored.look.watched_seconds, [11, 10]);
}

#[tokio::test]
async fn a_bad_canary_is_taken_back_and_the_old_release_serves() {
    let h = Harness::new().await;
    let first = h.shipped("web", "a").await;
    h.fake.set_traffic(0.08, 200);
    let bad = h.ship("web", "b", canary(&[(10, 60)])).await;
    assert_eq!(h.until_over(bad).await, Outcome::RolledBack);
    let d = h.stored(bad).await.deployment;
    let verdict = d.verdict.unwrap();
    assert_eq!((verdict.answer, verdict.code.as_str()), (Answer::Broken, "limit_broken"));
    assert!(verdict.message.contains("exceeds 1 %: lower bound"), "{}", verdict.message);
    assert!(d.times.restored.is_some() && d.times.first_traffic.is_some());
    assert_eq!(h.fake.weight(&h.group("web")), 0);
    assert_eq!(h.fake.made().last().unwrap().status, ProviderStatus::Stopped);
    let serving = h.state.store.serving(&d.environment, &d.service).await.unwrap().unwrap();
    assert_eq!(serving.id, first);
}

#[tokio::test]
async fn otherwise_hold_keeps_the_weight_until_a_person_decides() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    h.fake.set_traffic(0.3, 200);
    let mut new = h.new_deployment("web", "b", canary(&[(10, 60)])).await;
    new.otherwise = Otherwise::Hold;
    let id = h.state.store.create_deployment(new, h.now()).await.unwrap().id;
    h.until(id, |s| matches!(s, State::Holding(..))).await;
    for _ in 0..5 {
        h.pass().await;
    }
    assert_eq!(h.fake.weight(&h.group("web")), 10);
    let answer = h.post(&format!("/api/deployments/{id}/promote"), "{}").await;
    assert_eq!(answer["state"], "completing");
    assert_eq!(h.until_over(id).await, Outcome::Succeeded);
}

#[tokio::test]
async fn without_traffic_the_verdict_is_inconclusive() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    h.fake.set_traffic(0.0, 0);
    let id = h.ship("web", "b", canary(&[(10, 10)])).await;
    assert_eq!(h.until_over(id).await, Outcome::RolledBack);
    let d = h.stored(id).await.deployment;
    let verdict = d.verdict.unwrap();
    assert_eq!((verdict.answer, verdict.code.as_str()), (Answer::Inconclusive, "too_little_data"));
    assert!(verdict.message.contains("0 of 100 requests"), "{}", verdict.message);
    let judged = verdict.at.since(d.times.first_traffic.unwrap());
    assert!(judged >= Duration::from_secs(310), "{judged:?}");
}

#[tokio::test]
async fn without_data_nothing_passes_and_the_old_release_comes_back() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    let id = h.ship("web", "b", canary(&[(10, 30)])).await;
    h.until(id, |s| matches!(s, State::Shifting(..))).await;
    h.pass().await;
    h.fake.set_down(true);
    for _ in 0..150 {
        h.pass().await;
    }
    let d = h.stored(id).await.deployment;
    assert!(matches!(d.state, State::RollingBack(..)), "{:?}", d.state);
    assert_eq!(d.verdict.unwrap().code, "no_data");
    h.fake.set_down(false);
    assert_eq!(h.until_over(id).await, Outcome::RolledBack);
}

#[tokio::test]
async fn a_rolling_release_that_fails_on_hosts_is_restored_by_the_provider() {
    let h = Harness::new().await;
    let rolling = || Strategy::Rolling { batch: Batch::Count(1) };
    let first = h.ship("worker", "a", rolling()).await;
    assert_eq!(h.until_over(first).await, Outcome::Succeeded);
    h.fake.set_failing(Some("HEALTH_CONSTRAINTS: too many hosts failed"));
    let bad = h.ship("worker", "b", rolling()).await;
    h.until(bad, |s| matches!(s, State::RollingBack(..))).await;
    assert_eq!(h.until_over(bad).await, Outcome::RolledBack);
    let d = h.stored(bad).await.deployment;
    assert!(d.reason.unwrap().message.contains("HEALTH_CONSTRAINTS"));
    let restoring = h.fake.made().into_iter().filter(|m| m.restores.is_some()).count();
    assert_eq!(restoring, 1, "the provider's own rollback is followed, not repeated");
}

#[tokio::test]
async fn a_first_release_that_fails_has_nothing_to_go_back_to() {
    let h = Harness::new().await;
    h.fake.set_failing(Some("the containers never became healthy"));
    let id = h.ship("web", "a", canary(&[(10, 10)])).await;
    assert_eq!(h.until_over(id).await, Outcome::Failed);
    assert_eq!(h.stored(id).await.deployment.times.first_traffic, None);
}

#[tokio::test]
async fn what_a_target_cannot_honour_is_refused_before_anything_happens() {
    let h = Harness::new().await;
    let id = h.ship("worker", "a", canary(&[(10, 10)])).await;
    // A first release isn't shifted, but the strategy can't be honoured all the same.
    assert_eq!(h.until_over(id).await, Outcome::Rejected);
    assert_eq!(h.stored(id).await.deployment.reason.unwrap().code, "strategy_not_possible");
    // Nor is anybody asked to approve it first.
    let mut new = h.new_deployment("web", "a", Strategy::Rolling { batch: Batch::Count(1) }).await;
    new.needs_approval = true;
    new.asks_approval = true;
    let id = h.state.store.create_deployment(new, h.now()).await.unwrap().id;
    h.pass().await;
    assert_eq!(h.outcome(id).await, Some(Outcome::Rejected));
    assert!(h.fake.made().is_empty());
}

#[tokio::test]
async fn measurements_alone_wake_nobody() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    let id = h.ship("web", "b", canary(&[(10, 300)])).await;
    h.until(id, |s| matches!(s, State::Shifting(_, shift) if shift.set.is_some())).await;
    let before = h.state.store.last_event().await.unwrap();
    for _ in 0..60 {
        h.pass().await;
    }
    assert_eq!(h.state.store.last_event().await.unwrap(), before);
    let stored = h.stored(id).await;
    assert!(stored.look.measured_weight.is_some() && !stored.look.health.is_empty());
    assert!(!h.state.store.samples(id).await.unwrap().is_empty());
}

#[tokio::test]
async fn one_is_active_the_newest_of_those_that_wait_comes_next() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    let active = h.ship("web", "b", canary(&[(10, 30)])).await;
    h.until(active, |s| matches!(s, State::Shifting(..))).await;
    let older = h.ship("web", "c", canary(&[(10, 5)])).await;
    h.pass().await;
    let waits = h.stored(older).await.deployment;
    assert_eq!(waits.reason.unwrap().message, format!("waits for the end of deployment {active}"));
    let newer = h.ship("web", "d", canary(&[(10, 5)])).await;
    h.pass().await;
    assert_eq!(h.outcome(older).await, Some(Outcome::Superseded));
    assert_eq!(h.until_over(active).await, Outcome::Succeeded);
    assert_eq!(h.until_over(newer).await, Outcome::Succeeded);
    let order: Vec<DeploymentId> = h.started_order().await;
    assert_eq!(order, [DeploymentId(1), active, newer]);
}

#[tokio::test]
async fn places_do_not_wait_for_each_other() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    let web = h.ship("web", "b", canary(&[(10, 100)])).await;
    let worker = h.ship("worker", "b", Strategy::AllAtOnce).await;
    assert_eq!(h.until_over(worker).await, Outcome::Succeeded);
    assert_eq!(h.outcome(web).await, None);
}

#[tokio::test]
async fn a_change_of_an_older_version_is_refused() {
    let h = Harness::new().await;
    let id = h.ship("web", "a", Strategy::AllAtOnce).await;
    let before = h.stored(id).await.deployment;
    h.pass().await;
    let event = pipeyard_model::deployment::Event::Aborted { by: "ann".into(), comment: None };
    let stale = Change::of(before.apply(event, h.now()).unwrap());
    let error = h.state.store.change_deployment(stale, h.now()).await.unwrap_err();
    assert!(error.to_string().contains("changed by somebody else"), "{error}");
}

#[tokio::test]
async fn a_latency_limit_is_judged_too() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    let mut new = h.new_deployment("web", "b", canary(&[(50, 60)])).await;
    // The fake answers in 20 ms.
    new.limits = vec![HealthLimit::LatencyMs { percentile: 95, below: 10.0 }];
    let id = h.state.store.create_deployment(new, h.now()).await.unwrap().id;
    assert_eq!(h.until_over(id).await, Outcome::RolledBack);
    let verdict = h.stored(id).await.deployment.verdict.unwrap();
    assert!(verdict.message.starts_with("p95_ms "), "{}", verdict.message);
}
