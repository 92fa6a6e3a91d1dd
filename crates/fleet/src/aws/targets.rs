//! Targets of a deployment.

use serde_json::{Value, json};

use super::{
    Answer, AwsError, deployments,
    input::{batch, epoch, list as page, member, required},
    tags::{arn, instance_arn},
};
use crate::{
    deployment::{Deployment, Event, Platform, Target},
    fleet::Fleet,
};

fn event(event: &Event) -> Value {
    let mut output = json!({"lifecycleEventName": event.name, "status": event.status});
    if let Some(time) = event.started {
        output["startTime"] = epoch(time);
    }
    if let Some(time) = event.ended {
        output["endTime"] = epoch(time);
    }
    if let Some(diagnostics) = &event.diagnostics {
        output["diagnostics"] = json!(diagnostics);
    }
    output
}

fn info(fleet: &Fleet, deployment: &Deployment, target: &Target) -> Value {
    let mut output = json!({
        "deploymentId": deployment.id,
        "targetId": target.id,
        "status": target.status.as_str(),
        "lastUpdatedAt": epoch(target.updated),
        "lifecycleEvents": target.events.iter().map(event).collect::<Vec<_>>(),
    });
    match deployment.platform {
        Platform::Server => {
            output["targetArn"] = json!(instance_arn(fleet, &target.id));
            json!({"deploymentTargetType": "InstanceTarget", "instanceTarget": output})
        }
        Platform::Ecs => {
            output["targetArn"] = json!(arn(fleet, &format!("target:{}", target.id)));
            let sets = target.sets.iter().map(|set| {
                json!({
                    "identifer": set.id,
                    "desiredCount": set.desired,
                    "pendingCount": set.desired.saturating_sub(set.running),
                    "runningCount": set.running,
                    "status": if set.green { "ACTIVE" } else { "PRIMARY" },
                    "trafficWeight": f64::from(set.weight),
                    "taskSetLabel": if set.green { "Green" } else { "Blue" },
                })
            });
            output["taskSetsInfo"] = sets.collect();
            json!({"deploymentTargetType": "ECSTarget", "ecsTarget": output})
        }
    }
}

pub(super) async fn list(fleet: &Fleet, input: &Value) -> Answer {
    let deployment = deployments::find(fleet, &deployments::deployment_id(input)?).await?;
    let filters: Value = member(input, "targetFilters")?.unwrap_or_default();
    let wanted: Option<Vec<String>> = member(&filters, "TargetStatus")?;
    let targets = fleet.db.targets(&deployment.id).await?;
    let shown = targets.iter().filter(|target| {
        wanted.as_ref().is_none_or(|list| list.iter().any(|word| word == target.status.as_str()))
    });
    let ids: Vec<String> = shown.map(|target| target.id.clone()).collect();
    Ok(page("targetIds", &ids, None))
}

async fn read(fleet: &Fleet, input: &Value, ids: &[String]) -> Result<Vec<Value>, AwsError> {
    let deployment = deployments::find(fleet, &deployments::deployment_id(input)?).await?;
    let targets = fleet.db.targets(&deployment.id).await?;
    let each = ids.iter().map(|id| {
        let target = targets.iter().find(|target| target.id == *id);
        target.map(|target| info(fleet, &deployment, target)).ok_or_else(|| {
            let text = format!("{} has no target {id}", deployment.id);
            AwsError::new("DeploymentTargetDoesNotExistException", text)
        })
    });
    each.collect()
}

pub(super) async fn get(fleet: &Fleet, input: &Value) -> Answer {
    let id = required(input, "targetId", "DeploymentTargetIdRequiredException")?;
    let mut found = read(fleet, input, &[id]).await?;
    Ok(json!({"deploymentTarget": found.pop()}))
}

pub(super) async fn batch_get(fleet: &Fleet, input: &Value) -> Answer {
    let ids = batch(
        input,
        "targetIds",
        25,
        "DeploymentTargetIdRequiredException",
        "DeploymentTargetListSizeExceededException",
    )?;
    Ok(json!({"deploymentTargets": read(fleet, input, &ids).await?}))
}
