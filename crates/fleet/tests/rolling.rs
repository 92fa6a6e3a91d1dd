//! Rolling deployments to hosts: three agents, each with a root and a port of its own.

#![expect(clippy::unwrap_used, reason = "a test ends where its surroundings fail")]

mod common;

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Process, Role, World, docker::Load, free_port, until};
use pipeyard_fleet::{agent::AgentConfig, http_client};
use pipeyard_model::fleet::{HostService, ServiceDefinition, ServicePlatform};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const NAME: &str = "worker/production";

struct Host {
    config: AgentConfig,
    address: SocketAddr,
    process: Option<Process>,
}

impl Host {
    fn start(&mut self) {
        self.process = Some(Process::start(&Role::Agent(self.config.clone())));
    }

    /// `kill -9`.
    async fn kill(&mut self) {
        self.process.take().unwrap().kill().await;
    }
}

impl Drop for Host {
    /// The service that the hooks started.
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(self.config.root.join("pid")) {
            let _ = Command::new("kill").args(["-9", pid.trim()]).output();
        }
    }
}

struct Hosts {
    world: World,
    port: u16,
    hosts: Vec<Host>,
}

impl Hosts {
    async fn start(rollback: bool) -> Self {
        let world = World::start().await;
        let port = free_port().await;
        let application = json!({"applicationName": "worker", "computePlatform": "Server"});
        world.aws("CreateApplication", application).await;
        let mut group = json!({
            "applicationName": "worker",
            "deploymentGroupName": "production",
            "serviceRoleArn": "arn:aws:iam::000000000000:role/pipeyard",
            "deploymentConfigName": "CodeDeployDefault.OneAtATime",
            "onPremisesTagSet": {"onPremisesTagSetList": [
                [{"Key": "group", "Value": "worker", "Type": "KEY_AND_VALUE"}],
                [{"Key": "zone", "Value": "a", "Type": "KEY_AND_VALUE"},
                 {"Key": "zone", "Value": "b", "Type": "KEY_AND_VALUE"}],
            ]},
        });
        if rollback {
            group["autoRollbackConfiguration"] =
                json!({"enabled": true, "events": ["DEPLOYMENT_FAILURE"]});
        }
        world.aws("CreateDeploymentGroup", group).await;
        let service =
            HostService { health_path: "/health".into(), healthy_within: 10, drain_within: 10 };
        let platform = ServicePlatform::Hosts(service);
        world.put_service(NAME, &ServiceDefinition { listen: port, platform }).await;
        let mut hosts = Vec::new();
        for (name, zone) in [("a", "a"), ("b", "b"), ("c", "a")] {
            let tags = [("group", "worker"), ("zone", zone)];
            let address = SocketAddr::from(([127, 0, 0, 1], free_port().await));
            let tags: std::collections::BTreeMap<_, _> = tags.into();
            let wish = json!({"name": format!("host-{name}"), "tags": tags, "address": address});
            let code = world.enrol(&wish).await;
            let enroll_file = world.folder.path().join(format!("{name}.enrolment"));
            std::fs::write(&enroll_file, code).unwrap();
            let config = AgentConfig {
                endpoint: world.endpoint(),
                enroll_file: Some(enroll_file),
                root: world.folder.path().join(name),
                hooks_as: None,
            };
            let mut host = Host { config, address, process: None };
            host.start();
            hosts.push(host);
        }
        // It has one of the two tags, so that it must be left alone; no agent answers for it.
        let other = json!({"instanceName": "other", "iamUserArn": "arn:aws:iam::0:user/other"});
        world.aws("RegisterOnPremisesInstance", other).await;
        let tags = json!([{"Key": "group", "Value": "worker"}, {"Key": "zone", "Value": "c"}]);
        let tag = json!({"tags": tags, "instanceNames": ["other"]});
        world.aws("AddTagsToOnPremisesInstances", tag).await;
        let hosts = Self { world, port, hosts };
        until("the hosts are there", Duration::from_secs(20), async || {
            let found = hosts.world.hosts().await;
            (found.iter().filter(|host| host["agent"] == "online").count() == 3).then_some(())
        })
        .await;
        hosts
    }

    fn root(&self, i: usize) -> PathBuf {
        self.hosts[i].config.root.clone()
    }

    /// Uploads a version. `before` runs in BeforeInstall.
    async fn version(&self, version: &str, valid: bool, before: &str) -> Value {
        let appspec = "version: 0.0\nos: linux\nfiles:\n  - source: www\n    destination: /www\nhooks:\n  \
             ApplicationStop:\n    - location: scripts/stop.sh\n      timeout: 20\n  \
             BeforeInstall:\n    - location: scripts/before.sh\n      timeout: 60\n  \
             ApplicationStart:\n    - location: scripts/start.sh\n      timeout: 20\n  \
             ValidateService:\n    - location: scripts/validate.sh\n      timeout: 20\n";
        let log = "echo \"$DEPLOYMENT_ID $LIFECYCLE_EVENT\" >> $PIPEYARD_ROOT/events";
        let stop = format!(
            "#!/bin/sh\n{log}\npid=$(cat $PIPEYARD_ROOT/pid) || exit 0\nkill $pid\n\
             while kill -0 $pid 2>/dev/null; do sleep 0.02; done\nexit 0\n"
        );
        let start = format!(
            "#!/bin/sh\n{log}\nsetsid busybox httpd -f -p $HOST:$PORT -h $PIPEYARD_CURRENT/www &\n\
             echo $! > $PIPEYARD_ROOT/pid\n"
        );
        let validate = format!(
            "#!/bin/sh\n{log}\nfor i in 1 2 3 4 5 6 7 8 9; do\n  \
             busybox wget -q -O- http://$HOST:$PORT/ | grep -q '^{version}$' && exit {}\n  \
             sleep 0.2\ndone\nexit 1\n",
            i32::from(!valid)
        );
        let before = format!("#!/bin/sh\n{log}\n{before}\n");
        let files = [
            ("appspec.yml", 0o644, appspec),
            ("www/index.html", 0o644, &format!("{version}\n")),
            ("www/health", 0o644, "ok\n"),
            ("scripts/stop.sh", 0o755, &stop),
            ("scripts/before.sh", 0o755, &before),
            // Without its execute bit, which the agent repairs.
            ("scripts/start.sh", 0o644, &start),
            ("scripts/validate.sh", 0o755, &validate),
        ];
        self.world.put_bundle(&format!("worker-{version}"), common::bundle(&files)).await
    }

    async fn deploy(&self, version: &str, valid: bool) -> String {
        let revision = self.version(version, valid, "true").await;
        self.world.deploy(NAME, &revision).await
    }

    /// What each host answers by itself.
    async fn answers(&self) -> Vec<String> {
        let http = http_client().unwrap();
        let mut answers = Vec::new();
        for host in &self.hosts {
            let answer = http.get(format!("http://{}/", host.address)).send().await;
            let text = match answer {
                Ok(answer) => answer.text().await.unwrap().trim().to_owned(),
                Err(_) => "-".to_owned(),
            };
            answers.push(text);
        }
        answers
    }

    async fn target(&self, deployment: &str, host: &str) -> Value {
        let input = json!({"deploymentId": deployment, "targetId": host});
        let found = self.world.aws("GetDeploymentTarget", input).await;
        found["deploymentTarget"]["instanceTarget"].clone()
    }

    async fn end(mut self) {
        for host in &mut self.hosts {
            if let Some(process) = host.process.take() {
                process.end().await;
            }
        }
        drop(std::mem::take(&mut self.hosts));
        self.world.end().await;
    }
}

/// Looks at every host by itself, all the time, and keeps the lowest number that was healthy.
struct Prober {
    stop: Arc<AtomicBool>,
    lowest: Arc<Mutex<(usize, usize)>>,
    task: JoinHandle<()>,
}

impl Prober {
    fn start(hosts: &Hosts) -> Self {
        let addresses: Vec<SocketAddr> = hosts.hosts.iter().map(|h| h.address).collect();
        let (stop, lowest) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new((99, 0))));
        let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&lowest));
        let http = http_client().unwrap();
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let probes = addresses.iter().map(async |address| {
                    let answer = http.get(format!("http://{address}/health")).send().await;
                    answer.is_ok_and(|answer| answer.status().is_success())
                });
                let healthy = futures_util::future::join_all(probes).await;
                let healthy = healthy.into_iter().filter(|healthy| *healthy).count();
                {
                    let mut seen = seen.lock().unwrap();
                    *seen = (seen.0.min(healthy), seen.1 + 1);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { stop, lowest, task }
    }

    /// The lowest number of healthy hosts, and the number of looks.
    async fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        *self.lowest.lock().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_change_one_by_one_and_a_bad_version_goes_back_without_a_failed_request() {
    let hosts = Hosts::start(true).await;
    let v1 = hosts.deploy("v1", true).await;
    hosts.world.reaches(&v1, &["Succeeded", "Failed"]).await;
    assert_eq!(hosts.answers().await, ["v1"; 3], "{}", hosts.target(&v1, "host-a").await);

    let (load, prober) = (Load::start(hosts.port), Prober::start(&hosts));
    let v2 = hosts.deploy("v2", true).await;
    let info = hosts.world.reaches(&v2, &["Succeeded", "Failed"]).await;
    assert_eq!(
        (info["status"].as_str(), info["deploymentOverview"]["Succeeded"].as_i64()),
        (Some("Succeeded"), Some(3)),
        "{info}"
    );
    assert_eq!(hosts.answers().await, ["v2"; 3]);
    let target = hosts.target(&v2, "host-b").await;
    let events: Vec<&str> = target["lifecycleEvents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["lifecycleEventName"].as_str().unwrap())
        .collect();
    assert_eq!(
        events,
        [
            "BlockTraffic",
            "ApplicationStop",
            "DownloadBundle",
            "BeforeInstall",
            "Install",
            "AfterInstall",
            "ApplicationStart",
            "ValidateService",
            "AllowTraffic"
        ]
    );
    let ran = std::fs::read_to_string(hosts.root(1).join("events")).unwrap();
    let scripts = ["ApplicationStop", "BeforeInstall", "ApplicationStart", "ValidateService"];
    let due: Vec<String> = scripts.iter().map(|event| format!("{v2} {event}")).collect();
    let own: Vec<&str> = ran.lines().filter(|line| line.starts_with(&v2)).collect();
    assert_eq!(own, due);
    let release = std::fs::read_link(hosts.root(1).join("current")).unwrap();
    assert!(release.starts_with("releases"), "{}", release.display());

    // A version that starts and doesn't pass its own check.
    let v3 = hosts.deploy("v3", false).await;
    let info = hosts.world.reaches(&v3, &["Failed"]).await;
    assert_eq!(info["errorInformation"]["code"], "HEALTH_CONSTRAINTS");
    let message = info["errorInformation"]["message"].as_str().unwrap();
    assert!(
        message.contains("ValidateService") && message.contains("scripts/validate.sh"),
        "{message}"
    );
    let back = info["rollbackInfo"]["rollbackDeploymentId"].as_str().unwrap().to_owned();
    let info = hosts.world.reaches(&back, &["Succeeded", "Failed"]).await;
    assert_eq!(
        (info["status"].as_str(), info["creator"].as_str()),
        (Some("Succeeded"), Some("codeDeployRollback")),
        "{info}"
    );
    assert_eq!(info["rollbackInfo"]["rollbackTriggeringDeploymentId"], v3.as_str());
    assert_eq!(hosts.answers().await, ["v2"; 3]);

    let (lowest, looks) = prober.end().await;
    assert!(lowest >= 2, "{lowest} of 3 hosts were healthy in one of {looks} looks");
    let (sent, failures) = load.end().await;
    assert_eq!(failures, [""; 0], "of {sent}");
    hosts.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_agent_is_noticed_within_ten_seconds_and_the_others_are_left_alone() {
    let mut hosts = Hosts::start(false).await;
    let v1 = hosts.deploy("v1", true).await;
    hosts.world.reaches(&v1, &["Succeeded"]).await;
    hosts.hosts[1].kill().await;
    let began = Instant::now();
    let v2 = hosts.deploy("v2", true).await;
    let info = hosts.world.reaches(&v2, &["Failed", "Succeeded"]).await;
    let took = began.elapsed();
    assert_eq!(info["errorInformation"]["code"], "HEALTH_CONSTRAINTS", "{info}");
    // Its service was never touched and serves on.
    let arm = hosts.world.traffic(NAME).await.stable.unwrap();
    assert_eq!(arm.addresses.len(), 3, "{arm:?}");
    let target = hosts.target(&v2, "host-b").await;
    assert!(target.to_string().contains("the agent has been silent for"), "{target}");
    // At most one host was done before the silence was long enough to go first.
    assert!(took < Duration::from_secs(25), "{took:?}");
    let changed = hosts.answers().await.iter().filter(|answer| *answer == "v2").count();
    assert!(changed <= 2, "{:?}", hosts.answers().await);
    hosts.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_in_a_hook_fails_it_and_a_fleet_that_is_killed_goes_on() {
    let mut hosts = Hosts::start(false).await;
    let v1 = hosts.deploy("v1", true).await;
    hosts.world.reaches(&v1, &["Succeeded"]).await;
    let wait = "touch $PIPEYARD_ROOT/begun; while [ ! -e $PIPEYARD_ROOT/go ]; do sleep 0.05; done";

    // The agent: nobody knows how far the script came.
    let v2 = hosts.version("v2", true, wait).await;
    let v2 = hosts.world.deploy(NAME, &v2).await;
    let begun = hosts.root(0).join("begun");
    until("the hook runs", Duration::from_secs(30), async || begun.exists().then_some(())).await;
    let pid = std::fs::read_to_string(hosts.root(0).join("hook.pid")).unwrap();
    let pid = pid.split(' ').next().unwrap().to_owned();
    hosts.hosts[0].kill().await;
    hosts.hosts[0].start();
    until("the script is ended", Duration::from_secs(10), async || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    })
    .await;
    hosts.world.reaches(&v2, &["Failed"]).await;
    let target = hosts.target(&v2, "host-a").await;
    let text = target.to_string();
    assert!(text.contains("the agent was restarted while BeforeInstall ran"), "{text}");

    // The fleet: the hook goes on, and so does the deployment.
    std::fs::remove_file(&begun).unwrap();
    let v3 = hosts.version("v3", true, wait).await;
    let v3 = hosts.world.deploy(NAME, &v3).await;
    until("the hook runs", Duration::from_secs(30), async || begun.exists().then_some(())).await;
    hosts.world.kill_fleet().await;
    for i in 0..3 {
        std::fs::write(hosts.root(i).join("go"), "").unwrap();
    }
    hosts.world.start_fleet().await;
    hosts.world.reaches(&v3, &["Succeeded"]).await;
    assert_eq!(hosts.answers().await, ["v3"; 3]);
    let ran = std::fs::read_to_string(hosts.root(0).join("events")).unwrap();
    let once = ran.lines().filter(|line| *line == format!("{v3} BeforeInstall")).count();
    assert_eq!(once, 1);
    hosts.end().await;
}
