//! What a job may use, as Docker was told, and what happens beyond it.

use pipeyard_executor::{DiskLimit, JobEvent, Limits};
use pipeyard_model::Conclusion;
use tokio_util::sync::CancellationToken;

use crate::support::{BUSYBOX, Stage, docker, service, spec};

#[tokio::test]
async fn a_job_and_each_service_have_limits_of_their_own() {
    let test = "a_job_and_each_service_have_limits_of_their_own";
    let Some(stage) = Stage::set_with(test, |config| {
        config.limits = Limits { memory_bytes: 128 << 20, cpus: 0.5, pids: 200 };
        config.sidecar_limits = config.limits.of_sidecar();
    })
    .await
    else {
        return;
    };
    let mut spec = spec(BUSYBOX, &["echo ready; sleep 0.5"]);
    spec.services.push(service("db", BUSYBOX));
    spec.services[0].command = ["sleep", "100"].map(ToOwned::to_owned).to_vec();
    let mut shown = Vec::new();
    let seen = stage
        .run_job(stage.job(spec), CancellationToken::new(), |event| {
            if matches!(event, JobEvent::Output { .. }) && shown.is_empty() {
                let format = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} \
                              {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}";
                for name in stage.containers() {
                    shown.push(docker(&["inspect", "--format", format, &name]).trim().to_owned());
                }
            }
        })
        .await;
    seen.succeeded();
    shown.sort();
    let of = |memory: u64| format!("{memory} {memory} 500000000 200");
    assert_eq!(shown, [of(128 << 20), of(256 << 20)], "a sidecar has 256 MiB at least");
    stage.end().await;
}

#[tokio::test]
async fn a_job_that_fills_the_disk_is_ended_with_figures() {
    let test = "a_job_that_fills_the_disk_is_ended_with_figures";
    let limit = DiskLimit { bytes: 100 << 20, keep_free: 0 };
    let Some(stage) = Stage::set_with(test, |config| config.disk = limit).await else { return };
    // Beside the workspace, where no file of the runner's is.
    for place in ["/workspace/big", "/big"] {
        let script = format!("dd if=/dev/zero of={place} bs=1M count=200 2>/dev/null; sleep 60");
        let seen = stage.run(spec(BUSYBOX, &[&script])).await;
        seen.is(Conclusion::Failure, "disk_limit");
        for part in ["in its workspace", "100 MiB is its limit", "--disk"] {
            assert!(seen.message().contains(part), "{part}: {}", seen.message());
        }
        let _ = std::fs::remove_file(stage.workspace().join("big"));
    }
    stage.end().await;
}
