//! Environments and decisions over HTTP.

use pipeyard_model::{
    deployment::{Outcome, State},
    plan::Strategy,
};

use serde_json::Value;

use super::{
    canary,
    harness::{Harness, environments},
};

#[tokio::test]
async fn an_apply_is_idempotent_and_tells_the_differences() {
    let h = Harness::new().await;
    let put = async |file: &serde_json::Value, query: &str| {
        h.send("PUT", &format!("/api/environments{query}"), &file.to_string()).await
    };
    let mut file = environments();
    let (status, same) = put(&file, "").await;
    assert_eq!((status, &same["changes"]), (200, &serde_json::json!([])));
    file["environments"]["production"]["services"]["web"]["container"]["replicas"] = 3.into();
    let wanted = serde_json::json!([{"change": "changed", "what": "service production/web",
        "fields": ["container.replicas: 2 -> 3"]}]);
    for query in ["?dry_run=true", "?dry_run=true", ""] {
        assert_eq!(put(&file, query).await.1["changes"], wanted, "{query}");
    }
    assert_eq!(put(&file, "").await.1["changes"], serde_json::json!([]));
    file["environments"]["production"]["services"].as_object_mut().unwrap().remove("worker");
    assert_eq!(put(&file, "").await.1["changes"][0]["change"], "retired");
    file["environments"]["production"]["services"]["web"]["hosts"] = serde_json::json!(
        {"tags": {"a": "b"}, "count": 1});
    let (status, error) = put(&file, "").await;
    assert_eq!((status, error["error"]["code"].as_str()), (400, Some("environments_invalid")));
    let listed = h.get("/api/environments").await;
    assert_eq!(listed[0]["services"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_deployment_that_needs_an_approval_waits_for_it() {
    let h = Harness::new().await;
    let mut new = h.new_deployment("web", "a", Strategy::AllAtOnce).await;
    new.needs_approval = true;
    new.asks_approval = true;
    // The text in the commit names the administrator: anybody can write that, so it says nothing.
    new.requested_by = h.get("/api/me").await["name"].as_str().unwrap().to_owned();
    let id = h.state.store.create_deployment(new, h.now()).await.unwrap().id;
    for _ in 0..5 {
        h.pass().await;
    }
    assert!(h.fake.made().is_empty());
    let path = format!("/api/deployments/{id}");
    assert_eq!(h.get(&path).await["reason"]["code"], "waits_for_approval");
    let approved = h.post(&format!("{path}/approve"), r#"{"comment": "looks good"}"#).await;
    assert_eq!(approved["approval"]["own"], false);
    assert_eq!(approved["approval"]["given"][0]["own"], Value::Null, "nobody knows");
    assert_eq!(approved["approval"]["comment"], "looks good");
    let again = h.refused(&format!("{path}/approve"), "{}").await;
    assert_eq!(again, (409, "not_waiting_for_approval".into()));
    assert_eq!(h.until_over(id).await, Outcome::Succeeded);
    assert_eq!(
        h.refused(&format!("{path}/abort"), "{}").await,
        (409, "deployment_finished".into())
    );
}

#[tokio::test]
async fn an_abort_before_the_start_cancels_and_after_it_goes_back() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    let id = h.ship("web", "b", canary(&[(10, 100)])).await;
    h.until(id, |s| matches!(s, State::Shifting(..))).await;
    let waiting = h.ship("web", "c", canary(&[(10, 100)])).await;
    let cancelled = h.post(&format!("/api/deployments/{waiting}/abort"), "{}").await;
    assert_eq!(
        (&cancelled["state"], &cancelled["conclusion"]),
        (&"cancelled".into(), &"cancelled".into())
    );
    let aborted = h.post(&format!("/api/deployments/{id}/abort"), "{}").await;
    assert_eq!(aborted["state"], "rolling_back");
    assert_eq!(h.until_over(id).await, Outcome::Aborted);
    let detail = h.get(&format!("/api/deployments/{id}")).await;
    assert_eq!(detail["rolled_back_to"], 1);
    assert_eq!(detail["steps"][0]["weight"], 10);
    assert_eq!(h.fake.weight(&h.group("web")), 0);
}

#[tokio::test]
async fn a_promotion_ends_the_judging() {
    let h = Harness::new().await;
    h.shipped("web", "a").await;
    let id = h.ship("web", "b", canary(&[(10, 3_600)])).await;
    let path = format!("/api/deployments/{id}/promote");
    assert_eq!(h.refused(&path, "{}").await, (409, "not_judging".into()));
    h.until(id, |s| matches!(s, State::Shifting(..))).await;
    assert_eq!(h.post(&path, "{}").await["state"], "completing");
    assert_eq!(h.until_over(id).await, Outcome::Succeeded);
}

#[tokio::test]
async fn a_rollback_ships_the_last_good_release_without_judging() {
    let h = Harness::new().await;
    let path = "/api/environments/production/web/rollback";
    assert_eq!(h.refused(path, "{}").await, (409, "no_release_to_roll_back_to".into()));
    let first = h.shipped("web", "a").await;
    let second = h.shipped("web", "b").await;
    let back = h.post(path, r#"{"comment": "orders fail"}"#).await;
    assert_eq!((&back["purpose"], &back["rollback_of"]), (&"rollback".into(), &second.0.into()));
    assert_eq!(back["release"]["commit"], "a".repeat(40));
    let id = pipeyard_model::DeploymentId(back["id"].as_i64().unwrap());
    assert_eq!(h.refused(path, r#"{"to": 99}"#).await.0, 404);
    assert_eq!(h.until_over(id).await, Outcome::Succeeded);
    let listed = h.get("/api/environments").await;
    let serving = &listed[0]["services"][0]["serving"];
    assert_eq!(serving["release"]["commit"], "a".repeat(40));
    assert_eq!(serving["deployment"], id.0);
    let _ = first;
}

#[tokio::test]
async fn incidents_are_blamed_on_the_last_success_of_a_day_or_on_nobody() {
    let h = Harness::new().await;
    let body = r#"{"environment": "production", "service": "web", "title": "checkout fails", "key": "k1"}"#;
    let nobody = h.post("/api/incidents", body).await;
    assert_eq!(nobody["deployment"], serde_json::Value::Null);
    assert_eq!(
        h.post("/api/incidents", body).await["id"],
        nobody["id"],
        "the same key is the same"
    );
    let id = h.shipped("web", "a").await;
    let blamed = h.post("/api/incidents", &body.replace("k1", "k2")).await;
    assert_eq!((&blamed["deployment"], &blamed["link"]), (&id.0.into(), &"inferred".into()));
    let close = format!("/api/incidents/{}/close", blamed["id"]);
    let early = r#"{"restored_at": "2020-01-01T00:00:00Z"}"#;
    assert_eq!(h.refused(&close, early).await, (409, "restored_before_impact".into()));
    assert!(h.post(&close, "{}").await["restored_at"].is_string());
    assert_eq!(h.refused(&close, "{}").await, (409, "incident_closed".into()));
    let listed = async |query: &str| -> Vec<Value> {
        let list = h.get(&format!("/api/incidents{query}")).await;
        list.as_array().unwrap().iter().map(|incident| incident["id"].clone()).collect()
    };
    assert_eq!(listed("").await.len(), 2);
    assert_eq!(listed("?open=true").await, [nobody["id"].clone()]);
    assert_eq!(listed("?open=false").await, [blamed["id"].clone()]);
    let elsewhere = body.replace("web", "nowhere").replace("k1", "k3");
    assert_eq!(h.refused("/api/incidents", &elsewhere).await.0, 404);
}
