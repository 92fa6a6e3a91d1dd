//! From a deploy in a pipeline and a service in an environment to what the provider is asked for,
//! or the reason why it can't be.

use std::time::Duration;

use pipeyard_api::deploys::ServiceSpec;
use pipeyard_deploy::provider::{Group, GroupName, Style};
use pipeyard_model::{
    EnvironmentName, ReleaseId, ServiceName,
    deployment::{Deployment, Reason, Release},
    fleet::{ContainerService, HostService, ServiceDefinition, ServicePlatform},
    plan::{Batch, ReleaseSource, Strategy},
};
use pipeyard_store::{StoreResult, deployments::Place, runs::ReadyDeploy};

use crate::AppState;

/// How long beyond a step's time data may be missing before the verdict is "inconclusive".
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// The release that a deploy ships; otherwise why it has none.
pub(super) async fn release(
    state: &AppState,
    ready: &ReadyDeploy,
) -> StoreResult<Result<Release, Reason>> {
    let (environment, service) = (&ready.spec.environment, &ready.spec.service);
    if state.store.place(environment, service).await?.is_none() {
        return Ok(Err(no_service(environment, service)));
    }
    let ReleaseSource::Artifact { job, path } = &ready.spec.release;
    let Some(source) = state.store.job(ready.run, job).await? else {
        return Ok(Err(Reason::new(
            "release_missing",
            format!("run {} has no job {job}", ready.run),
        )));
    };
    let Some(artifact) = state.store.artifact_of_job(source.id, path).await? else {
        return Ok(Err(Reason::new(
            "release_missing",
            format!("job {job} kept no artifact {path:?}: name it under the job's `artifacts`"),
        )));
    };
    if let Some(at) = artifact.removed_at {
        let day: String = at.to_string().chars().take(10).collect();
        let text = format!(
            "artifact {path:?} of job {job} was removed on {day} because of its age: run {job} again"
        );
        return Ok(Err(Reason::new("release_removed", text)));
    }
    let Some(repo) = state.store.repo(ready.repo).await? else {
        return Ok(Err(Reason::new("release_missing", "the repository is gone")));
    };
    Ok(Ok(Release {
        id: ReleaseId::new(),
        repo: ready.repo,
        repo_name: repo.name,
        commit: ready.commit.clone(),
        run: ready.run,
        job: job.clone(),
        artifact: artifact.path,
        sha256: artifact.sha256,
        size: artifact.size,
    }))
}

/// There is no such place.
pub(super) fn no_service(environment: &EnvironmentName, service: &ServiceName) -> Reason {
    Reason::new(
        "service_not_found",
        format!(
            "there is no service {environment}/{service}: add it to the environments file and run `pipectl envs apply FILE`"
        ),
    )
}

/// What the provider is asked for.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) group: Group,
    pub(super) style: Style,
}

/// How a service takes this strategy; otherwise why it can't.
pub(super) fn target(
    deployment: &Deployment,
    place: &Place,
    moves_traffic: bool,
) -> Result<Target, Reason> {
    let refused = |message: &str| Err(Reason::new("strategy_not_possible", message));
    let ServiceSpec { listen, container, hosts, .. } = &place.spec;
    let name = GroupName::new(&deployment.environment, &deployment.service);
    match (container, hosts) {
        (Some(spec), None) => {
            let style = match &deployment.strategy {
                Strategy::AllAtOnce => Style::BlueGreen,
                // A later release couldn't be shifted either, so the first one says it already.
                Strategy::Canary { .. } if !moves_traffic => {
                    return refused(
                        "this provider can't shift traffic by weights of your own; use the embedded fleet",
                    );
                }
                Strategy::Canary { .. } if !deployment.is_canary() => Style::BlueGreen,
                Strategy::Canary { steps } => {
                    let steps = steps.iter().map(|step| step.hold + PATIENCE).sum::<Duration>();
                    // A person may have to decide: the provider's own end comes last. The
                    // pipeline language takes no canary for which this isn't enough.
                    let minutes = (steps.as_secs() / 60 + 60).clamp(1, 2_880);
                    Style::Canary { wait_minutes: u32::try_from(minutes).unwrap_or(2_880) }
                }
                Strategy::Rolling { .. } => {
                    return refused(
                        "a service of containers is replaced as a set: use `canary`, or no strategy for all at once",
                    );
                }
            };
            let platform = ServicePlatform::Container(ContainerService {
                image: spec.image.clone(),
                command: spec.command.clone(),
                port: spec.port,
                health_path: spec.health_path.clone(),
                replicas: spec.replicas,
                env: spec.env.clone(),
                healthy_within: spec.healthy_within_seconds,
                drain_within: 30,
            });
            let definition = ServiceDefinition { listen: *listen, platform };
            Ok(Target { group: Group { name, definition, tags: Default::default() }, style })
        }
        (None, Some(spec)) => {
            let batch = match &deployment.strategy {
                Strategy::AllAtOnce => spec.count,
                Strategy::Rolling { batch: Batch::Count(count) } => (*count).min(spec.count),
                Strategy::Rolling { batch: Batch::Percent(percent) } => {
                    (spec.count * u32::from(*percent) / 100).max(1)
                }
                Strategy::Canary { .. } => {
                    return refused(
                        "a service on hosts has no traffic weights: use `rolling: 25% at a time`",
                    );
                }
            };
            let style = Style::InPlace { minimum_healthy: spec.count.saturating_sub(batch) };
            let platform = ServicePlatform::Hosts(HostService {
                health_path: spec.health_path.clone(),
                healthy_within: spec.healthy_within_seconds,
                drain_within: 30,
            });
            let definition = ServiceDefinition { listen: *listen, platform };
            Ok(Target { group: Group { name, definition, tags: spec.tags.clone() }, style })
        }
        (Some(_), Some(_)) | (None, None) => {
            refused("the service is neither one of containers nor one on hosts")
        }
    }
}

/// Why this service can't take this strategy, whoever deploys: told before anybody approves.
pub(super) fn impossible(deployment: &Deployment, place: &Place) -> Option<Reason> {
    target(deployment, place, true).err()
}

#[cfg(test)]
mod tests {
    use pipeyard_api::deploys::{HostsSpec, ProviderSpec, QueuePolicy};
    use pipeyard_model::plan::CanaryStep;

    use super::*;

    fn hosts(count: u32) -> Place {
        Place {
            production: true,
            provider: ProviderSpec { endpoint: None, region: "local".into(), credentials: None },
            spec: ServiceSpec {
                listen: 1,
                container: None,
                hosts: Some(HostsSpec {
                    tags: Default::default(),
                    count,
                    health_path: "/".into(),
                    healthy_within_seconds: 60,
                }),
                queue: QueuePolicy::NewestWins,
            },
        }
    }

    fn deployment(strategy: &Strategy) -> Deployment {
        let json = serde_json::json!({
            "id": 1, "version": 1, "environment": "production", "service": "web", "sequence": 1,
            "purpose": "ship", "replaces": null, "limits": [], "otherwise": "rollback", "job": null,
            "requested_by": "ann", "approval": "not_needed", "state": "queued", "reason": null,
            "verdict": null,
            "strategy": strategy,
            "times": {"created": "2026-03-01T12:00:00Z", "started": null, "first_traffic": null,
                      "restored": null, "finished": null},
            "release": {"id": uuid::Uuid::nil(), "repo": uuid::Uuid::nil(), "repo_name": "shop",
                        "commit": "a", "run": 1, "job": "package", "artifact": "x",
                        "sha256": "b", "size": 1}
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_batch_of_hosts_is_at_least_one_and_leaves_the_rest_healthy() {
        for (count, batch, minimum) in [
            (3, Batch::Percent(25), 2),
            (3, Batch::Count(1), 2),
            (8, Batch::Percent(25), 6),
            (2, Batch::Count(5), 0),
            (1, Batch::Percent(25), 0),
        ] {
            let d = deployment(&Strategy::Rolling { batch });
            let target = target(&d, &hosts(count), true).unwrap();
            assert_eq!(
                target.style,
                Style::InPlace { minimum_healthy: minimum },
                "{count} {batch:?}"
            );
        }
    }

    #[test]
    fn a_canary_on_hosts_is_refused_with_the_way_out() {
        let steps = vec![CanaryStep { weight: 10, hold: Duration::from_secs(60) }];
        let d = deployment(&Strategy::Canary { steps });
        let reason = target(&d, &hosts(3), true).unwrap_err();
        assert_eq!(reason.code, "strategy_not_possible");
        assert!(reason.message.contains("rolling"));
    }
}
