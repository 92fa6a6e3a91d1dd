//! One container with the shim as its process 1: made, attached to, started, removed.
//!
//! Whatever a job or a service needs to know arrives on the shim's stdin; Docker's own record of the
//! container holds no command, no environment and no secret. Docker removes the container by itself
//! when the shim ends, so one whose runner died is gone without anybody's help.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bollard::{
    Docker,
    container::LogOutput,
    models::{
        ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig,
        Mount, MountType, NetworkingConfig,
    },
    query_parameters::{
        AttachContainerOptions, CreateContainerOptionsBuilder, EventsOptions,
        InspectContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
        WaitContainerOptions,
    },
};
use futures_util::StreamExt;
use pipeyard_model::Timestamp;
use tokio::time::{sleep, timeout};

use super::{
    Limits,
    fault::{self, Fault},
    labels,
};
use crate::session::{Link, Tail};

/// Where the workspace is in a container.
pub(crate) const WORKSPACE: &str = "/workspace";
/// Where the shim is in a container.
const SHIM: &str = "/.pipeyard-shim";
/// How long a container may take to be gone after its shim has ended.
const REMOVAL: Duration = Duration::from_secs(15);
/// How long Docker may take to tell of a kill for lack of memory.
const OOM_NEWS: Duration = Duration::from_millis(500);

/// What a container is made of.
#[derive(Debug)]
pub(crate) struct Making<'a> {
    pub(crate) name: String,
    pub(crate) image: &'a str,
    pub(crate) network: &'a str,
    /// The host name by which others on the network reach it.
    pub(crate) alias: Option<&'a str>,
    pub(crate) workspace: Option<&'a Path>,
    pub(crate) shim: &'a Path,
    pub(crate) labels: HashMap<String, String>,
    pub(crate) limits: Limits,
    /// Keep the image's HEALTHCHECK and working folder: it is a service.
    pub(crate) is_service: bool,
}

/// A container that runs, waiting for its job on stdin.
pub(crate) struct Running {
    pub(crate) link: Link,
    /// What the shim itself complained about.
    pub(crate) complaint: Arc<Mutex<Tail>>,
}

/// Makes the container, attaches to it and starts it.
pub(crate) async fn start(docker: &Docker, making: Making<'_>) -> Result<Running, Fault> {
    let name = making.name.clone();
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    docker
        .create_container(Some(options), body(making))
        .await
        .map_err(|error| Fault::of("make a container", &error))?;
    let options = AttachContainerOptions {
        stream: true,
        stdin: true,
        stdout: true,
        stderr: true,
        ..AttachContainerOptions::default()
    };
    let attached = docker
        .attach_container(&name, Some(options))
        .await
        .map_err(|error| Fault::of("attach to a container", &error))?;
    docker
        .start_container(&name, None::<StartContainerOptions>)
        .await
        .map_err(|error| Fault::of("start a container", &error))?;
    let complaint = Arc::new(Mutex::new(Tail::default()));
    let tail = Arc::clone(&complaint);
    let output = attached.output.filter_map(move |piece| {
        let piece = match piece {
            Ok(LogOutput::StdErr { message }) => {
                tail.lock().unwrap_or_else(PoisonError::into_inner).push(&message);
                None
            }
            Ok(piece) => Some(Ok(piece.into_bytes())),
            Err(error) => Some(Err(format!("the connection to Docker broke: {error}"))),
        };
        std::future::ready(piece)
    });
    Ok(Running { link: Link { input: attached.input, output: output.boxed() }, complaint })
}

fn body(making: Making<'_>) -> ContainerCreateBody {
    let Limits { memory_bytes, cpus, pids } = making.limits;
    let memory = i64::try_from(memory_bytes).ok().filter(|bytes| *bytes > 0);
    let mount = |source: &Path, target: &str, read_only| Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    };
    let mut mounts = vec![mount(making.shim, SHIM, true)];
    mounts.extend(making.workspace.map(|workspace| mount(workspace, WORKSPACE, false)));
    let endpoint = EndpointSettings {
        aliases: making.alias.map(|alias| vec![alias.to_owned()]),
        ..EndpointSettings::default()
    };
    let strings = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    ContainerCreateBody {
        image: Some(making.image.to_owned()),
        entrypoint: strings(&[SHIM]),
        cmd: Some(Vec::new()),
        // The shim is root in the container, with few capabilities, and steps can't touch it; it
        // changes to the image's user for every command.
        user: Some("0:0".to_owned()),
        working_dir: (!making.is_service).then(|| "/".to_owned()),
        healthcheck: (!making.is_service)
            .then(|| HealthConfig { test: strings(&["NONE"]), ..HealthConfig::default() }),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        stdin_once: Some(true),
        labels: Some(making.labels),
        host_config: Some(HostConfig {
            mounts: Some(mounts),
            network_mode: Some(making.network.to_owned()),
            auto_remove: Some(true),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            cap_drop: strings(&["NET_RAW", "MKNOD", "AUDIT_WRITE"]),
            security_opt: strings(&["no-new-privileges"]),
            memory,
            memory_swap: memory,
            nano_cpus: nano(cpus),
            // Where the processors are scarce, half as much as what is deployed here.
            cpu_shares: Some(512),
            pids_limit: (pids > 0).then(|| i64::from(pids)),
            init: Some(false),
            ..HostConfig::default()
        }),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(making.network.to_owned(), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a number of processors, in billionths")]
fn nano(cpus: f64) -> Option<i64> {
    (cpus > 0.0).then(|| (cpus * 1e9).min(1e15) as i64)
}

/// The container's address on its network.
pub(crate) async fn address(docker: &Docker, name: &str) -> Option<String> {
    let found = docker.inspect_container(name, None::<InspectContainerOptions>).await.ok()?;
    let networks = found.network_settings?.networks?;
    networks.into_values().find_map(|end| end.ip_address.filter(|address| !address.is_empty()))
}

/// Waits until the container is gone, by itself when its shim has ended (`is_ending`), otherwise by
/// force. Answers whether it is known to be gone.
pub(crate) async fn remove(docker: &Docker, name: &str, is_ending: bool) -> bool {
    if is_ending {
        let options = WaitContainerOptions { condition: "removed".to_owned() };
        let mut removed = Box::pin(docker.wait_container(name, Some(options)));
        match timeout(REMOVAL, removed.next()).await {
            // An exit code other than 0 is an error to bollard.
            Ok(Some(Ok(_) | Err(bollard::errors::Error::DockerContainerWaitError { .. }))) => {
                return true;
            }
            Ok(Some(Err(error))) if fault::status(&error) == Some(404) => return true,
            Ok(_) | Err(_) => {}
        }
    }
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    for _ in 0..50 {
        match docker.remove_container(name, Some(options.clone())).await {
            Ok(()) => return true,
            Err(error) if fault::status(&error) == Some(404) => return true,
            // Docker is at it already.
            Err(error) if fault::status(&error) == Some(409) => {}
            Err(error) if fault::is_unreachable(&error) => return false,
            Err(error) => tracing::warn!(container.name = name, %error, "can't remove a container"),
        }
        sleep(Duration::from_millis(200)).await;
    }
    false
}

/// The role of the container of which Docker told that a process was killed for lack of memory.
pub(crate) async fn ran_out_of_memory(
    docker: &Docker,
    names: &[String],
    since: Timestamp,
) -> Option<String> {
    let seconds = |micros: i64| format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let filters = HashMap::from([
        ("container".to_owned(), names.to_vec()),
        ("event".to_owned(), vec!["oom".to_owned()]),
    ]);
    let options =
        EventsOptions { since: Some(seconds(since.0)), until: None, filters: Some(filters) };
    let mut events = Box::pin(docker.events(Some(options)));
    let Ok(Some(Ok(event))) = timeout(OOM_NEWS, events.next()).await else { return None };
    let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
    Some(attributes.get(labels::ROLE).cloned().unwrap_or_default())
}

/// Explains a job that ended without its sentinel.
pub(crate) async fn explain_loss(
    docker: &Docker,
    name: &str,
    broken: Option<&str>,
    complaint: &[String],
) -> Fault {
    match timeout(Duration::from_secs(5), docker.ping()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return went_away(&error.to_string()),
        Err(_) => return went_away("it doesn't answer a ping"),
    }
    let details: Vec<&str> =
        broken.into_iter().chain(complaint.iter().map(String::as_str)).collect();
    let details =
        if details.is_empty() { String::new() } else { format!(": {}", details.join("; ")) };
    // Where the stream just ended, the container has closed it: that is its own end.
    let found = docker.inspect_container(name, None::<InspectContainerOptions>).await;
    let runs = found.is_ok_and(|found| found.state.and_then(|state| state.running) == Some(true));
    if runs && broken.is_some() {
        return Fault::new(
            "container_lost",
            format!("The connection to the job's container was lost{details}. Start it again."),
        );
    }
    Fault::new(
        "no_sentinel",
        format!(
            "The job's container ended before the job did{details}. Something outside of the job \
             stopped it, such as a restart of Docker."
        ),
    )
}

fn went_away(detail: &str) -> Fault {
    let fault = Fault::unavailable(detail);
    Fault::new("docker_lost", format!("Docker went away while the job ran. {}", fault.message))
}
