//! What was deployed and doesn't serve: told, and never called restored. And a release whose bytes
//! were damaged on our own disk.

use std::time::Duration;

use pipeyard_model::{
    deployment::{Outcome, State},
    plan::Strategy,
};

use super::{canary, harness::Harness};
use crate::tasks::serving::{self, Told};

#[tokio::test]
async fn a_dead_service_is_an_incident_until_it_serves_again() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    let mut told = Told::default();
    let look = async |told: &mut Told| serving::look(&h.state, told).await.unwrap();
    look(&mut told).await;
    assert!(h.get("/api/incidents").await.as_array().unwrap().is_empty());
    h.clock.advance(Duration::from_secs(60));
    h.fake.set_dead(Some("container 0: it is stopped"));
    let began = h.now();
    h.clock.advance(Duration::from_secs(2));
    for _ in 0..3 {
        look(&mut told).await;
    }
    let environments = h.get("/api/environments").await;
    let services = environments[0]["services"].as_array().unwrap();
    let web = services.iter().find(|service| service["name"] == "web").unwrap();
    assert_eq!(web["health"]["state"], "down", "{web}");
    // Both services of the fake are dead; each is one incident, however often it is looked at.
    let open = h.get("/api/incidents?open=true&service=web").await;
    assert_eq!(open.as_array().unwrap().len(), 1, "{open}");
    let title = open[0]["title"].as_str().unwrap();
    assert_eq!(title, "production/web served nobody: container 0: it is stopped");
    assert_eq!(open[0]["impact_at"], serde_json::to_value(began).unwrap());
    assert_eq!(open[0]["opened_by"], "pipeyard");
    h.clock.advance(Duration::from_secs(5));
    h.fake.set_dead(None);
    // A server that was started anew remembers nothing.
    look(&mut Told::default()).await;
    assert_eq!(h.get("/api/incidents?open=true").await.as_array().unwrap().len(), 0);
    look(&mut told).await;
    assert_eq!(h.get("/api/incidents?service=web").await.as_array().unwrap().len(), 1);
    // One that nobody looked at while it lasted.
    h.fake.set_dead(Some("gone"));
    h.fake.set_dead(None);
    look(&mut told).await;
    assert_eq!(h.get("/api/incidents?service=web").await.as_array().unwrap().len(), 2);
    assert_eq!(h.get("/api/incidents?open=true").await.as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn the_old_release_is_back_only_when_it_answers() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    h.fake.set_traffic(0.5, 200);
    h.fake.set_dead(Some("it was removed"));
    let bad = h.ship("web", "b", canary(&[(10, 60)])).await;
    assert_eq!(h.until_over(bad).await, Outcome::RollbackFailed);
    let d = h.stored(bad).await.deployment;
    assert_eq!(d.times.restored, None);
    let reason = d.reason.unwrap().message;
    assert!(reason.contains("doesn't serve: it was removed"), "{reason}");
    // Dead for a while only: it is waited for.
    let next = h.ship("web", "c", canary(&[(10, 60)])).await;
    h.until(next, |s| matches!(s, State::RollingBack(..))).await;
    h.pass().await;
    h.fake.set_dead(None);
    assert_eq!(h.until_over(next).await, Outcome::RolledBack);
}

#[tokio::test]
async fn a_release_with_a_wrong_byte_is_refused_by_name_and_blocks_nobody() {
    let h = Harness::new().await;
    let new = h.new_deployment("web", "a", Strategy::AllAtOnce).await;
    let sha256 = new.release.sha256.clone();
    let file = h.state.blobs.path(&sha256).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let damaged = h.state.store.create_deployment(new, h.now()).await.unwrap().id;
    let good = h.ship("web", "b", Strategy::AllAtOnce).await;
    assert_eq!(h.until_over(good).await, Outcome::Succeeded);
    let d = h.stored(damaged).await.deployment;
    let reason = d.reason.unwrap();
    // Whether the newer one took its place first doesn't matter to users; refused is what it is else.
    if d.state == State::Finished(Outcome::Rejected) {
        assert_eq!(reason.code, "release_damaged");
        assert!(reason.message.contains(&sha256[..]), "{}", reason.message);
    } else {
        assert_eq!(d.state, State::Finished(Outcome::Superseded));
    }
    // Alone it is refused, with nothing asked of the provider.
    let calls = h.fake.calls().len();
    let mut alone = h.new_deployment("worker", "c", Strategy::AllAtOnce).await;
    alone.release.sha256.clone_from(&sha256);
    let id = h.state.store.create_deployment(alone, h.now()).await.unwrap().id;
    assert_eq!(h.until_over(id).await, Outcome::Rejected);
    let reason = h.stored(id).await.deployment.reason.unwrap();
    assert_eq!(reason.code, "release_damaged");
    assert!(reason.message.contains(&sha256[..]), "{}", reason.message);
    assert_eq!(h.fake.calls().len(), calls);
    // Built again, the same bytes put it right.
    let again = h.new_deployment("worker", "a", Strategy::AllAtOnce).await;
    assert_eq!(again.release.sha256, sha256);
    let id = h.state.store.create_deployment(again, h.now()).await.unwrap().id;
    assert_eq!(h.until_over(id).await, Outcome::Succeeded);
}
