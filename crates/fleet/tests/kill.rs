//! `kill -9` of the fleet and of the proxy at random moments of a deployment, with load on it.
//!
//! Set `PIPEYARD_SEED` to repeat a run.

mod common;

use std::{sync::atomic::Ordering, time::Duration};

use common::{
    World,
    docker::{Load, Shop},
    until,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_fleet_goes_on_or_rolls_back_and_no_request_fails() {
    if !pipeyard_needs::docker("a_killed_fleet_goes_on_or_rolls_back_and_no_request_fails") {
        return;
    }
    let seed = std::env::var("PIPEYARD_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("PIPEYARD_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::start().await;
    let shop = Shop::create(&world, Some(60)).await;
    let name = shop.name();
    let first = world.deploy(&name, &shop.version(&world, "v0").await).await;
    world.reaches(&first, &["Succeeded"]).await;
    let load = Load::start(shop.port);
    let mut good = (first, "v0".to_owned());
    for round in 1..=5 {
        let version = format!("v{round}");
        let id = world.deploy(&name, &shop.version(&world, &version).await).await;
        // Somewhere in creating, starting, waiting, shifting, retiring or reverting.
        let (forward, late) = (random.random_bool(0.5), random.random_bool(0.6));
        if late {
            world.reaches(&id, &["Ready"]).await;
            world.set_weight(&name, &id, random.random_range(1..100)).await;
            let operation = if forward { "ContinueDeployment" } else { "StopDeployment" };
            world.aws(operation, json!({"deploymentId": id})).await;
        }
        let pause = Duration::from_millis(random.random_range(0..1_200));
        tokio::time::sleep(pause).await;
        let before = world.info(&id).await["status"].clone();
        world.kill_fleet().await;
        // The proxy is alone for a while.
        let sent = load.sent.load(Ordering::Relaxed);
        until("the proxy serves alone", Duration::from_secs(20), async || {
            (load.sent.load(Ordering::Relaxed) > sent + 50).then_some(())
        })
        .await;
        world.start_fleet().await;
        println!("round {round}: {id} killed after {pause:?} in {before}, late {late}");
        if !late {
            world.reaches(&id, &["Ready"]).await;
            let operation = if forward { "ContinueDeployment" } else { "StopDeployment" };
            world.aws(operation, json!({"deploymentId": id})).await;
        }
        let end = if forward { "Succeeded" } else { "Stopped" };
        world.reaches(&id, &[end]).await;
        if forward {
            good = (id, version);
        }
        assert_eq!(shop.get().await, good.1);
        until("one set is left", Duration::from_secs(30), async || {
            let found = shop.containers();
            (found.len() == 1 && found.get(&good.0) == Some(&2)).then_some(())
        })
        .await;
    }
    let (sent, failures) = load.end().await;
    println!("{sent} requests, {} failed", failures.len());
    assert_eq!(failures, [""; 0], "of {sent}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_serves_its_last_weights_again_with_the_fleet_dead() {
    if !pipeyard_needs::docker("a_killed_proxy_serves_its_last_weights_again_with_the_fleet_dead") {
        return;
    }
    let mut world = World::start().await;
    let shop = Shop::create(&world, Some(60)).await;
    let name = shop.name();
    let v1 = world.deploy(&name, &shop.version(&world, "v1").await).await;
    world.reaches(&v1, &["Succeeded"]).await;
    let v2 = world.deploy(&name, &shop.version(&world, "v2").await).await;
    world.reaches(&v2, &["Ready"]).await;
    let before = world.set_weight(&name, &v2, 20).await;
    world.kill_fleet().await;
    world.kill_proxy().await;
    world.start_proxy();
    until("the proxy serves", Duration::from_secs(20), async || {
        let url = format!("http://127.0.0.1:{}/", shop.port);
        world.http.get(url).send().await.ok().map(drop)
    })
    .await;
    let mut new = 0;
    for _ in 0..200 {
        let answer = world.http.get(format!("http://127.0.0.1:{}/", shop.port)).send().await;
        new += u32::from(answer.unwrap().text().await.unwrap() == "v2");
    }
    assert!((38..=42).contains(&new), "{new} of 200 at 20 %");
    world.start_fleet().await;
    let after = world.traffic(&name).await;
    assert_eq!((after.intended, after.canary.unwrap().weight), (20, 20));
    assert_ne!(after.boot, before.boot);
    world.aws("ContinueDeployment", json!({"deploymentId": v2})).await;
    world.reaches(&v2, &["Succeeded"]).await;
    assert_eq!(shop.get().await, "v2");
    world.end().await;
}
