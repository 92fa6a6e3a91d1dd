//! Blue/green deployments of real containers, under load through the proxy.

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::{
    World,
    docker::{Load, Shop},
    until,
};
use pipeyard_model::fleet::TrafficReport;
use serde_json::json;

/// Waits until the present weight was measured on this many requests.
async fn measured(world: &World, shop: &Shop, requests: u64) -> TrafficReport {
    let name = shop.name();
    until("enough requests", Duration::from_secs(60), async || {
        let report = world.traffic(&name).await;
        (report.measured_requests >= requests).then_some(report)
    })
    .await
}

/// Whether a share of `n` requests may come of this weight: three standard deviations.
fn plausible(report: &TrafficReport) -> bool {
    let share = f64::from(report.intended) / 100.0;
    let deviation = (share * (1.0 - share) / report.measured_requests as f64).sqrt() * 100.0;
    (report.measured.unwrap_or(-1.0) - f64::from(report.intended)).abs() <= 3.0 * deviation
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_of_many_weights_shifts_completes_and_rolls_back_without_a_failed_request() {
    if !pipeyard_needs::docker(
        "a_canary_of_many_weights_shifts_completes_and_rolls_back_without_a_failed_request",
    ) {
        return;
    }
    let mut world = World::start().await;
    let shop = Shop::create(&world, Some(60)).await;
    let name = shop.name();

    // The first version has nothing to wait for.
    let v1 = world.deploy(&name, &shop.version(&world, "v1").await).await;
    world.reaches(&v1, &["Succeeded"]).await;
    assert_eq!(shop.get().await, "v1");
    let load = Load::start(shop.port);

    // Up, down and up again, then all of it.
    let v2 = world.deploy(&name, &shop.version(&world, "v2").await).await;
    let busy = world
        .try_aws(
            "CreateDeployment",
            json!({"applicationName": shop.application, "deploymentGroupName": "production",
                   "revision": shop.version(&world, "v9").await}),
        )
        .await
        .expect_err("the group is taken");
    assert!(busy.contains("DeploymentLimitExceededException") && busy.contains(&v2), "{busy}");
    world.reaches(&v2, &["Ready"]).await;
    for weight in [10, 50, 5] {
        let report = world.set_weight(&name, &v2, weight).await;
        assert_eq!(report.intended, weight);
        let report = measured(&world, &shop, 300).await;
        assert!(plausible(&report), "{report:?}");
        let (stable, canary) = (report.stable.unwrap(), report.canary.unwrap());
        assert_eq!((stable.id.as_str(), canary.id.as_str()), (v1.as_str(), v2.as_str()));
        assert_eq!((stable.weight, canary.weight), (100 - weight, weight));
        assert_eq!((stable.errors, canary.errors), (0, 0));
        // Requests are counted when they are given out, latencies when they are answered.
        assert!(canary.latency.count() > 0 && canary.latency.count() <= canary.requests);
    }
    world.aws("ContinueDeployment", json!({"deploymentId": v2})).await;
    world.reaches(&v2, &["Succeeded"]).await;
    world.aws("ContinueDeployment", json!({"deploymentId": v2})).await;
    assert_eq!(shop.get().await, "v2");
    assert_eq!(shop.containers(), BTreeMap::from([(v2.clone(), 2)]));

    // One that never becomes healthy.
    let sick = common::bundle(&[("www/index.html", 0o644, "v3")]);
    let sick = world.put_bundle("sick", sick).await;
    let v3 = world.deploy(&name, &sick).await;
    let info = world.reaches(&v3, &["Failed"]).await;
    let error = &info["errorInformation"];
    assert_eq!(error["code"], "CUSTOMER_APPLICATION_UNHEALTHY");
    assert!(error["message"].as_str().unwrap().contains("/health answered 404"), "{error}");
    assert_eq!(shop.containers(), BTreeMap::from([(v2.clone(), 2)]));

    // One that is stopped in the middle, by way of a fleet that was killed.
    let v4 = world.deploy(&name, &shop.version(&world, "v4").await).await;
    world.reaches(&v4, &["Ready"]).await;
    world.set_weight(&name, &v4, 30).await;
    world.kill_fleet().await;
    let before = load.sent.load(std::sync::atomic::Ordering::Relaxed);
    until("the proxy serves alone", Duration::from_secs(20), async || {
        (load.sent.load(std::sync::atomic::Ordering::Relaxed) > before + 100).then_some(())
    })
    .await;
    world.start_fleet().await;
    assert_eq!(world.info(&v4).await["status"], "Ready");
    let report = measured(&world, &shop, 300).await;
    assert!(report.intended == 30 && plausible(&report), "{report:?}");
    world.aws("StopDeployment", json!({"deploymentId": v4, "autoRollbackEnabled": true})).await;
    world.reaches(&v4, &["Stopped"]).await;
    assert_eq!(shop.get().await, "v2");
    assert_eq!(shop.containers(), BTreeMap::from([(v2.clone(), 2)]));
    let again = json!({"deploymentId": v4});
    let refused = world.try_aws("StopDeployment", again).await.unwrap_err();
    assert!(refused.contains("DeploymentAlreadyCompletedException"), "{refused}");

    let (sent, failures) = load.end().await;
    assert_eq!(failures, [""; 0], "of {sent}");
    let listed = world
        .aws(
            "ListDeployments",
            json!({"applicationName": shop.application, "deploymentGroupName": "production"}),
        )
        .await;
    assert_eq!(listed["deployments"], json!([v4, v3, v2, v1]));
    let target = format!("{}:production", shop.application);
    let found =
        world.aws("GetDeploymentTarget", json!({"deploymentId": v2, "targetId": target})).await;
    assert_eq!(found["deploymentTarget"]["ecsTarget"]["status"], "Succeeded");

    // Nothing outlives the application.
    world.aws("DeleteApplication", json!({"applicationName": shop.application})).await;
    until("the containers are gone", Duration::from_secs(30), async || {
        shop.containers().is_empty().then_some(())
    })
    .await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_a_stopped_fleet_can_be_removed() {
    if !pipeyard_needs::docker("everything_of_a_stopped_fleet_can_be_removed") {
        return;
    }
    let world = World::start().await;
    let shop = Shop::create(&world, None).await;
    let id = world.deploy(&shop.name(), &shop.version(&world, "v1").await).await;
    world.reaches(&id, &["Succeeded"]).await;
    let data = world.fleet.data_dir.clone();
    let folder = world.end().await;
    assert_eq!(shop.containers(), BTreeMap::from([(id, 2)]), "they outlive the fleet");
    pipeyard_fleet::remove_everything(&data).await.unwrap();
    assert!(shop.containers().is_empty());
    pipeyard_fleet::remove_everything(folder.path()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_is_missing_or_changed_fails_the_deployment_and_nothing_starts() {
    if !pipeyard_needs::docker(
        "a_bundle_that_is_missing_or_changed_fails_the_deployment_and_nothing_starts",
    ) {
        return;
    }
    let world = World::start().await;
    let shop = Shop::create(&world, None).await;
    let mut revision = shop.version(&world, "v1").await;
    revision["s3Location"]["eTag"] = json!("0".repeat(64));
    // Sent twice by an SDK that lost the answer: one deployment, also when it is over.
    let input = json!({"applicationName": shop.application, "deploymentGroupName": "production",
        "revision": revision});
    let first = world.invoke("CreateDeployment", input.clone(), "i-1").await.unwrap();
    assert_eq!(world.invoke("CreateDeployment", input.clone(), "i-1").await.unwrap(), first);
    let changed = first["deploymentId"].as_str().unwrap().to_owned();
    let info = world.reaches(&changed, &["Failed"]).await;
    assert_eq!(info["errorInformation"]["code"], "REVISION_MISSING");
    assert_eq!(world.invoke("CreateDeployment", input, "i-1").await.unwrap(), first);
    revision["s3Location"]["key"] = json!("nothing");
    let missing = world.deploy(&shop.name(), &revision).await;
    let info = world.reaches(&missing, &["Failed"]).await;
    assert!(info["errorInformation"]["message"].as_str().unwrap().contains("releases/nothing"));
    assert!(shop.containers().is_empty());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_wait_traffic_shifts_by_itself_and_containers_that_vanish_come_back() {
    if !pipeyard_needs::docker(
        "without_a_wait_traffic_shifts_by_itself_and_containers_that_vanish_come_back",
    ) {
        return;
    }
    let world = World::start().await;
    let shop = Shop::create(&world, None).await;
    for version in ["v1", "v2"] {
        let id = world.deploy(&shop.name(), &shop.version(&world, version).await).await;
        world.reaches(&id, &["Succeeded"]).await;
        assert_eq!(shop.get().await, version);
        assert_eq!(shop.containers(), BTreeMap::from([(id, 2)]));
    }
    let filter = format!("label=pipeyard.service={}", shop.name());
    let found =
        std::process::Command::new("docker").args(["ps", "-q", "--filter", &filter]).output();
    let first = String::from_utf8(found.unwrap().stdout).unwrap();
    let first = first.lines().next().unwrap();
    std::process::Command::new("docker").args(["rm", "-f", first]).output().unwrap();
    until("the set is whole again", Duration::from_secs(40), async || {
        (shop.containers().values().sum::<usize>() == 2).then_some(())
    })
    .await;
    world.end().await;
}
