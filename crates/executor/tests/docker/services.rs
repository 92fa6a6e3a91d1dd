//! Services: readiness, names, ends, and networks that don't run out.

use std::{sync::Arc, time::Duration};

use pipeyard_model::{Conclusion, plan::Readiness};
use tokio_util::sync::CancellationToken;

use crate::support::{BUSYBOX, Stage, docker, service, spec};

const WEB: &str = "pipeyard/web:test";

fn serving_etc() -> Vec<String> {
    ["-f", "-p", "8080", "-h", "/etc"].map(ToOwned::to_owned).to_vec()
}

#[tokio::test]
async fn a_service_is_reached_by_its_alias_once_its_exposed_port_accepts() {
    let test = "a_service_is_reached_by_its_alias_once_its_exposed_port_accepts";
    let Some(stage) = Stage::set(test).await else { return };
    let mut job = spec(BUSYBOX, &["wget -qO- http://files:8080/passwd | head -n 1"]);
    job.services.push(service("files", WEB));
    job.services[0].command = serving_etc();
    let seen = stage.run(job).await;
    seen.succeeded();
    assert_eq!(seen.stdout(), "root:x:0:0:root:/root:/bin/sh\n");
    assert!(seen.notes().iter().any(|note| note.contains("Service files is ready")), "{seen:#?}");
    stage.end().await;
}

#[tokio::test]
async fn a_healthcheck_decides_where_there_is_one() {
    let Some(stage) = Stage::set("a_healthcheck_decides_where_there_is_one").await else { return };
    // It listens on 9090, which it doesn't expose, one second after its start.
    let mut job = spec(BUSYBOX, &["echo | nc -w 2 checked 9090 && echo open"]);
    job.services.push(service("checked", "pipeyard/healthy:test"));
    let seen = stage.run(job).await;
    seen.succeeded();
    assert_eq!(seen.stdout(), "open\n");
    stage.end().await;
}

#[tokio::test]
async fn a_service_that_ends_shows_its_last_lines() {
    let Some(stage) = Stage::set("a_service_that_ends_shows_its_last_lines").await else { return };
    let mut job = spec(BUSYBOX, &["echo not reached"]);
    job.services.push(service("db", BUSYBOX));
    let script = "echo starting; echo 'password missing' >&2; exit 3";
    job.services[0].command = ["sh", "-c", script].map(ToOwned::to_owned).to_vec();
    job.services[0].ready = Readiness::Port(5432);
    let seen = stage.run(job).await;
    seen.is(Conclusion::Error, "service_failed");
    assert!(seen.message().contains("exited with 3"), "{}", seen.message());
    assert!(seen.notes().contains(&"db | password missing"), "{:?}", seen.notes());
    assert_eq!(seen.stdout(), "");
    stage.end().await;
}

#[tokio::test]
async fn a_service_that_never_becomes_ready_is_given_up() {
    let Some(stage) = Stage::set_with("a_service_that_never_becomes_ready_is_given_up", |config| {
        config.service_deadline = Duration::from_secs(2);
    })
    .await
    else {
        return;
    };
    let mut job = spec(BUSYBOX, &["echo not reached"]);
    job.services.push(service("db", WEB));
    job.services[0].ready = Readiness::Port(5432);
    let seen = stage.run(job).await;
    seen.is(Conclusion::Error, "service_not_ready");
    assert!(seen.message().contains("port 5432"), "{}", seen.message());
    stage.end().await;
}

#[tokio::test]
async fn a_failed_job_shows_what_its_services_wrote() {
    let Some(stage) = Stage::set("a_failed_job_shows_what_its_services_wrote").await else {
        return;
    };
    let mut job = spec(BUSYBOX, &["wget -qO /dev/null http://web:8080/nothing"]);
    job.services.push(service("web", WEB));
    let seen = stage.run(job).await;
    seen.is(Conclusion::Failure, "step_failed");
    assert!(seen.notes().iter().any(|note| note.starts_with("web | ")), "{:?}", seen.notes());
    stage.end().await;
}

#[tokio::test]
async fn a_cancel_while_services_start_leaves_nothing() {
    let Some(stage) = Stage::set("a_cancel_while_services_start_leaves_nothing").await else {
        return;
    };
    let mut job = spec(BUSYBOX, &["echo not reached"]);
    job.services.push(service("web", WEB));
    job.services[0].ready = Readiness::Port(1);
    let cancel = CancellationToken::new();
    let stop = async {
        while stage.containers().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cancel.cancel();
    };
    let run = stage.run_job(stage.job(job), cancel.clone(), |_| {});
    let (seen, ()) = tokio::join!(run, stop);
    seen.is(Conclusion::Cancelled, "cancelled");
    stage.end().await;
}

#[tokio::test]
async fn a_services_environment_is_not_in_dockers_record() {
    let Some(stage) = Stage::set("a_services_environment_is_not_in_dockers_record").await else {
        return;
    };
    let mut job = spec(
        BUSYBOX,
        &["echo ready; while [ ! -e go ]; do sleep 0.05; done; wget -qO- http://web:8080/env"],
    );
    job.services.push(service("web", BUSYBOX));
    let script = "mkdir /www; echo $PASSWORD > /www/env; exec httpd -f -p 8080 -h /www";
    job.services[0].command = ["sh", "-c", script].map(ToOwned::to_owned).to_vec();
    job.services[0].env.insert("PASSWORD".to_owned(), "hunter2-hunter2".to_owned());
    job.services[0].ready = Readiness::Port(8080);
    let mut record = String::new();
    let seen = stage
        .run_job(stage.job(job), CancellationToken::new(), |event| {
            if matches!(event, pipeyard_executor::JobEvent::Output { .. }) {
                for name in stage.containers() {
                    record += &docker(&["inspect", &name]);
                }
                std::fs::write(stage.workspace().join("go"), "").unwrap();
            }
        })
        .await;
    seen.succeeded();
    assert!(seen.stdout().contains("hunter2-hunter2"), "{}", seen.stdout());
    assert!(record.contains("service1") && !record.contains("hunter2"), "{record}");
    stage.end().await;
}

#[tokio::test]
async fn networks_that_were_pruned_are_made_again() {
    let Some(stage) = Stage::set("networks_that_were_pruned_are_made_again").await else { return };
    let mut job = spec(BUSYBOX, &["true"]);
    job.services.push(service("web", WEB));
    for _ in 0..2 {
        stage.run(job.clone()).await.succeeded();
        stage.run(spec(BUSYBOX, &["true"])).await.succeeded();
        let networks = stage.networks();
        assert_eq!(networks.len(), 2);
        for id in networks {
            docker(&["network", "rm", &id]);
        }
    }
    stage.end().await;
}

#[tokio::test]
async fn networks_of_installations_that_are_gone_are_reclaimed_when_the_range_is_used_up() {
    let test = "networks_of_installations_that_are_gone_are_reclaimed_when_the_range_is_used_up";
    let range = "10.197.44.0/24";
    let change = |config: &mut pipeyard_executor::DockerConfig| {
        config.network_range = range.parse().unwrap();
    };
    let Some(stage) = Stage::set_with(test, change).await else { return };
    let others = format!("label=pipeyard.installation={}", pipeyard_model::InstallationId::new());
    let subnet = format!("--subnet={range}");
    let label = format!("--{others}");
    let gone = ["network", "create", &subnet, &label, "--label=pipeyard.network=shared"];
    docker(&[&gone[..], &["pipeyard-test-gone"]].concat());
    stage.run(spec(BUSYBOX, &["true"])).await.succeeded();
    assert_eq!(docker(&["network", "ls", "-q", "--filter", &others]), "");

    // The shared network fills the range now, and it is our own.
    let mut job = spec(BUSYBOX, &["true"]);
    job.services.push(service("web", WEB));
    let seen = stage.run(job).await;
    seen.is(Conclusion::Error, "networks_exhausted");
    stage.end().await;
}

/// Docker's own address pools end at about the thirtieth network.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_jobs_with_services_share_four_networks() {
    let Some(stage) = Stage::set_with("forty_jobs_with_services_share_four_networks", |config| {
        config.network_pool = 4;
    })
    .await
    else {
        return;
    };
    let stage = Arc::new(stage);
    let mut rounds = tokio::task::JoinSet::new();
    for lane in 0..8 {
        let stage = Arc::clone(&stage);
        rounds.spawn(async move {
            for round in 0..5 {
                // Each sees its own service behind the same alias.
                let mine = format!("lane {lane} round {round}");
                let mut job = spec(BUSYBOX, &["wget -qO- http://web:8080/name"]);
                job.services.push(service("web", BUSYBOX));
                let script =
                    format!("mkdir /www; echo {mine} > /www/name; exec httpd -f -p 8080 -h /www");
                job.services[0].command = ["sh", "-c", &script].map(ToOwned::to_owned).to_vec();
                job.services[0].ready = Readiness::Port(8080);
                let seen = stage.run(job).await;
                seen.succeeded();
                assert_eq!(seen.stdout(), format!("{mine}\n"));
            }
        });
    }
    while let Some(lane) = rounds.join_next().await {
        lane.unwrap();
    }
    let networks = stage.networks().len();
    assert!((1..=4).contains(&networks), "{networks} networks");
    Arc::into_inner(stage).unwrap().end().await;
}
