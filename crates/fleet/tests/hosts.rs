//! Who is a host, and what it may do: enrolment, keys, other hosts' commands and bundles, requests that
//! are sent again.

#![expect(clippy::unwrap_used, reason = "a test ends where its surroundings fail")]

mod common;

use std::time::Duration;

use common::{Process, Role, World, free_port};
use http::{HeaderMap, Method, StatusCode};
use pipeyard_fleet::{
    AccessKey, Token,
    agent::AgentConfig,
    sigv4::{self, Scope, Signed},
};
use pipeyard_model::{
    Clock as _, ManualClock, SystemClock,
    fleet::{HostService, ServiceDefinition, ServicePlatform},
};
use serde_json::{Value, json};

const AGENTS: &str = "codedeploy-commands";

/// Signs a request and answers its headers, so that a test can send it twice.
fn sign(
    world: &World,
    key: &AccessKey,
    service: &str,
    method: &Method,
    path: &str,
    body: &[u8],
    more: &[(&'static str, &str)],
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("host", world.fleet.listen.to_string().parse().unwrap());
    headers.insert("x-amz-date", sigv4::stamp(world.clock().now()).parse().unwrap());
    headers.insert("x-amz-nonce", uuid::Uuid::new_v4().to_string().parse().unwrap());
    for (name, value) in more {
        headers.insert(*name, value.parse().unwrap());
    }
    let request = Signed { method, path, query: "", headers: &headers, body };
    let scope = Scope { region: &world.fleet.region, service };
    let header = sigv4::authorization(&request, key, scope);
    headers.insert("authorization", header.parse().unwrap());
    headers.insert("content-type", "application/json".parse().unwrap());
    headers
}

async fn send(
    world: &World,
    method: Method,
    path: &str,
    headers: HeaderMap,
    body: Vec<u8>,
) -> (StatusCode, Value) {
    let url = format!("{}{path}", world.endpoint());
    let sent = world.http.request(method, url).headers(headers).body(body).send().await.unwrap();
    let status = sent.status();
    let text = sent.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// A host that speaks the protocol without doing anything.
struct Puppet {
    key: AccessKey,
    boot: String,
    session: String,
    number: u64,
}

impl Puppet {
    async fn exchange(world: &World, code: &str, secret: &Token) -> (StatusCode, Value) {
        let body = json!({"code": code, "secret": secret.reveal()}).to_string().into_bytes();
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        send(world, Method::POST, "/agent/enrol", headers, body).await
    }

    async fn enrol(world: &World, wish: Value) -> Self {
        let code = world.enrol(&wish).await;
        let secret = Token::mint();
        let (status, made) = Self::exchange(world, &code, &secret).await;
        assert!(status.is_success(), "{made}");
        let access_key_id = made["access_key_id"].as_str().unwrap().to_owned();
        let key = AccessKey { access_key_id, secret_access_key: secret };
        Self { key, boot: uuid::Uuid::new_v4().to_string(), session: String::new(), number: 0 }
    }

    async fn call(&self, world: &World, what: &str, body: &Value) -> (StatusCode, Value) {
        let (path, body) = (format!("/agent/{what}"), body.to_string().into_bytes());
        let headers = sign(world, &self.key, AGENTS, &Method::POST, &path, &body, &[]);
        send(world, Method::POST, &path, headers, body).await
    }

    async fn hello(&mut self, world: &World, abilities: &Value) -> (StatusCode, Value) {
        let said =
            self.call(world, "hello", &json!({"boot": self.boot, "abilities": abilities})).await;
        self.session = said.1["session"].as_str().unwrap_or_default().to_owned();
        said
    }

    fn stamp(&mut self) -> Value {
        self.number += 1;
        json!({"boot": self.boot, "session": self.session, "number": self.number})
    }

    /// Polls, as if it ran a command, so that the answer comes at once.
    async fn poll(&mut self, world: &World) -> (StatusCode, Value) {
        let body = json!({"stamp": self.stamp(), "running": 0});
        self.call(world, "poll", &body).await
    }

    async fn fetch(&self, world: &World, path: &str) -> StatusCode {
        let headers = sign(world, &self.key, AGENTS, &Method::GET, path, b"", &[]);
        send(world, Method::GET, path, headers, Vec::new()).await.0
    }
}

fn abilities(user: &str, root: bool) -> Value {
    json!({"root": root, "user": user, "users": ["root", "deploy"], "groups": ["root"],
           "all_listed": true})
}

fn wish(name: &str, port: u16) -> Value {
    json!({"name": name, "tags": {"role": name}, "address": format!("127.0.0.1:{port}")})
}

/// A group of the host with this name.
async fn group(world: &World, name: &str) {
    let application = json!({"applicationName": name, "computePlatform": "Server"});
    world.aws("CreateApplication", application).await;
    let group = json!({
        "applicationName": name,
        "deploymentGroupName": "production",
        "serviceRoleArn": "arn:aws:iam::000000000000:role/pipeyard",
        "deploymentConfigName": "CodeDeployDefault.AllAtOnce",
        "onPremisesTagSet": {"onPremisesTagSetList": [[
            {"Key": "role", "Value": name, "Type": "KEY_AND_VALUE"}]]},
    });
    world.aws("CreateDeploymentGroup", group).await;
    let service = HostService { health_path: "/".into(), healthy_within: 5, drain_within: 5 };
    let platform = ServicePlatform::Hosts(service);
    let definition = ServiceDefinition { listen: free_port().await, platform };
    world.put_service(&format!("{name}/production"), &definition).await;
}

fn bundle(runas: &str) -> Vec<u8> {
    let spec = format!(
        "version: 0.0\nos: linux\nhooks:\n  BeforeInstall:\n    - location: hook.sh\n{runas}"
    );
    common::bundle(&[("appspec.yml", 0o644, &spec), ("hook.sh", 0o755, "#!/bin/sh\n")])
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_becomes_a_host_by_saying_so() {
    let world = World::start().await;
    let port = free_port().await;
    let mut real = Puppet::enrol(&world, wish("h1", port)).await;
    assert!(real.hello(&world, &abilities("root", true)).await.0.is_success());

    // An impostor, by everything that it could have: nothing, the administrator's token, a key that it
    // made up, the key of another host.
    let hello = json!({"name": "h1", "boot": "x", "address": "127.0.0.1:1", "tags": [],
                       "abilities": abilities("root", true)});
    let url = format!("{}/agent/hello", world.endpoint());
    let admin = world.credentials().token;
    for token in ["", admin.reveal()] {
        let sent = world.http.post(&url).bearer_auth(token).json(&hello).send().await.unwrap();
        assert_eq!(sent.status(), StatusCode::UNAUTHORIZED);
    }
    let mut other = Puppet::enrol(&world, wish("h2", free_port().await)).await;
    let invented = AccessKey {
        access_key_id: real.key.access_key_id.clone(),
        secret_access_key: Token::mint(),
    };
    for (key, service) in
        [(&invented, AGENTS), (&world.credentials().key, AGENTS), (&real.key, "codedeploy")]
    {
        let body = hello.to_string().into_bytes();
        let headers = sign(&world, key, service, &Method::POST, "/agent/hello", &body, &[]);
        let (status, said) = send(&world, Method::POST, "/agent/hello", headers, body).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{said}");
    }
    let (status, said) = other.hello(&world, &abilities("root", true)).await;
    assert!(status.is_success());
    assert_eq!(said["name"], "h2", "the key says who it is");
    let hosts = world.hosts().await;
    assert_eq!(hosts[0]["address"], format!("127.0.0.1:{port}"));
    assert_eq!(hosts[0]["tags"], json!({"role": "h1"}));
    assert!(real.poll(&world).await.0.is_success(), "the real one is still there");
    // And a host's key opens nothing of the administrator's.
    let body = b"{}".to_vec();
    let target = [("x-amz-target", "CodeDeploy_20141006.ListApplications")];
    let headers = sign(&world, &real.key, "codedeploy", &Method::POST, "/", &body, &target);
    let (status, said) = send(&world, Method::POST, "/", headers, body).await;
    assert_eq!(
        (status, &said["__type"]),
        (StatusCode::BAD_REQUEST, &json!("UnrecognizedClientException"))
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_gets_its_own_commands_and_bundles_only() {
    let world = World::start().await;
    let mut one = Puppet::enrol(&world, wish("one", free_port().await)).await;
    let mut two = Puppet::enrol(&world, wish("two", free_port().await)).await;
    for host in [&mut one, &mut two] {
        assert!(host.hello(&world, &abilities("root", true)).await.0.is_success());
    }
    group(&world, "one").await;
    let revision = world.put_bundle("one-v1", bundle("")).await;
    assert_eq!(one.fetch(&world, "/bundles/releases/one-v1").await, StatusCode::FORBIDDEN);
    let id = world.deploy("one/production", &revision).await;
    let order = loop {
        let body = json!({"stamp": one.stamp(), "running": null});
        let (status, said) = one.call(&world, "poll", &body).await;
        assert!(status.is_success(), "{said}");
        if said["command"].is_object() {
            break said["command"].clone();
        }
    };
    assert_eq!(one.fetch(&world, "/bundles/releases/one-v1").await, StatusCode::OK);
    assert_eq!(two.fetch(&world, "/bundles/releases/one-v1").await, StatusCode::FORBIDDEN);
    // Another host says that it failed: nothing is changed by that.
    let failed =
        json!({"errorCode": "ScriptFailed", "scriptName": "", "message": "", "logTail": ""});
    let body = json!({"stamp": two.stamp(), "command": order["id"], "diagnostics": failed});
    two.call(&world, "complete", &body).await;
    let body = json!({"stamp": one.stamp(), "running": order["id"]});
    let (_, said) = one.call(&world, "poll", &body).await;
    assert_eq!(said["cancel"], false, "{said}");
    // The same message again, as somebody on the way would send it.
    let body = json!({"stamp": one.stamp(), "running": order["id"]}).to_string().into_bytes();
    let headers = sign(&world, &one.key, AGENTS, &Method::POST, "/agent/poll", &body, &[]);
    let (first, _) = send(&world, Method::POST, "/agent/poll", headers.clone(), body.clone()).await;
    assert!(first.is_success());
    let (again, said) = send(&world, Method::POST, "/agent/poll", headers, body).await;
    assert_eq!((again, &said["code"]), (StatusCode::CONFLICT, &json!("sent_again")));
    world.aws("StopDeployment", json!({"deploymentId": id})).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_good_once_and_for_a_while_and_keys_can_be_taken_away() {
    let clock = ManualClock::at(SystemClock.now());
    let world = World::start_by(&clock).await;
    let h1 = wish("h1", free_port().await);
    let code = world.enrol(&h1).await;
    let (mine, theirs) = (Token::mint(), Token::mint());
    let (status, made) = Puppet::exchange(&world, &code, &mine).await;
    assert!(status.is_success(), "{made}");
    // A lost answer is asked for again; nobody else gets one.
    assert_eq!(Puppet::exchange(&world, &code, &mine).await.1, made);
    let (status, said) = Puppet::exchange(&world, &code, &theirs).await;
    assert_eq!((status, &said["code"]), (StatusCode::UNAUTHORIZED, &json!("enrolment_refused")));
    assert_eq!(Puppet::exchange(&world, "ppe_guess", &theirs).await.0, StatusCode::UNAUTHORIZED);

    // A newer enrolment makes the older one worthless; time does too.
    let older = world.enrol(&h1).await;
    let newer = world.enrol(&h1).await;
    assert_eq!(Puppet::exchange(&world, &older, &theirs).await.0, StatusCode::UNAUTHORIZED);
    clock.advance(Duration::from_secs(24 * 3_600 + 1));
    assert_eq!(Puppet::exchange(&world, &newer, &theirs).await.0, StatusCode::UNAUTHORIZED);

    // The key before is good until the new one is fetched.
    let access_key_id = made["access_key_id"].as_str().unwrap().to_owned();
    let key = AccessKey { access_key_id, secret_access_key: mine };
    let mut before = Puppet { key, boot: "one".into(), session: String::new(), number: 0 };
    assert!(before.hello(&world, &abilities("root", true)).await.0.is_success());
    let mut after = Puppet::enrol(&world, json!({"name": "h1"})).await;
    let (status, said) = before.poll(&world).await;
    assert_eq!((status, &said["code"]), (StatusCode::UNAUTHORIZED, &json!("unknown_key")));
    assert!(after.hello(&world, &abilities("root", true)).await.0.is_success());
    assert_eq!(world.hosts().await[0]["tags"], json!({"role": "h1"}), "what wasn't said stays");

    let url = format!("{}/hosts/h1", world.endpoint());
    let token = world.credentials().token;
    let gone = world.http.delete(&url).bearer_auth(token.reveal()).send().await.unwrap();
    assert!(gone.status().is_success());
    assert_eq!(after.poll(&world).await.0, StatusCode::UNAUTHORIZED);
    assert!(world.hosts().await.is_empty());
    // A host of the past has nothing that comes back with its name.
    world.enrol(&h1).await;
    assert_eq!(after.hello(&world, &abilities("root", true)).await.0, StatusCode::UNAUTHORIZED);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_request_that_changes_something_is_taken_once() {
    let mut world = World::start().await;
    let key = world.credentials().key;
    let prepare = |operation: &str, input: Value| {
        let body = input.to_string().into_bytes();
        let target = format!("CodeDeploy_20141006.{operation}");
        let headers = sign(
            &world,
            &key,
            "codedeploy",
            &Method::POST,
            "/",
            &body,
            &[("x-amz-target", &target)],
        );
        (headers, body)
    };
    let name = json!({"applicationName": "shop", "computePlatform": "Server"});
    let create = prepare("CreateApplication", name.clone());
    let delete = prepare("DeleteApplication", json!({"applicationName": "shop"}));
    let list = prepare("ListApplications", json!({}));
    let mut host = Puppet::enrol(&world, wish("h1", free_port().await)).await;
    let hello = json!({"boot": host.boot, "abilities": abilities("root", true)}).to_string();
    let hello_headers =
        sign(&world, &host.key, AGENTS, &Method::POST, "/agent/hello", hello.as_bytes(), &[]);
    let said =
        send(&world, Method::POST, "/agent/hello", hello_headers.clone(), hello.clone().into())
            .await;
    assert!(said.0.is_success());
    host.session = said.1["session"].as_str().unwrap().to_owned();
    for (headers, body) in [&create, &delete] {
        let (status, said) = send(&world, Method::POST, "/", headers.clone(), body.clone()).await;
        assert!(status.is_success(), "{said}");
    }
    for round in 0..2 {
        for (headers, body) in [&create, &delete] {
            let (status, said) =
                send(&world, Method::POST, "/", headers.clone(), body.clone()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "round {round}: {said}");
            assert!(said["message"].as_str().unwrap().contains("taken already"), "{said}");
        }
        // What reads may come as often as it likes.
        assert!(
            send(&world, Method::POST, "/", list.0.clone(), list.1.clone()).await.0.is_success()
        );
        // A hello that somebody repeats doesn't end the session of the agent that works.
        let (again, _) =
            send(&world, Method::POST, "/agent/hello", hello_headers.clone(), hello.clone().into())
                .await;
        assert_eq!(again, StatusCode::CONFLICT);
        if round == 0 {
            assert!(host.poll(&world).await.0.is_success());
            // A fleet that starts anew has forgotten nothing.
            world.kill_fleet().await;
            world.start_fleet().await;
        }
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_cannot_do_is_refused_before_anything_is_touched() {
    let world = World::start().await;
    let mut host = Puppet::enrol(&world, wish("h1", free_port().await)).await;
    assert!(host.hello(&world, &abilities("ci", false)).await.0.is_success());
    group(&world, "h1").await;
    let ask = async |key: &str, bytes: Vec<u8>| {
        let revision = world.put_bundle(key, bytes).await;
        let input = json!({"applicationName": "h1", "deploymentGroupName": "production", "revision": revision});
        world.try_aws("CreateDeployment", input).await
    };
    let refused = ask("a", bundle("      runas: deploy\n")).await.unwrap_err();
    assert!(refused.contains("InvalidRevisionException") && refused.contains("h1"), "{refused}");
    assert!(refused.contains("deploy") && refused.contains("root"), "{refused}");
    for (key, bytes, why) in [
        ("b", bundle("      runas: [deploy]\n"), "appspec.yml"),
        ("c", bundle("      timeout: 0\n"), "timeout"),
        ("d", common::bundle(&[("x", 0o644, "")]), "appspec.yml"),
        ("e", b"not an archive".to_vec(), "tar.gz"),
    ] {
        let refused = ask(key, bytes).await.unwrap_err();
        assert!(refused.contains("InvalidRevisionException") && refused.contains(why), "{refused}");
    }
    let none = world
        .aws(
            "ListDeployments",
            json!({"applicationName": "h1", "deploymentGroupName": "production"}),
        )
        .await;
    assert_eq!(none["deployments"], json!([]));
    // An agent that runs as root can become that user, but nobody whom the host doesn't have.
    host.boot = "again".into();
    assert!(host.hello(&world, &abilities("root", true)).await.0.is_success());
    let refused = ask("f", bundle("      runas: ubuntu\n")).await.unwrap_err();
    assert!(refused.contains("ubuntu"), "{refused}");
    let id = ask("a", bundle("      runas: deploy\n")).await.unwrap()["deploymentId"].clone();
    world.aws("StopDeployment", json!({"deploymentId": id})).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_enrol_and_work_over_tls() {
    let certificates = common::manifest().join("../listen/tests/certificates");
    pipeyard_trust::trust(&certificates.join("ca.pem")).unwrap();
    let mut world = World::prepare().await;
    let key = world.folder.path().join("key.pem");
    std::fs::copy(certificates.join("one.key"), &key).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    world.fleet.tls_cert = Some(certificates.join("one.pem"));
    world.fleet.tls_key = Some(key);
    world.start_proxy();
    world.start_fleet().await;
    assert!(world.endpoint().starts_with("https://"));
    assert!(world.http.get(format!("http://{}/healthz", world.fleet.listen)).send().await.is_err());

    let code = world.enrol(&wish("h1", free_port().await)).await;
    let enroll_file = world.folder.path().join("enrolment");
    std::fs::write(&enroll_file, code).unwrap();
    let root = world.folder.path().join("root");
    let config = AgentConfig {
        endpoint: world.endpoint(),
        enroll_file: Some(enroll_file.clone()),
        root: root.clone(),
        hooks_as: None,
    };
    let ca = certificates.join("ca.pem");
    let agent = Process::start_with(&Role::Agent(config.clone()), &[("PIPEYARD_CA_FILE", &ca)]);
    let online = async || {
        common::until("the agent is there", Duration::from_secs(20), async || {
            (world.hosts().await[0]["agent"] == "online").then_some(())
        })
        .await;
    };
    online().await;
    let mode = std::fs::metadata(root.join("host-key.json")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
    // It has its key now: the code isn't needed again.
    agent.end().await;
    std::fs::remove_file(enroll_file).unwrap();
    let key = world.hosts().await[0]["access_key_id"].clone();
    let agent = Process::start_with(&Role::Agent(config), &[("PIPEYARD_CA_FILE", &ca)]);
    // The fleet can't tell yet that the first one is gone; the second one's log says that it is here.
    let log = common::target().join(format!("tmp/agent-{}.log", std::process::id()));
    let root = root.display().to_string();
    common::until("the agent is back", Duration::from_secs(20), async || {
        let text = std::fs::read_to_string(&log).ok()?;
        let ready = text.lines().filter(|line| line.contains("is ready") && line.contains(&root));
        (ready.count() == 2).then_some(())
    })
    .await;
    assert_eq!(world.hosts().await[0]["access_key_id"], key);
    agent.end().await;
    world.end().await;
}
