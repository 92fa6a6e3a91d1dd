//! What serves is kept alive: whatever takes its containers away, users are served again without a
//! word from anybody, and the outage is on record.

mod common;

use std::{process::Command, time::Duration};

use common::{World, docker::Shop, until};
use pipeyard_model::fleet::{ServiceHealth, ServingState};
use serde_json::json;

const SOON: Duration = Duration::from_secs(40);

fn docker(args: &[&str]) {
    let run = Command::new("docker").args(args).output().expect("run docker");
    assert!(run.status.success(), "{args:?}: {}", String::from_utf8_lossy(&run.stderr));
}

async fn health(world: &World, name: &str) -> Option<ServiceHealth> {
    let url = format!("{}/health/{name}", world.endpoint());
    let asked = world.http.get(url).bearer_auth(world.credentials().token.reveal());
    asked.send().await.ok()?.json().await.ok()
}

/// What users see: the only ledger that counts.
async fn served(shop: &Shop, version: &str) -> Option<()> {
    let url = format!("http://127.0.0.1:{}/", shop.port);
    let asked =
        pipeyard_fleet::http_client().expect("a client").get(url).timeout(Duration::from_secs(2));
    let answer = asked.send().await.ok()?;
    let good = answer.status() == 200;
    (answer.text().await.ok()? == version && good).then_some(())
}

async fn stands(world: &World, name: &str, state: ServingState) -> ServiceHealth {
    until(&format!("{name} is {}", state.as_str()), SOON, async || {
        health(world, name).await.filter(|health| health.state == state)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_was_taken_away_serves_again_by_itself_and_the_outage_is_told() {
    let mut world = World::start().await;
    let shop = Shop::create(&world, None).await;
    let name = shop.name();
    let id = world.deploy(&name, &shop.version(&world, "one").await).await;
    world.reaches(&id, &["Succeeded"]).await;
    let well = stands(&world, &name, ServingState::Serving).await;
    assert_eq!((well.healthy, well.wanted, well.outages.len()), (2, 2, 0));

    let containers = || {
        let filter = format!("label=pipeyard.service={name}");
        let run = Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().unwrap();
        let ids: Vec<String> =
            String::from_utf8_lossy(&run.stdout).lines().map(str::to_owned).collect();
        assert_eq!(ids.len(), 2, "{ids:?}");
        ids
    };
    let ways: [&[&str]; 6] = [
        &["stop", "-t", "0"],
        &["pause"],
        &["kill"],
        &["rm", "-f"],
        &["network", "disconnect", "bridge"],
        &["update", "--restart=no"],
    ];
    for (i, way) in ways.iter().enumerate() {
        let ids = containers();
        // Else the first is back before the second is gone.
        world.kill_fleet().await;
        for id in &ids {
            docker(&[*way, &[id.as_str()]].concat());
        }
        if way[0] == "update" {
            // The program ends by itself, and Docker was told to leave it so.
            for id in &ids {
                let args = ["inspect", "--format", "{{.State.Pid}}", id];
                let run = Command::new("docker").args(args).output().expect("run docker");
                let pid: i32 = String::from_utf8_lossy(&run.stdout).trim().parse().unwrap();
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
        }
        world.start_fleet().await;
        // The outage is a row even if nobody asked while it lasted.
        let outage = until(&format!("the outage by {way:?} is over"), SOON, async || {
            let health = health(&world, &name).await?;
            (health.outages.len() == i + 1)
                .then(|| health.outages[0].clone())
                .filter(|outage| outage.ended.is_some())
        })
        .await;
        assert!(outage.reason.contains("container 0"), "{outage:?}");
        until(&format!("users are served after {way:?}"), SOON, async || {
            served(&shop, "one").await
        })
        .await;
        stands(&world, &name, ServingState::Serving).await;
    }

    // All at once, while the fleet looks on.
    docker(&[vec!["rm", "-f"], containers().iter().map(String::as_str).collect()].concat());
    until("users are served", SOON, async || served(&shop, "one").await).await;
    let before = stands(&world, &name, ServingState::Serving).await.outages.len();

    // Taken away while the fleet is dead, one of two: mended at its start, and no outage.
    world.kill_fleet().await;
    docker(&["stop", "-t", "0", &containers()[0]]);
    until("the other one serves", SOON, async || served(&shop, "one").await).await;
    world.start_fleet().await;
    let well = stands(&world, &name, ServingState::Serving).await;
    assert_eq!((well.healthy, well.outages.len()), (2, before));

    // As after a crash of Docker: they are down, and their ports are another's by now.
    world.kill_fleet().await;
    let ids = containers();
    let port = |id: &String| -> u16 {
        let args = ["inspect", "--format", "{{index .Config.Labels \"pipeyard.port\"}}", id];
        let run = Command::new("docker").args(args).output().expect("run docker");
        String::from_utf8_lossy(&run.stdout).trim().parse().unwrap()
    };
    let ports: Vec<u16> = ids.iter().map(port).collect();
    for id in &ids {
        docker(&["stop", "-t", "0", id]);
    }
    let _taken: Vec<_> = ports
        .iter()
        .map(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).unwrap())
        .collect();
    world.start_fleet().await;
    stands(&world, &name, ServingState::Serving).await;
    served(&shop, "one").await.unwrap();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_leads_to_a_set_that_answers_even_if_it_was_dead() {
    let world = World::start().await;
    let shop = Shop::create(&world, Some(60)).await;
    let name = shop.name();
    let first = world.deploy(&name, &shop.version(&world, "one").await).await;
    world.reaches(&first, &["Succeeded"]).await;
    let second = world.deploy(&name, &shop.version(&world, "two").await).await;
    world.reaches(&second, &["Ready"]).await;
    let filter = format!("label=pipeyard.deployment={first}");
    let old = Command::new("docker").args(["ps", "-q", "--filter", &filter]).output().unwrap();
    let old = String::from_utf8_lossy(&old.stdout).into_owned();
    docker(&[vec!["rm", "-f"], old.lines().collect()].concat());
    world.aws("StopDeployment", json!({"deploymentId": second})).await;
    world.reaches(&second, &["Stopped"]).await;
    // Not "soon": it is stopped when the old version answers.
    assert_eq!(shop.get().await, "one");
    assert_eq!(shop.containers().keys().collect::<Vec<_>>(), [&first]);
    world.end().await;
}
