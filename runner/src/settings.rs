//! From a runner's settings to what its Docker executor is told. What isn't said is a share of the
//! machine; what is said wrongly ends the start.

use anyhow::{Context as _, ensure};
use pipeyard_executor::{
    Destination, DiskLimit, DockerConfig, DockerExecutor, Egress, Limits, RegistryAccess,
    RegistryRule,
};
use pipeyard_model::{ByteSize, InstallationId};

use crate::config::{EgressKind, RunnerConfig};

/// Docker refuses less.
const LEAST_MEMORY: u64 = 6 << 20;

pub(crate) async fn docker(
    config: &RunnerConfig,
    owner: InstallationId,
) -> anyhow::Result<DockerConfig> {
    let mut docker = DockerConfig::new(owner, &config.data_dir);
    docker.host.clone_from(&config.docker_host);
    docker.egress = egress(config)?;
    docker.registry_access = registries(config)?;
    check(config)?;
    let machine = DockerExecutor::machine(config.docker_host.as_deref()).await?;
    docker.limits = limits(config, Limits::of_job(machine, config.slots));
    docker.sidecar_limits = sidecars(config, docker.limits);
    docker.disk = disk(config, free(&config.data_dir));
    tracing::info!(
        memory = %ByteSize(docker.limits.memory_bytes),
        service_memory = %ByteSize(docker.sidecar_limits.memory_bytes),
        cpus = docker.limits.cpus,
        pids = docker.limits.pids,
        disk = %ByteSize(docker.disk.bytes),
        egress = ?config.egress,
        "what each job may use"
    );
    Ok(docker)
}

/// Without Docker nothing holds a job back, so what would is refused, not passed over.
pub(crate) fn check_local(config: &RunnerConfig) -> anyhow::Result<()> {
    let said = [
        ("memory", config.memory.is_some()),
        ("service_memory", config.service_memory.is_some()),
        ("cpus", config.cpus.is_some()),
        ("disk", config.disk.is_some()),
        ("egress_allow", !config.egress_allow.is_empty()),
        ("registry_auth", !config.registry_auth.is_empty()),
    ];
    for (name, is_said) in said {
        ensure!(
            !is_said,
            "`{name}` needs Docker, and this runner executes jobs without it: leave it out, or use \
             the executor docker"
        );
    }
    Ok(())
}

fn check(config: &RunnerConfig) -> anyhow::Result<()> {
    for (name, size) in [("memory", config.memory), ("service_memory", config.service_memory)] {
        let size = size.map_or(0, |size| size.0);
        ensure!(
            size == 0 || size >= LEAST_MEMORY,
            "`{name}` is {}: Docker needs 6 MiB at least; write a number with a unit, such as 2g",
            ByteSize(size)
        );
    }
    if let Some(cpus) = config.cpus {
        ensure!(
            cpus.is_finite() && (cpus == 0.0 || (0.01..=1024.0).contains(&cpus)),
            "`cpus` is {cpus}: it is a number of processors such as 1.5, or 0 for no limit"
        );
    }
    ensure!(config.pids != 0, "`pids` is 0: a job needs processes; 4096 is the default");
    Ok(())
}

fn limits(config: &RunnerConfig, share: Limits) -> Limits {
    Limits {
        memory_bytes: config.memory.map_or(share.memory_bytes, |size| size.0),
        cpus: config.cpus.unwrap_or(share.cpus),
        pids: config.pids,
    }
}

fn sidecars(config: &RunnerConfig, job: Limits) -> Limits {
    let share = job.of_sidecar();
    Limits {
        memory_bytes: config.service_memory.map_or(share.memory_bytes, |size| size.0),
        ..share
    }
}

fn disk(config: &RunnerConfig, free: u64) -> DiskLimit {
    let share = DiskLimit::of_job(free, config.slots);
    DiskLimit {
        bytes: config.disk.map_or(share.bytes, |size| size.0),
        keep_free: config.keep_free.0,
    }
}

fn free(path: &std::path::Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize))
}

fn egress(config: &RunnerConfig) -> anyhow::Result<Egress> {
    let allowed: Vec<Destination> = config
        .egress_allow
        .iter()
        .map(|text| text.parse::<Destination>())
        .collect::<Result<_, _>>()
        .context("`egress_allow` isn't right")?;
    match config.egress {
        EgressKind::Guarded => Ok(Egress::Guarded(allowed)),
        EgressKind::Open => {
            ensure!(
                allowed.is_empty(),
                "`egress_allow` says something only where `egress` is guarded: leave one of them out"
            );
            Ok(Egress::Open)
        }
    }
}

fn registries(config: &RunnerConfig) -> anyhow::Result<RegistryAccess> {
    let rules: Vec<RegistryRule> = config
        .registry_auth
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()
        .context("`registry_auth` isn't right")?;
    Ok(RegistryAccess::Rules(rules))
}

#[cfg(test)]
mod tests {
    use pipeyard_executor::Machine;

    use super::*;

    #[test]
    fn what_is_said_wins_over_the_share_and_nothing_is_unlimited_by_itself() {
        let machine = Machine { memory_bytes: 16 << 30, cpus: 4 };
        let share = Limits::of_job(machine, 2);
        let plain = RunnerConfig::default();
        assert_eq!(limits(&plain, share), share);
        assert!(disk(&plain, 1 << 40).bytes > 0);
        let said = RunnerConfig {
            memory: Some(ByteSize(1 << 30)),
            cpus: Some(0.5),
            pids: 100,
            disk: Some(ByteSize(5 << 30)),
            ..RunnerConfig::default()
        };
        let job = limits(&said, share);
        assert_eq!(job, Limits { memory_bytes: 1 << 30, cpus: 0.5, pids: 100 });
        assert_eq!(sidecars(&said, job).memory_bytes, 512 << 20);
        assert_eq!(disk(&said, 1 << 40).bytes, 5 << 30);
        let service = RunnerConfig { service_memory: Some(ByteSize(1 << 28)), ..said };
        assert_eq!(sidecars(&service, job).memory_bytes, 1 << 28);
    }

    #[test]
    fn settings_that_say_nothing_useful_end_the_start() {
        let bad = |change: fn(&mut RunnerConfig)| {
            let mut config = RunnerConfig::default();
            change(&mut config);
            check(&config).is_err() || egress(&config).is_err() || registries(&config).is_err()
        };
        assert!(!bad(|_| {}));
        assert!(check_local(&RunnerConfig::default()).is_ok());
        let limited = RunnerConfig { memory: Some(ByteSize(1 << 30)), ..RunnerConfig::default() };
        assert!(check_local(&limited).is_err(), "what nobody would hold is refused");
        assert!(bad(|c| c.memory = Some(ByteSize(4))));
        assert!(bad(|c| c.service_memory = Some(ByteSize(1024))));
        assert!(bad(|c| c.cpus = Some(-1.0)));
        assert!(bad(|c| c.cpus = Some(f64::NAN)));
        assert!(bad(|c| c.pids = 0));
        assert!(bad(|c| c.egress_allow = vec!["db.internal".into()]));
        assert!(bad(|c| c.registry_auth = vec!["ghcr.io".into()]));
        assert!(bad(|c| {
            c.egress = EgressKind::Open;
            c.egress_allow = vec!["10.0.0.0/8".into()];
        }));
    }
}
