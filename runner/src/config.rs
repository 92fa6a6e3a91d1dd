//! The runner's settings: one struct, unknown keys are errors.

use std::path::PathBuf;

use pipeyard_executor::DiskLimit;
use pipeyard_model::ByteSize;
use serde::{Deserialize, Serialize};

/// What executes jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorKind {
    /// In Docker containers.
    Docker,
    /// As processes of this machine, without isolation: for machines of one's own without Docker.
    Local,
}

/// Where jobs may connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressKind {
    /// Not to this machine's own addresses and its cloud's metadata service.
    Guarded,
    /// Anywhere that this machine can.
    Open,
}

/// The runner's settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunnerConfig {
    /// The server's address.
    pub server: String,
    /// Identity, journals, workspaces.
    pub data_dir: PathBuf,
    /// Holds the enrolment token; needed until the runner has an identity.
    pub token_file: Option<PathBuf>,
    /// Shown to people.
    pub name: String,
    /// Labels that jobs can ask for, of those that the token gives; all of them if empty.
    pub labels: Vec<String>,
    /// Jobs at a time, 1 to 64.
    pub slots: u32,
    /// What executes jobs.
    pub executor: ExecutorKind,
    /// The longest log of a job, in bytes, on this machine's disk until the server has it. The
    /// server's own limit holds too. A job that writes more is ended with the code `log_limit`.
    pub max_log_bytes: u64,
    /// Memory of a job's container; a share of the machine by `slots` if absent, 0 for no limit.
    pub memory: Option<ByteSize>,
    /// Memory of each service beside a job; half of the job's if absent.
    pub service_memory: Option<ByteSize>,
    /// Processors of a container, in parts too; all but a quarter of one if absent.
    pub cpus: Option<f64>,
    /// Processes and threads of a container.
    pub pids: u32,
    /// What a job may put on this machine's disk; a share of the free space if absent, 0 for no limit.
    pub disk: Option<ByteSize>,
    /// So much of the disk is kept free: below it no job is taken.
    pub keep_free: ByteSize,
    /// Where jobs may connect to.
    pub egress: EgressKind,
    /// Addresses of this machine, or of its cloud's, that jobs may connect to all the same:
    /// `10.1.2.3:5432`, `192.0.2.0/24`.
    pub egress_allow: Vec<String>,
    /// Which repositories may use the login that `docker login` left here:
    /// `ghcr.io/acme=acme/shop,acme/tools`, `*` for all. Without one no job uses it.
    pub registry_auth: Vec<String>,
    /// Docker's address; `DOCKER_HOST` or the default socket if absent.
    pub docker_host: Option<String>,
}

impl Default for RunnerConfig {
    fn default() -> Self {
        Self {
            server: "http://127.0.0.1:8470".into(),
            data_dir: PathBuf::from("pipeyard-runner"),
            token_file: None,
            name: "runner".into(),
            labels: Vec::new(),
            slots: 2,
            executor: ExecutorKind::Docker,
            max_log_bytes: 4 << 30,
            memory: None,
            service_memory: None,
            cpus: None,
            pids: 4096,
            disk: None,
            keep_free: ByteSize(DiskLimit::KEEP_FREE),
            egress: EgressKind::Guarded,
            egress_allow: Vec::new(),
            registry_auth: Vec::new(),
            docker_host: None,
        }
    }
}
