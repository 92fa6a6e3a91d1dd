//! The runner's settings: one struct, unknown keys are errors.

use std::path::PathBuf;

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

/// The runner's settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunnerConfig {
    /// The server's address.
    pub server: String,
    /// Identity, journals, workspaces.
    pub data_dir: PathBuf,
    /// Holds the registration token; needed until the runner has an identity.
    pub token_file: Option<PathBuf>,
    /// Shown to people.
    pub name: String,
    /// Labels that jobs can ask for.
    pub labels: Vec<String>,
    /// Jobs at a time, 1 to 64.
    pub slots: u32,
    /// What executes jobs.
    pub executor: ExecutorKind,
    /// The longest log of a job, in bytes, on this machine's disk until the server has it. The
    /// server's own limit holds too. A job that writes more is ended with the code `log_limit`.
    pub max_log_bytes: u64,
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
            docker_host: None,
        }
    }
}
