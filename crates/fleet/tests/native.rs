//! CodeDeploy's own ways to shift traffic by time: two steps (canary), linear, and the wait before
//! the old set goes. The fleet's clock is moved by the test; containers, proxy and load are real.

#![expect(clippy::unwrap_used, reason = "a test ends where its surroundings fail")]

mod common;

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use common::{
    World,
    docker::{Load, Shop},
    until,
};
use pipeyard_model::{Clock as _, ManualClock, SystemClock};
use serde_json::{Value, json};

const MINUTE: Duration = Duration::from_secs(60);

/// A fleet whose clock stands still, with a service whose first version serves.
struct Scene {
    world: World,
    clock: ManualClock,
    shop: Shop,
    first: String,
}

impl Scene {
    async fn start(config: &str, termination_minutes: u32) -> Self {
        let clock = ManualClock::at(SystemClock.now());
        let world = World::start_by(&clock).await;
        let shop = Shop::create(&world, None).await;
        let terminate = json!(
            {"action": "TERMINATE", "terminationWaitTimeInMinutes": termination_minutes});
        let group = json!({
            "applicationName": shop.application,
            "currentDeploymentGroupName": "production",
            "deploymentConfigName": config,
            "blueGreenDeploymentConfiguration":
                {"terminateBlueInstancesOnDeploymentSuccess": terminate},
        });
        world.aws("UpdateDeploymentGroup", group).await;
        let first = world.deploy(&shop.name(), &shop.version(&world, "v1").await).await;
        // A first version has nobody to take traffic from: it waits for nothing.
        world.reaches(&first, &["Succeeded"]).await;
        Self { world, clock, shop, first }
    }

    async fn deploy(&self, version: &str) -> String {
        let revision = self.shop.version(&self.world, version).await;
        self.world.deploy(&self.shop.name(), &revision).await
    }

    /// Waits until the new set serves this weight, and the engine waits for the end of its time: it
    /// looks at the target again only then.
    async fn weight(&self, id: &str, weight: u8) {
        until(&format!("{id} has {weight} %"), Duration::from_secs(60), async || {
            let report = self.world.traffic(&self.shop.name()).await;
            let canary = report.canary.as_ref().map(|arm| (arm.id.as_str(), arm.weight));
            let serves = canary == Some((id, weight));
            (serves && self.sets(id).await == shown(f64::from(weight))).then_some(())
        })
        .await;
    }

    /// Label, weight and running containers of both sets, as the target shows them.
    async fn sets(&self, id: &str) -> Vec<(String, f64, i64)> {
        let target = format!("{}:production", self.shop.application);
        let input = json!({"deploymentId": id, "targetId": target});
        let found = self.world.aws("GetDeploymentTarget", input).await;
        let sets = found["deploymentTarget"]["ecsTarget"]["taskSetsInfo"].clone();
        let set = |set: &Value| {
            let label = set["taskSetLabel"].as_str().unwrap().to_owned();
            (label, set["trafficWeight"].as_f64().unwrap(), set["runningCount"].as_i64().unwrap())
        };
        let mut sets: Vec<_> = sets.as_array().unwrap().iter().map(set).collect();
        sets.sort_by(|a, b| a.0.cmp(&b.0));
        sets
    }

    fn both(&self, id: &str) -> BTreeMap<String, usize> {
        BTreeMap::from([(self.first.clone(), 2), (id.to_owned(), 2)])
    }
}

/// Both sets of two containers, the new one with this weight.
fn shown(green: f64) -> Vec<(String, f64, i64)> {
    vec![("Blue".into(), 100.0 - green, 2), ("Green".into(), green, 2)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_by_time_serves_its_share_for_its_minutes_and_then_everybody() {
    if !pipeyard_needs::docker(
        "a_canary_by_time_serves_its_share_for_its_minutes_and_then_everybody",
    ) {
        return;
    }
    let mut scene = Scene::start("CodeDeployDefault.ECSCanary10Percent5Minutes", 0).await;
    let load = Load::start(scene.shop.port);
    let id = scene.deploy("v2").await;
    scene.weight(&id, 10).await;
    assert_eq!(scene.world.info(&id).await["status"], "InProgress");

    // Almost over; a fleet that starts anew doesn't begin again, nor end early.
    scene.clock.advance(5 * MINUTE - Duration::from_secs(5));
    scene.world.abort_inside().await;
    scene.world.start_inside().await;
    let before = load.sent.load(Ordering::Relaxed);
    until("users are served meanwhile", Duration::from_secs(30), async || {
        (load.sent.load(Ordering::Relaxed) > before + 1_000).then_some(())
    })
    .await;
    let report = scene.world.traffic(&scene.shop.name()).await;
    assert_eq!(report.intended, 10, "{report:?}");
    let share = report.measured.unwrap();
    assert!((5.0..15.0).contains(&share), "{report:?}");

    scene.clock.advance(Duration::from_secs(10));
    scene.world.reaches(&id, &["Succeeded"]).await;
    assert_eq!(scene.shop.get().await, "v2");
    assert_eq!(scene.shop.containers(), BTreeMap::from([(id, 2)]));
    let (sent, failures) = load.end().await;
    assert_eq!(failures, [""; 0], "of {sent}");
    scene.world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linear_shift_goes_step_by_step_and_stops_where_it_is_told() {
    if !pipeyard_needs::docker("a_linear_shift_goes_step_by_step_and_stops_where_it_is_told") {
        return;
    }
    let scene = Scene::start("CodeDeployDefault.ECSLinear10PercentEvery1Minutes", 0).await;
    let load = Load::start(scene.shop.port);
    let id = scene.deploy("v2").await;
    for weight in [10, 20, 30, 40, 50, 60, 70, 80, 90] {
        scene.weight(&id, weight).await;
        assert_eq!(scene.world.info(&id).await["status"], "InProgress");
        scene.clock.advance(MINUTE);
    }
    scene.world.reaches(&id, &["Succeeded"]).await;
    assert_eq!(scene.shop.get().await, "v2");

    // One of its own, of steps that don't add up to a hundred; stopped in the middle.
    let linear = json!({"linearPercentage": 40, "linearInterval": 2});
    let config = json!({
        "deploymentConfigName": "forty",
        "computePlatform": "ECS",
        "trafficRoutingConfig": {"type": "TimeBasedLinear", "timeBasedLinear": linear},
    });
    scene.world.aws("CreateDeploymentConfig", config).await;
    let ask = async |version: &str| {
        let input = json!({
            "applicationName": scene.shop.application,
            "deploymentGroupName": "production",
            "deploymentConfigName": "forty",
            "revision": scene.shop.version(&scene.world, version).await,
        });
        let made = scene.world.aws("CreateDeployment", input).await;
        made["deploymentId"].as_str().unwrap().to_owned()
    };
    let stopped = ask("v3").await;
    scene.weight(&stopped, 40).await;
    scene.clock.advance(2 * MINUTE);
    scene.weight(&stopped, 80).await;
    scene.world.aws("StopDeployment", json!({"deploymentId": stopped})).await;
    scene.world.reaches(&stopped, &["Stopped"]).await;
    assert_eq!(scene.shop.get().await, "v2");
    assert_eq!(scene.shop.containers(), BTreeMap::from([(id, 2)]));

    let whole = ask("v4").await;
    for weight in [40, 80] {
        scene.weight(&whole, weight).await;
        scene.clock.advance(2 * MINUTE);
    }
    scene.world.reaches(&whole, &["Succeeded"]).await;
    assert_eq!(scene.shop.get().await, "v4");
    let (sent, failures) = load.end().await;
    assert_eq!(failures, [""; 0], "of {sent}");
    scene.world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_set_waits_before_it_goes_and_takes_over_when_it_must() {
    if !pipeyard_needs::docker("the_old_set_waits_before_it_goes_and_takes_over_when_it_must") {
        return;
    }
    let mut scene = Scene::start("CodeDeployDefault.ECSAllAtOnce", 5).await;
    let load = Load::start(scene.shop.port);
    let waits = async |scene: &Scene, id: &str| {
        until("the old set waits", Duration::from_secs(60), async || {
            let info = scene.world.info(id).await;
            (info["instanceTerminationWaitTimeStarted"] == true).then_some(())
        })
        .await;
        scene.weight(id, 100).await;
        assert_eq!(scene.world.info(id).await["status"], "InProgress");
        assert_eq!(scene.shop.containers(), scene.both(id));
    };

    // Everybody has the new version; a stop brings the old one back, which never went.
    let stopped = scene.deploy("v2").await;
    waits(&scene, &stopped).await;
    assert_eq!(scene.shop.get().await, "v2");
    let early = json!({"deploymentId": stopped, "deploymentWaitType": "READY_WAIT"});
    let refused = scene.world.try_aws("ContinueDeployment", early).await.unwrap_err();
    assert!(refused.contains("DeploymentIsNotInReadyStateException"), "{refused}");
    scene.world.aws("StopDeployment", json!({"deploymentId": stopped})).await;
    scene.world.reaches(&stopped, &["Stopped"]).await;
    assert_eq!(scene.shop.get().await, "v1");
    assert_eq!(scene.shop.containers(), BTreeMap::from([(scene.first.clone(), 2)]));

    // Time ends the wait, also for a fleet that starts anew in between.
    let by_time = scene.deploy("v3").await;
    waits(&scene, &by_time).await;
    scene.clock.advance(4 * MINUTE);
    scene.world.abort_inside().await;
    scene.world.start_inside().await;
    waits(&scene, &by_time).await;
    scene.clock.advance(MINUTE);
    scene.world.reaches(&by_time, &["Succeeded"]).await;
    assert_eq!(scene.shop.containers(), BTreeMap::from([(by_time.clone(), 2)]));

    // And so does a word; the same word again changes nothing.
    scene.first = by_time;
    let by_word = scene.deploy("v4").await;
    waits(&scene, &by_word).await;
    let word = json!({"deploymentId": by_word, "deploymentWaitType": "TERMINATION_WAIT"});
    scene.world.aws("ContinueDeployment", word.clone()).await;
    scene.world.reaches(&by_word, &["Succeeded"]).await;
    scene.world.aws("ContinueDeployment", word).await;
    assert_eq!(scene.shop.containers(), BTreeMap::from([(by_word, 2)]));
    assert_eq!(scene.shop.get().await, "v4");
    let (sent, failures) = load.end().await;
    assert_eq!(failures, [""; 0], "of {sent}");
    scene.world.end().await;
}
