//! A provider that doesn't answer in the middle of a deployment: people see it, and it has an end.

use std::time::Duration;

use pipeyard_model::{
    DeploymentId,
    deployment::{Outcome, State},
    plan::{Otherwise, Strategy},
};
use serde_json::{Value, json};

use super::{canary, harness::Harness};

async fn view(h: &Harness, id: DeploymentId) -> Value {
    h.get(&format!("/api/deployments/{id}")).await
}

/// A canary whose first weight is set.
async fn shifting(h: &Harness, otherwise: Otherwise) -> DeploymentId {
    h.shipped("web", "a").await;
    let mut new = h.new_deployment("web", "b", canary(&[(10, 300)])).await;
    new.otherwise = otherwise;
    let id = h.state.store.create_deployment(new, h.now()).await.unwrap().id;
    h.until(id, |s| matches!(s, State::Shifting(_, shift) if shift.set.is_some())).await;
    id
}

#[tokio::test]
async fn trouble_is_seen_while_it_lasts_and_told_once() {
    let h = Harness::new().await;
    let id = shifting(&h, Otherwise::Rollback).await;
    h.pass().await;
    assert_eq!(view(&h, id).await["trouble"], Value::Null);
    let before = h.state.store.last_event().await.unwrap();
    h.fake.set_down(true);
    let since = h.now();
    for _ in 0..60 {
        h.pass().await;
    }
    let told = json!({
        "since": since,
        "code": "provider_unreachable",
        "message": "the provider can't be reached: connection reset",
        "doing": "10 % of the traffic stays with the new release",
        "until": since + Duration::from_secs(120),
        "then": "the verdict is inconclusive",
    });
    assert_eq!(view(&h, id).await["trouble"], told);
    let listed = h.get("/api/deployments").await;
    assert_eq!(listed["items"][0]["trouble"], told);
    h.fake.set_down(false);
    h.pass().await;
    assert_eq!(view(&h, id).await["trouble"], Value::Null);
    let codes = h.timeline(id).await;
    assert_eq!(codes[codes.len() - 2..], ["provider_trouble", "provider_answers"]);
    // One event for its begin, one for its end.
    assert_eq!(h.state.store.last_event().await.unwrap(), before + 2);
    assert_eq!(h.until_over(id).await, Outcome::Succeeded);
}

#[tokio::test]
async fn a_weight_that_is_never_confirmed_has_an_end_and_the_provider_takes_it_back() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    h.fake.set_traffic_down(true);
    let id = h.ship("web", "b", canary(&[(10, 30)])).await;
    h.until(id, |s| matches!(s, State::Shifting(..))).await;
    h.pass().await;
    assert_eq!(view(&h, id).await["trouble"]["code"], "provider_unreachable");
    for _ in 0..125 {
        h.pass().await;
    }
    assert_eq!(h.outcome(id).await, Some(Outcome::RolledBack));
    let d = h.stored(id).await.deployment;
    assert_eq!(d.verdict.unwrap().code, "no_data");
    assert!(d.times.restored.is_some());
}

#[tokio::test]
async fn data_that_comes_too_rarely_is_no_reason_to_wait_for_ever() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    let id = h.ship("web", "b", canary(&[(10, 30)])).await;
    h.until(id, |s| matches!(s, State::Shifting(_, shift) if shift.set.is_some())).await;
    for _ in 0..40 {
        h.fake.set_down(true);
        for _ in 0..9 {
            h.pass().await;
        }
        h.fake.set_down(false);
        h.pass().await;
    }
    let d = h.stored(id).await.deployment;
    let verdict = d.verdict.unwrap();
    assert_eq!(verdict.code, "too_little_data");
    assert!(verdict.message.starts_with("fresh data for "), "{}", verdict.message);
    assert_eq!(h.until_over(id).await, Outcome::RolledBack);
}

#[tokio::test]
async fn while_it_goes_back_people_see_who_has_the_traffic() {
    let h = Harness::new().await;
    let id = shifting(&h, Otherwise::Rollback).await;
    h.fake.set_down(true);
    h.until(id, |s| matches!(s, State::RollingBack(..))).await;
    h.pass().await;
    let trouble = view(&h, id).await["trouble"].clone();
    assert_eq!(trouble["doing"], "the old release gets all traffic once it answers");
    assert_eq!(trouble["then"], "the rollback counts as failed");
    h.fake.set_down(false);
    assert_eq!(h.until_over(id).await, Outcome::RolledBack);
}

#[tokio::test]
async fn a_provider_that_never_comes_back_does_not_hold_the_place_for_ever() {
    let h = Harness::new().await;
    let id = shifting(&h, Otherwise::Hold).await;
    h.fake.set_down(true);
    h.until(id, |s| matches!(s, State::Holding(..))).await;
    h.clock.advance(Duration::from_secs(5 * 3600));
    h.pass().await;
    assert!(h.outcome(id).await.is_none());
    let next = h.ship("web", "c", Strategy::AllAtOnce).await;
    h.clock.advance(Duration::from_secs(3600));
    h.pass().await;
    assert_eq!(h.outcome(id).await, Some(Outcome::Failed));
    let d = h.stored(id).await.deployment;
    let reason = d.reason.unwrap();
    assert_eq!(reason.code, "provider_lost");
    let words = ["no data for 6h", "connection reset", "where its traffic goes isn't known"];
    assert!(words.iter().all(|word| reason.message.contains(word)), "{}", reason.message);
    assert_eq!(d.trouble, None);
    // Whoever is next waits for the provider as well, and says so.
    h.pass().await;
    assert_eq!(view(&h, next).await["reason"]["code"], "provider_unreachable");
    // What was left of the first one is in its way, and is named.
    h.fake.set_down(false);
    h.until(next, |s| matches!(s, State::Queued)).await;
}

#[tokio::test]
async fn a_provider_that_forgot_the_deployment_is_believed_after_a_while() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    let id = h.ship("web", "b", Strategy::AllAtOnce).await;
    h.until(id, |s| matches!(s, State::Working(_))).await;
    h.fake.forget_everything();
    h.pass().await;
    let trouble = view(&h, id).await["trouble"].clone();
    assert_eq!(trouble["code"], "provider_refused");
    assert!(trouble["message"].as_str().unwrap().contains("DeploymentDoesNotExist"), "{trouble}");
    for _ in 0..310 {
        h.pass().await;
    }
    assert_eq!(h.outcome(id).await, Some(Outcome::Failed));
    let next = h.ship("web", "c", Strategy::AllAtOnce).await;
    assert_eq!(h.until_over(next).await, Outcome::Succeeded);
}
