//! Container services for tests: images, load, and what is left behind.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use pipeyard_fleet::{http_client, proxy::ARM_HEADER};
use pipeyard_model::fleet::{ContainerService, ServiceDefinition, ServicePlatform};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{World, bundle, free_port, manifest};

pub(crate) const IMAGE: &str = "pipeyard/busybox:test";

/// Makes the tests' images if they aren't there.
pub(crate) fn images() {
    let found = Command::new("docker").args(["image", "inspect", IMAGE]).output().unwrap();
    if !found.status.success() {
        let script = manifest().join("../../tests/images/make.sh");
        assert!(Command::new(script).status().unwrap().success(), "no images");
    }
}

/// A service of its own for one test; what it leaves in Docker goes with it.
pub(crate) struct Shop {
    pub(crate) application: String,
    pub(crate) port: u16,
}

impl Shop {
    pub(crate) fn name(&self) -> String {
        format!("{}/production", self.application)
    }

    /// Sets up application, group and service.
    pub(crate) async fn create(world: &World, ready_minutes: Option<u32>) -> Self {
        images();
        let application = format!("shop-{}", uuid::Uuid::new_v4().simple());
        let shop = Self { application, port: free_port().await };
        world
            .aws(
                "CreateApplication",
                json!({"applicationName": shop.application, "computePlatform": "ECS"}),
            )
            .await;
        let ready = match ready_minutes {
            Some(minutes) => {
                json!({"actionOnTimeout": "STOP_DEPLOYMENT", "waitTimeInMinutes": minutes})
            }
            None => json!({"actionOnTimeout": "CONTINUE_DEPLOYMENT"}),
        };
        world
            .aws(
                "CreateDeploymentGroup",
                json!({
                    "applicationName": shop.application,
                    "deploymentGroupName": "production",
                    "serviceRoleArn": "arn:aws:iam::000000000000:role/pipeyard",
                    "blueGreenDeploymentConfiguration": {"deploymentReadyOption": ready},
                }),
            )
            .await;
        let command = "exec httpd -f -p $PORT -h /app/www";
        let container = ContainerService {
            image: IMAGE.into(),
            command: ["sh", "-c", command].map(str::to_owned).to_vec(),
            port: 8080,
            health_path: "/health".into(),
            replicas: 2,
            env: BTreeMap::new(),
            healthy_within: 20,
            drain_within: 10,
        };
        let platform = ServicePlatform::Container(container);
        let definition = ServiceDefinition { listen: shop.port, platform };
        world.put_service(&shop.name(), &definition).await;
        shop
    }

    /// Uploads a version that answers its own name.
    pub(crate) async fn version(&self, world: &World, version: &str) -> Value {
        let files = [("www/index.html", 0o644, version), ("www/health", 0o644, "ok")];
        world.put_bundle(&format!("{}-{version}", self.application), bundle(&files)).await
    }

    pub(crate) async fn get(&self) -> String {
        let url = format!("http://127.0.0.1:{}/", self.port);
        http_client().unwrap().get(url).send().await.unwrap().text().await.unwrap()
    }

    /// The deployments whose containers exist, with their number.
    pub(crate) fn containers(&self) -> BTreeMap<String, usize> {
        let filter = format!("label=pipeyard.service={}", self.name());
        let format = "{{.Label \"pipeyard.deployment\"}}";
        let run = Command::new("docker")
            .args(["ps", "-a", "--filter", &filter, "--format", format])
            .output()
            .unwrap();
        let mut found = BTreeMap::new();
        for line in String::from_utf8_lossy(&run.stdout).lines() {
            *found.entry(line.to_owned()).or_default() += 1;
        }
        found
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let filter = format!("label=pipeyard.service={}", self.name());
        let found = Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output();
        let ids = found.map(|run| String::from_utf8_lossy(&run.stdout).into_owned());
        for id in ids.unwrap_or_default().lines() {
            let _ = Command::new("docker").args(["rm", "-f", "-v", id]).output();
        }
    }
}

/// Clients that never stop asking.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    pub(crate) sent: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Load {
    pub(crate) fn start(port: u16) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let failures: Arc<Mutex<Vec<String>>> = Arc::default();
        let clients = (0..3).map(|_| {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            let failures = Arc::clone(&failures);
            let http = http_client().unwrap();
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let request = http.get(format!("http://127.0.0.1:{port}/"));
                    let failure = match request.timeout(Duration::from_secs(20)).send().await {
                        Ok(response) if response.status() == 200 => {
                            assert!(response.headers().contains_key(ARM_HEADER));
                            let body = response.text().await;
                            body.err().map(|error| error.to_string())
                        }
                        Ok(response) => Some(response.status().to_string()),
                        Err(error) => Some(format!("{error:?}")),
                    };
                    if let Some(failure) = failure {
                        failures.lock().unwrap().push(failure);
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        });
        let clients = clients.collect();
        Self { stop, clients, sent, failures }
    }

    /// Ends the clients; returns how many requests were sent and which failed.
    pub(crate) async fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        (self.sent.load(Ordering::Relaxed), self.failures.lock().unwrap().clone())
    }
}
