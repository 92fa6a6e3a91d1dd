//! The CodeDeploy client against the embedded fleet itself: real requests, real containers.

#![expect(clippy::unwrap_used, reason = "a test ends where its surroundings fail")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use pipeyard_deploy::{
    codedeploy::{CodeDeploy, Keys},
    control::FleetControl,
    provider::{
        Bundle, CreateAnswer, CreateRequest, Group, GroupName, Provider as _, ProviderError,
        ProviderStatus, Style, TrafficControl as _,
    },
};
use pipeyard_fleet::{FleetConfig, proxy, proxy::ProxyConfig};
use pipeyard_model::{
    Clock, IntentId, SystemClock, Timestamp,
    fleet::{ContainerService, HostService, ServiceDefinition, ServicePlatform},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, DropGuard};

const IMAGE: &str = "pipeyard/busybox:test";

struct World {
    folder: tempfile::TempDir,
    fleet: SocketAddr,
    _stop: DropGuard,
}

async fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

impl World {
    async fn start() -> Self {
        Self::start_by(Arc::new(SystemClock)).await
    }

    /// The fleet goes by this clock.
    async fn start_by(clock: Arc<dyn Clock>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let token_file = folder.path().join("proxy-token");
        let admin = free().await;
        let proxy = ProxyConfig {
            admin_listen: admin,
            host: [127, 0, 0, 1].into(),
            token_file: token_file.clone(),
            state_file: folder.path().join("routes.json"),
            allow_public: false,
        };
        let fleet = FleetConfig {
            listen: free().await,
            data_dir: folder.path().join("fleet"),
            region: "local".into(),
            proxy_admin: admin,
            proxy_token_file: token_file,
            docker_host: None,
            tls_cert: None,
            tls_key: None,
            trusted_proxy: false,
        };
        let listen = fleet.listen;
        tokio::spawn(proxy::run(proxy, stop.clone()));
        tokio::spawn(pipeyard_fleet::run_by(clock, fleet, stop.clone()));
        until("the fleet listens", async || TcpStream::connect(listen).await.ok().map(drop)).await;
        Self { folder, fleet: listen, _stop: stop.drop_guard() }
    }

    /// A client that reaches the fleet at `address`.
    async fn client(&self, address: SocketAddr) -> CodeDeploy {
        let file = self.folder.path().join("fleet/credentials.json");
        let text = until("the credentials", async || std::fs::read_to_string(&file).ok()).await;
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        let word = |key: &str| read[key].as_str().unwrap().to_owned();
        let keys = Keys {
            access_key_id: word("access_key_id"),
            secret_access_key: word("secret_access_key"),
            session_token: None,
        };
        let endpoint = format!("http://{address}");
        let control = FleetControl::new(&format!("http://{}", self.fleet), word("token")).unwrap();
        CodeDeploy::fleet(&endpoint, "local".into(), keys, control)
    }

    /// Writes a bundle that answers with its version.
    fn bundle(&self, version: &str) -> (Bundle, std::path::PathBuf) {
        let gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gz);
        let appspec = "version: 0.0\nos: linux\n";
        for (path, content) in
            [("www/index.html", version), ("www/health", "ok"), ("appspec.yml", appspec)]
        {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        let bytes = tar.into_inner().unwrap().finish().unwrap();
        let path = self.folder.path().join(format!("{version}.tar.gz"));
        std::fs::write(&path, bytes).unwrap();
        let sum = Command::new("sha256sum").arg(&path).output().unwrap();
        let sha256 = String::from_utf8(sum.stdout).unwrap().split(' ').next().unwrap().to_owned();
        (Bundle { sha256 }, path)
    }
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn reaches(client: &CodeDeploy, id: &str, wanted: ProviderStatus) {
    let mut last = None;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(90) {
        let snapshot = client.observe(id).await.unwrap();
        if snapshot.status == wanted {
            return;
        }
        last = Some(snapshot);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{id} isn't {wanted:?}: {last:?}");
}

fn hosts(name: &str, port: u16) -> Group {
    let service = HostService { health_path: "/".into(), healthy_within: 5, drain_within: 5 };
    Group {
        name: GroupName { application: name.into(), group: "production".into() },
        definition: ServiceDefinition { listen: port, platform: ServicePlatform::Hosts(service) },
        tags: BTreeMap::from([("role".to_owned(), "worker".to_owned())]),
    }
}

fn request(group: &Group, bundle: Bundle, style: Style) -> CreateRequest {
    CreateRequest {
        group: group.name.clone(),
        token: IntentId::new(),
        note: "deployment 1 of shop".into(),
        bundle,
        style,
        roll_back: true,
    }
}

fn now() -> Timestamp {
    SystemClock.now()
}

/// Removes what a test left in Docker.
struct Containers(String);

impl Drop for Containers {
    fn drop(&mut self) {
        let filter = format!("label=pipeyard.service={}", self.0);
        let found = Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output();
        let ids = found.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        for id in ids.unwrap_or_default().lines() {
            let _ = Command::new("docker").args(["rm", "-f", id]).output();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_of_containers_is_shifted_stopped_and_completed_by_the_client() {
    if !pipeyard_needs::docker(
        "a_canary_of_containers_is_shifted_stopped_and_completed_by_the_client",
    ) {
        return;
    }
    let world = World::start().await;
    let client = world.client(world.fleet).await;
    let name = format!("web-{}", uuid::Uuid::new_v4().simple());
    let port = free().await.port();
    let container = ContainerService {
        image: IMAGE.into(),
        command: ["sh", "-c", "exec httpd -f -p $PORT -h /app/www"].map(str::to_owned).to_vec(),
        port: 8080,
        health_path: "/health".into(),
        replicas: 1,
        env: BTreeMap::new(),
        healthy_within: 60,
        drain_within: 5,
    };
    let group = Group {
        name: GroupName { application: name, group: "production".into() },
        definition: ServiceDefinition {
            listen: port,
            platform: ServicePlatform::Container(container),
        },
        tags: BTreeMap::new(),
    };
    let _clean = Containers(group.name.to_string());
    let style = Style::Canary { wait_minutes: 30 };
    let traffic = client.traffic_control().unwrap();

    let start = async |version: &str, style: Style| {
        let (bundle, file) = world.bundle(version);
        for _ in 0..2 {
            client.prepare(&group, style).await.unwrap();
            client.upload(&bundle, &file).await.unwrap();
        }
        let request = request(&group, bundle, style);
        let CreateAnswer::Created(id) = client.create(&request).await else { panic!() };
        (request, id)
    };
    let (_, first) = start("v1", Style::BlueGreen).await;
    reaches(&client, &first, ProviderStatus::Succeeded).await;

    let (asked, second) = start("v2", style).await;
    reaches(&client, &second, ProviderStatus::Ready).await;
    assert_eq!(client.create(&asked).await, CreateAnswer::Busy);
    let found = client.find(&group.name, asked.token, now()).await.unwrap();
    assert_eq!((found.ours.as_ref(), found.active.as_ref()), (Some(&second), Some(&second)));
    let report = traffic.set_weight(&group.name, &second, 25, 5).await.unwrap();
    assert_eq!((report.intended, report.deployment.as_ref()), (25, Some(&second)));
    let stale = traffic.set_weight(&group.name, &second, 90, 4).await.unwrap_err();
    assert!(
        matches!(&stale, ProviderError::Refused { code, .. } if code == "stale_epoch"),
        "{stale}"
    );
    let get = async || {
        let url = format!("http://127.0.0.1:{port}/");
        reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap()
    };
    for _ in 0..40 {
        assert!(get().await.status().is_success());
    }
    let report = traffic.traffic(&group.name).await.unwrap();
    let canary = report.canary.unwrap();
    assert!(canary.requests > 0 && canary.errors == 0, "{canary:?}");
    assert!(!client.targets(&second).await.unwrap().is_empty());
    client.stop(&second, true).await.unwrap();
    reaches(&client, &second, ProviderStatus::Stopped).await;
    client.stop(&second, true).await.unwrap();
    assert_eq!(get().await.text().await.unwrap(), "v1");

    let (_, third) = start("v3", style).await;
    reaches(&client, &third, ProviderStatus::Ready).await;
    client.proceed(&third).await.unwrap();
    reaches(&client, &third, ProviderStatus::Succeeded).await;
    client.proceed(&third).await.unwrap();
    assert_eq!(get().await.text().await.unwrap(), "v3");
}

/// Passes requests on, and hangs up instead of the answer to a creation.
async fn cutting(upstream: SocketAddr) -> (SocketAddr, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(upstream).await.unwrap();
                let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
                let mut creates = false;
                loop {
                    tokio::select! {
                        read = client.read(&mut up) => {
                            let Ok(n @ 1..) = read else { return };
                            let text = String::from_utf8_lossy(&up[..n]);
                            if text.contains("CodeDeploy_20141006.CreateDeployment\r") {
                                count.fetch_add(1, Ordering::SeqCst);
                                creates = true;
                            }
                            server.write_all(&up[..n]).await.unwrap();
                        }
                        read = server.read(&mut down) => {
                            let Ok(n @ 1..) = read else { return };
                            if creates {
                                return;
                            }
                            client.write_all(&down[..n]).await.unwrap();
                        }
                    }
                }
            });
        }
    });
    (address, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_whose_answer_is_cut_is_sent_once_and_found_by_its_token() {
    let world = World::start().await;
    let (address, sent) = cutting(world.fleet).await;
    let client = world.client(address).await;
    let group = hosts("worker", free().await.port());
    let style = Style::InPlace { minimum_healthy: 1 };
    client.prepare(&group, style).await.unwrap();
    // A second time with other settings: the group is updated.
    client.prepare(&group, Style::InPlace { minimum_healthy: 0 }).await.unwrap();
    client.prepare(&group, style).await.unwrap();
    let (bundle, file) = world.bundle("v1");
    client.upload(&bundle, &file).await.unwrap();
    let request = request(&group, bundle, style);
    let before = now();
    let answer = client.create(&request).await;
    assert!(matches!(answer, CreateAnswer::Lost(_)), "{answer:?}");
    assert_eq!(sent.load(Ordering::SeqCst), 1, "the SDK must not send it again");
    let found = client.find(&group.name, request.token, before).await.unwrap();
    let id = found.ours.expect("it was carried out");
    let other = client.find(&group.name, IntentId::new(), before).await.unwrap();
    assert_eq!(other.ours, None);
    // There are no hosts.
    reaches(&client, &id, ProviderStatus::Failed).await;
    assert!(client.observe(&id).await.unwrap().problem.unwrap().contains("NO_INSTANCES"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_no_lost_answer_and_an_absent_group_has_no_deployments() {
    let world = World::start().await;
    let client = world.client(world.fleet).await;
    let group = hosts("nobody", 1);
    let found = client.find(&group.name, IntentId::new(), now()).await.unwrap();
    assert_eq!((found.ours, found.active), (None, None));
    let (bundle, _) = world.bundle("v1");
    let request = request(&group, bundle, Style::InPlace { minimum_healthy: 0 });
    let CreateAnswer::Refused { code, .. } = client.create(&request).await else { panic!() };
    assert_eq!(code, "ApplicationDoesNotExistException");
    let gone = client.observe("d-AAAAAAAAA").await.unwrap_err();
    assert!(matches!(gone, ProviderError::Refused { .. }), "{gone}");
    // Nobody listens there.
    let nowhere = world.client(free().await).await;
    assert!(matches!(nowhere.observe("d-AAAAAAAAA").await, Err(ProviderError::Unreachable(_))));
}

/// The machine's clock, wrong by so many microseconds.
#[derive(Debug, Clone)]
struct Shifted(Arc<AtomicI64>);

impl Clock for Shifted {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().0 + self.0.load(Ordering::Relaxed))
    }
}

/// What `GET /healthz` says of the time.
async fn date(world: &World) -> String {
    let url = format!("http://{}/healthz", world.fleet);
    let answer = reqwest::get(url).await.unwrap();
    answer.headers()["date"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_clock_that_was_put_right_is_believed_at_once_and_a_wrong_one_is_only_trouble() {
    let clock = Shifted(Arc::default());
    let world = World::start_by(Arc::new(clock.clone())).await;
    let client = world.client(world.fleet).await;
    let group = GroupName { application: "none".into(), group: "production".into() };
    let find =
        async || client.find(&group, IntentId::new(), SystemClock.now()).await.map(|f| f.ours);
    assert_eq!(find().await, Ok(None));
    // Far ahead, as seen by the client: its own clock was set back.
    clock.0.store(1_800 * 1_000_000, Ordering::Relaxed);
    let ahead = date(&world).await;
    let trouble = find().await.unwrap_err();
    assert!(
        matches!(&trouble, ProviderError::Unreachable(why) if why.contains("time server")),
        "{trouble:?}"
    );
    let create = CreateRequest {
        group: group.clone(),
        token: IntentId::new(),
        note: String::new(),
        bundle: Bundle { sha256: "0".repeat(64) },
        style: Style::BlueGreen,
        roll_back: false,
    };
    let lost = client.create(&create).await;
    assert!(matches!(lost, CreateAnswer::Lost(_)), "never a no: {lost:?}");
    // The fleet's clock follows: nothing that was learned meanwhile stands in the way.
    clock.0.store(0, Ordering::Relaxed);
    assert_eq!(find().await, Ok(None));
    assert!(date(&world).await != ahead, "the fleet says the time that it goes by");
}
