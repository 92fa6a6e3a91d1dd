//! DORA numbers of a story whose answers were worked out by hand.

use std::time::Duration;

use pipeyard_model::deployment::Outcome;
use pipeyard_store::deployments::DeployedCommit;

use super::{canary, harness::Harness};

/// v1 of web and worker; v2 of both, each with one commit that is an hour old; v3 of web, taken back
/// by the judge; an incident for v3, closed after ten minutes.
///
/// - frequency: v1 and v2 of two services, 4; v3 never served everybody;
/// - lead time: v1 has no baseline; v2's commit twice, 3,600 s and a little;
/// - fail rate: v3 reached users: 1 of 5, once for both the abort and the incident;
/// - recovery: 1; rework: 0 of 5; time to restore: the incident's 600 s.
#[tokio::test]
async fn the_demo_story_gives_the_numbers_that_were_worked_out_by_hand() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    h.shipped("worker", "a").await;
    h.clock.advance(Duration::from_secs(3_600));
    for service in ["web", "worker"] {
        let id = h.shipped(service, "b").await;
        let written = h.now() - Duration::from_secs(3_600);
        let commit = DeployedCommit {
            sha: "b".repeat(40),
            title: "v2".into(),
            author: "ann".into(),
            authored_at: written,
            committed_at: written,
            first_seen: None,
            is_merge: false,
            is_cherry_pick: false,
        };
        h.state.store.set_commits(id, "known", vec![commit]).await.unwrap();
    }
    h.fake.set_traffic(0.08, 200);
    let bad = h.ship("web", "c", canary(&[(10, 60)])).await;
    assert_eq!(h.until_over(bad).await, Outcome::RolledBack);
    let body = format!(
        r#"{{"environment": "production", "service": "web", "title": "v3", "deployment": {bad}}}"#
    );
    let incident = h.post("/api/incidents", &body).await;
    h.clock.advance(Duration::from_secs(600));
    h.post(&format!("/api/incidents/{}/close", incident["id"]), "{}").await;

    let dora = h.get("/api/dora?since=7d&by=day").await;
    let metric = |name: &str| {
        let found = dora["metrics"].as_array().unwrap().iter().find(|m| m["name"] == name);
        found.unwrap_or_else(|| panic!("{name}")).clone()
    };
    let count = |name: &str| (metric(name)["n"].clone(), metric(name)["numerator"].clone());
    assert_eq!(metric("deployment_frequency")["n"], 4);
    assert_eq!(metric("change_lead_time")["n"], 2);
    let lead = metric("change_lead_time")["value"].as_f64().unwrap();
    assert!((3_590.0..3_610.0).contains(&lead), "{lead}");
    assert_eq!(count("change_fail_rate"), (5.into(), 1.into()));
    assert_eq!(count("rework_rate"), (5.into(), 0.into()));
    assert_eq!(metric("failed_deployment_recovery_time")["n"], 1);
    assert_eq!(metric("time_to_restore")["n"], 1);
    assert_eq!(metric("time_to_restore")["value"], 600.0);
    let rows = metric("change_fail_rate")["rows"].as_array().unwrap().clone();
    let against: Vec<_> = rows.iter().filter(|row| row["counts"] == "numerator").collect();
    assert_eq!(against.len(), 1);
    assert_eq!(against[0]["deployment"], bad.0);
    assert!(against[0]["reason"].as_str().unwrap().len() > 10);
    // Only what was asked for.
    let worker = h.get("/api/dora?since=7d&env=production&service=worker").await;
    assert_eq!(worker["metrics"][0]["n"], 2);
}

#[tokio::test]
async fn a_rollback_is_rework_and_no_deployment() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    h.shipped("web", "b").await;
    let back = h.post("/api/environments/production/web/rollback", "{}").await;
    let id = pipeyard_model::DeploymentId(back["id"].as_i64().unwrap());
    assert_eq!(h.until_over(id).await, Outcome::Succeeded);
    let dora = h.get("/api/dora?since=7d").await;
    let metric = |n: usize| dora["metrics"][n].clone();
    assert_eq!(metric(0)["n"], 2, "a rollback doesn't count as a deployment");
    assert_eq!((&metric(2)["n"], &metric(2)["numerator"]), (&2.into(), &1.into()));
    assert_eq!((&metric(4)["n"], &metric(4)["numerator"]), (&3.into(), &1.into()));
}

#[tokio::test]
async fn the_newest_bucket_of_every_metric_is_provisional() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    for by in ["day", "week", "month"] {
        let dora = h.get(&format!("/api/dora?since=60d&by={by}")).await;
        for metric in dora["metrics"].as_array().unwrap() {
            let buckets = metric["buckets"].as_array().unwrap();
            let newest = &buckets[buckets.len() - 1];
            assert_eq!(newest["provisional"], true, "{} by {by}", metric["name"]);
            assert_eq!(buckets[0]["provisional"], false, "{} by {by}", metric["name"]);
        }
    }
}

/// Sums are read for what the rows show: 1,200 deployments are counted, the newest 1,000 listed.
#[tokio::test]
async fn what_is_not_listed_is_still_counted() {
    let h = Harness::new().await;
    let new = h.new_deployment("web", "a", pipeyard_model::plan::Strategy::AllAtOnce).await;
    let by = pipeyard_model::deployment::Event::Aborted { by: "ann".into(), comment: None };
    let end = async || {
        let asked = h.state.store.create_deployment(new.clone(), h.now()).await.unwrap();
        let ended = asked.apply(by.clone(), h.now()).unwrap();
        let change = pipeyard_store::deployments::Change::of(ended);
        h.state.store.change_deployment(change, h.now()).await.unwrap();
    };
    futures_util::future::join_all((0..1_200).map(|_| end())).await;
    let dora = h.get("/api/dora?since=7d").await;
    let metric = &dora["metrics"][0];
    assert_eq!((&metric["rows_total"], &metric["n"]), (&1_200.into(), &0.into()));
    assert_eq!(metric["rows"].as_array().unwrap().len(), 1_000);
    assert_eq!(metric["rows"][0]["deployment"], 1_200);
}
