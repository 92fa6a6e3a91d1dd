//! What a guarded job reaches: its sidecars and what is allowed, not this machine.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    io::Write as _,
    net::{TcpListener, UdpSocket},
    process::Command,
};

use pipeyard_executor::{DockerConfig, DockerExecutor, Egress, Executor as _};
use pipeyard_model::InstallationId;

use crate::support::{BUSYBOX, Stage, docker, service, spec};

/// The rules are set by root only, and where Docker has its own.
fn may_set_rules(test: &str) -> bool {
    pipeyard_needs::docker(test) && pipeyard_needs::root(test)
}

/// Answers `hello` to whoever connects, on every address of this machine.
fn greeter() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.write_all(b"hello\n");
        }
    });
    port
}

/// The address by which this machine reaches others.
fn own_address() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.99:9").unwrap();
    socket.local_addr().unwrap().ip().to_string()
}

/// A script that says of each target whether it says hello.
fn ask(targets: &[String]) -> String {
    targets
        .iter()
        .map(|target| {
            format!(
                "echo \"{target} $(nc -w 2 {} </dev/null 2>/dev/null)\"\n",
                target.replace(':', " ")
            )
        })
        .collect()
}

#[tokio::test]
async fn a_guarded_job_reaches_its_services_but_not_this_machine() {
    let test = "a_guarded_job_reaches_its_services_but_not_this_machine";
    if !may_set_rules(test) {
        return;
    }
    let (port, allowed, own) = (greeter(), greeter(), own_address());
    let allow = format!("{own}:{allowed}").parse().unwrap();
    let Some(stage) = Stage::set_with(test, |config| {
        config.egress = Egress::Guarded(vec![allow]);
    })
    .await
    else {
        return;
    };
    // A published port of another container is this machine's too.
    let name = format!("pipeyard-test-{}", stage.installation);
    let serve = "while :; do echo hello | nc -l -p 80; done";
    docker(&["run", "-d", "--rm", "--name", &name, "-p", "0:80", BUSYBOX, "sh", "-c", serve]);
    let published = docker(&["port", &name, "80"]);
    let published =
        published.lines().next().unwrap_or_default().rsplit(':').next().unwrap_or_default();
    let inside = docker(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", &name]);

    let bridge = "$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p')";
    let refused = [
        format!("{own}:{port}"),
        format!("{bridge}:{port}"),
        format!("172.17.0.1:{port}"),
        format!("{own}:{published}"),
        format!("{}:80", inside.trim()),
        "169.254.169.254:80".to_owned(),
    ];
    let reached = [format!("{own}:{allowed}"), "db:5000".to_owned()];
    let mut spec = spec(BUSYBOX, &[&ask(&refused), "echo ====", &ask(&reached)]);
    spec.services.push(service("db", BUSYBOX));
    let answer = "while :; do echo hello | nc -l -p 5000; done";
    spec.services[0].command = ["sh", "-c", answer].map(ToOwned::to_owned).to_vec();
    let seen = stage.run(spec).await;
    docker(&["rm", "-f", &name]);
    let said = seen.stdout();
    seen.succeeded();
    let (no, yes) = said.split_once("====").unwrap();
    assert!(no.lines().count() >= refused.len() && !no.contains("hello"), "{said}");
    assert_eq!(yes.matches("hello").count(), reached.len(), "{said}");
    let owner = stage.installation.0.simple().to_string();
    assert!(rules().contains(&owner), "{}", rules());
    stage.end().await;
    assert!(!rules().contains(&owner), "what a runner allowed ends with it: {}", rules());
}

fn rules() -> String {
    let output = Command::new("iptables").args(["-w", "10", "-S"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How often packets of jobs are sent through the rules.
fn jumps() -> usize {
    rules()
        .lines()
        .filter(|l| l.starts_with("-A DOCKER-USER") && l.ends_with("-j PIPEYARD-JOBS"))
        .count()
}

#[tokio::test]
async fn two_runners_share_the_rules_and_they_come_back() {
    let test = "two_runners_share_the_rules_and_they_come_back";
    if !may_set_rules(test) {
        return;
    }
    let guarded = |config: &mut DockerConfig| config.egress = Egress::Guarded(vec![]);
    let Some(stage) = Stage::set_with(test, guarded).await else { return };
    let mut config = DockerConfig::new(InstallationId::new(), stage.folder.path().join("second"));
    guarded(&mut config);
    let second = DockerExecutor::connect(config).await.unwrap();
    assert_eq!(jumps(), 1);
    // As the restart of a firewall would.
    let _ = Command::new("iptables")
        .args(["-w", "10", "-D", "DOCKER-USER", "-s", "10.213.0.0/16", "-j", "PIPEYARD-JOBS"])
        .output();
    let mut config = DockerConfig::new(InstallationId::new(), stage.folder.path().join("third"));
    guarded(&mut config);
    let third = DockerExecutor::connect(config).await.unwrap();
    assert_eq!(jumps(), 1);
    for executor in [second, third] {
        executor.check().await.unwrap();
        executor.remove_everything().await.unwrap();
    }
    stage.end().await;
}
