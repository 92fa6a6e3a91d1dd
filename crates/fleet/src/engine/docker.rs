//! Containers of services, through the Docker API.
//!
//! Everything made here carries the fleet's id, the deployment and the service as labels, and is
//! found again by them alone: the database holds no container ids. A container keeps its port for
//! life, so that it can be restarted by Docker while the fleet is dead.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
};

use bollard::{
    Docker,
    models::{
        ContainerCreateBody, ContainerSummaryStateEnum, HostConfig, HostConfigLogConfig,
        PortBinding, RestartPolicy, RestartPolicyNameEnum,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ListContainersOptionsBuilder,
        LogsOptionsBuilder, RemoveContainerOptionsBuilder, RestartContainerOptionsBuilder,
        StopContainerOptionsBuilder, UploadToContainerOptionsBuilder,
    },
};
use futures_util::{StreamExt, TryStreamExt};
use pipeyard_model::fleet::ContainerService;
use rand::RngExt;

const FLEET: &str = "pipeyard.fleet";
const DEPLOYMENT: &str = "pipeyard.deployment";
const SERVICE: &str = "pipeyard.service";
const REPLICA: &str = "pipeyard.replica";
const PORT: &str = "pipeyard.port";
/// Containers that are made at the same time.
const AT_ONCE: usize = 4;
const MEMORY: i64 = 1 << 30;
const PIDS: i64 = 1_024;
/// Below the range that the system gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// The Docker that this fleet deploys to.
#[derive(Debug, Clone)]
pub(crate) struct Containers {
    docker: Docker,
    fleet: String,
}

/// A container of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replica {
    pub(super) id: String,
    pub(super) deployment: String,
    /// `application/group`.
    pub(super) service: String,
    pub(super) index: u32,
    pub(super) address: SocketAddr,
    pub(super) state: ReplicaState,
    /// The state in Docker's words: `Exited (137) 3 seconds ago`.
    pub(super) words: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplicaState {
    /// Never started.
    Created,
    Running,
    /// Frozen by somebody.
    Paused,
    /// It runs without a network: nobody can reach it.
    Detached,
    /// Ended; Docker is about to start it again.
    Restarting,
    /// Ended; nobody starts it again but us.
    Down,
}

/// What a set is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Set<'a> {
    pub(super) deployment: &'a str,
    /// `application/group`.
    pub(super) service: &'a str,
    pub(super) container: &'a ContainerService,
    pub(super) sha256: &'a str,
    /// A tar with the bundle under `app/`.
    pub(super) tar: &'a Path,
}

/// Why Docker didn't do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DockerError {
    #[error("Docker: {0}")]
    Api(#[from] bollard::errors::Error),
    /// It won't get better by trying again.
    #[error("{0}")]
    Permanent(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

impl Containers {
    pub(crate) fn connect(host: Option<&str>, fleet: String) -> anyhow::Result<Self> {
        let docker = match host {
            Some(host) => Docker::connect_with_host(host)?,
            None => Docker::connect_with_defaults()?,
        };
        Ok(Self { docker, fleet })
    }

    /// Every container of this fleet, or of one deployment of it.
    pub(super) async fn list(&self, deployment: Option<&str>) -> Result<Vec<Replica>, DockerError> {
        let mut labels = vec![format!("{FLEET}={}", self.fleet)];
        labels.extend(deployment.map(|id| format!("{DEPLOYMENT}={id}")));
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = self.docker.list_containers(Some(options)).await?;
        let replicas = found.into_iter().filter_map(|container| {
            let labels = container.labels?;
            let label = |name: &str| labels.get(name).cloned();
            let networks = container.network_settings.and_then(|settings| settings.networks);
            let attached = networks.is_none_or(|networks| !networks.is_empty());
            Some(Replica {
                id: container.id?,
                deployment: label(DEPLOYMENT)?,
                service: label(SERVICE)?,
                index: label(REPLICA)?.parse().ok()?,
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, label(PORT)?.parse().ok()?)),
                state: match container.state? {
                    ContainerSummaryStateEnum::CREATED => ReplicaState::Created,
                    ContainerSummaryStateEnum::RUNNING if attached => ReplicaState::Running,
                    ContainerSummaryStateEnum::RUNNING => ReplicaState::Detached,
                    ContainerSummaryStateEnum::PAUSED => ReplicaState::Paused,
                    ContainerSummaryStateEnum::RESTARTING => ReplicaState::Restarting,
                    _ => ReplicaState::Down,
                },
                words: container.status.unwrap_or_default(),
            })
        });
        let mut replicas: Vec<Replica> = replicas.collect();
        replicas.sort_by(|a, b| (&a.deployment, a.index).cmp(&(&b.deployment, b.index)));
        Ok(replicas)
    }

    /// Makes what is missing of a set, and starts what is down. May be repeated.
    pub(super) async fn ensure(&self, set: Set<'_>) -> Result<(), DockerError> {
        let present = self.list(Some(set.deployment)).await?;
        let mut standing = Vec::new();
        for replica in &present {
            let kept = replica.index < set.container.replicas
                && match replica.state {
                    ReplicaState::Running | ReplicaState::Restarting => true,
                    ReplicaState::Paused => self.unpause(&replica.id).await.is_ok(),
                    // Its port may be another's by now: then it is made anew.
                    ReplicaState::Down => self.start(&replica.id).await.is_ok(),
                    // One that never started may have no bundle in it.
                    ReplicaState::Created | ReplicaState::Detached => false,
                };
            if kept {
                standing.push(replica.index);
            } else {
                self.remove(&replica.id).await?;
            }
        }
        let missing = (0..set.container.replicas).filter(|index| !standing.contains(index));
        let making = missing.map(|index| self.create(set, index));
        futures_util::stream::iter(making).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Starts a container that ended. One that runs is fine.
    pub(super) async fn start(&self, id: &str) -> Result<(), DockerError> {
        match self.docker.start_container(id, None).await {
            Err(error) if status(&error) != Some(304) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Lets a container go on that somebody froze.
    pub(super) async fn unpause(&self, id: &str) -> Result<(), DockerError> {
        Ok(self.docker.unpause_container(id).await?)
    }

    /// Ends a container's program and starts it again.
    pub(super) async fn restart(&self, id: &str) -> Result<(), DockerError> {
        let options = RestartContainerOptionsBuilder::default().t(3).build();
        Ok(self.docker.restart_container(id, Some(options)).await?)
    }

    async fn create(&self, set: Set<'_>, index: u32) -> Result<(), DockerError> {
        let mut last = None;
        for _ in 0..8 {
            let port = free_port()?;
            let id = self.make(set, index, port).await?;
            let filled = self.fill(&id, set.tar).await;
            let started = match filled {
                Ok(()) => self.docker.start_container(&id, None).await.map_err(DockerError::from),
                Err(error) => Err(error),
            };
            match started {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.remove(&id).await?;
                    let text = error.to_string();
                    let taken = text.contains("address already in use")
                        || text.contains("port is already allocated");
                    let asks = matches!(&error, DockerError::Api(e)
                        if matches!(status(e), Some(400 | 404)));
                    if !taken {
                        return Err(if asks { DockerError::Permanent(text) } else { error });
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| DockerError::Permanent("no free port".into())))
    }

    async fn make(&self, set: Set<'_>, index: u32, port: u16) -> Result<String, DockerError> {
        let container = set.container;
        let inside = format!("{}/tcp", container.port);
        let mut env: Vec<String> =
            container.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        env.push(format!("PORT={}", container.port));
        env.push(format!("PIPEYARD_DEPLOYMENT={}", set.deployment));
        env.push(format!("PIPEYARD_RELEASE={}", set.sha256));
        env.push(format!("PIPEYARD_REPLICA={index}"));
        let binding =
            PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(port.to_string()) };
        let body = ContainerCreateBody {
            image: Some(container.image.clone()),
            cmd: (!container.command.is_empty()).then(|| container.command.clone()),
            env: Some(env),
            working_dir: Some("/app".into()),
            exposed_ports: Some(vec![inside.clone()]),
            labels: Some(HashMap::from([
                (FLEET.to_owned(), self.fleet.clone()),
                (DEPLOYMENT.to_owned(), set.deployment.to_owned()),
                (SERVICE.to_owned(), set.service.to_owned()),
                (REPLICA.to_owned(), index.to_string()),
                (PORT.to_owned(), port.to_string()),
            ])),
            host_config: Some(HostConfig {
                port_bindings: Some(HashMap::from([(inside, Some(vec![binding]))])),
                restart_policy: Some(RestartPolicy {
                    name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                    maximum_retry_count: None,
                }),
                cap_drop: Some(["NET_RAW", "MKNOD", "AUDIT_WRITE"].map(str::to_owned).to_vec()),
                security_opt: Some(vec!["no-new-privileges".into()]),
                pids_limit: Some(PIDS),
                memory: Some(MEMORY),
                log_config: Some(HostConfigLogConfig {
                    typ: Some("json-file".into()),
                    config: Some(HashMap::from([
                        ("max-size".to_owned(), "10m".to_owned()),
                        ("max-file".to_owned(), "2".to_owned()),
                    ])),
                }),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        // A copy of a fleet has the same deployments.
        let own = self.fleet.get(self.fleet.len().saturating_sub(6)..).unwrap_or_default();
        let name = format!("pipeyard-{}-{index}-{own}", set.deployment);
        for pulled in [false, true] {
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            match self.docker.create_container(Some(options), body.clone()).await {
                Ok(created) => return Ok(created.id),
                Err(error) if status(&error) == Some(404) && !pulled => {
                    self.pull(&container.image).await?;
                }
                Err(error) if matches!(status(&error), Some(400 | 404)) => {
                    return Err(DockerError::Permanent(format!("{}: {error}", container.image)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(DockerError::Permanent(format!("there is no image {}", container.image)))
    }

    async fn pull(&self, image: &str) -> Result<(), DockerError> {
        let options = CreateImageOptionsBuilder::default().from_image(image).build();
        let mut progress = std::pin::pin!(self.docker.create_image(Some(options), None, None));
        while let Some(step) = progress.next().await {
            step.map_err(|error| {
                DockerError::Permanent(format!(
                    "the image {image} isn't here and can't be pulled: {error}"
                ))
            })?;
        }
        Ok(())
    }

    async fn fill(&self, id: &str, tar: &Path) -> Result<(), DockerError> {
        let file = tokio::fs::File::open(tar).await?;
        let body = bollard::body_try_stream(tokio_util::io::ReaderStream::new(file));
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        Ok(self.docker.upload_to_container(id, Some(options), body).await?)
    }

    /// Asks a container to end, then removes it. One that is gone is fine.
    pub(super) async fn retire(&self, id: &str) -> Result<(), DockerError> {
        let options = StopContainerOptionsBuilder::default().t(3).build();
        match self.docker.stop_container(id, Some(options)).await {
            Err(error) if !matches!(status(&error), Some(304 | 404)) => return Err(error.into()),
            _ => {}
        }
        self.remove(id).await
    }

    pub(super) async fn remove(&self, id: &str) -> Result<(), DockerError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker.remove_container(id, Some(options)).await {
            // 409: somebody else is removing it already.
            Err(error) if !matches!(status(&error), Some(404 | 409)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Removes every container of this fleet at once.
    pub(crate) async fn remove_all(&self) -> Result<(), DockerError> {
        for replica in self.list(None).await? {
            self.remove(&replica.id).await?;
        }
        Ok(())
    }

    /// How often Docker restarted it, and its last exit code if it is down.
    pub(super) async fn restarts(&self, id: &str) -> Result<(i64, Option<i64>), DockerError> {
        let found = self.docker.inspect_container(id, None).await?;
        let code = found.state.and_then(|state| state.exit_code);
        Ok((found.restart_count.unwrap_or(0), code))
    }

    /// The last of what it wrote, at most 2048 bytes.
    pub(super) async fn log_tail(&self, id: &str) -> String {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("50").build();
        let mut logs = std::pin::pin!(self.docker.logs(id, Some(options)));
        let mut text = String::new();
        while let Some(Ok(chunk)) = logs.next().await {
            text += &chunk.to_string();
        }
        tail(&text).to_owned()
    }
}

/// The last 2048 bytes of a text, cut between characters.
pub(crate) fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(2_048);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// A port that nobody listens on. Somebody may take it before Docker does; then another is tried.
fn free_port() -> Result<u16, DockerError> {
    for _ in 0..200 {
        let port = rand::rng().random_range(PORTS);
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(DockerError::Permanent("no free port between 20000 and 30000".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_cut_between_characters() {
        let text = "한".repeat(1_000);
        let cut = tail(&text);
        assert!(cut.len() <= 2_048 && cut.chars().all(|c| c == '한'));
        assert_eq!(tail("short"), "short");
    }
}
