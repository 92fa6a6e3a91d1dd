//! Applications and their revisions.

use serde_json::{Value, json};

use super::{
    Answer, AwsError,
    deployments::check_revision,
    input::{PAGE, application_name, batch, epoch, member, next_token, page, tags},
    tags::application_arn,
};
use crate::{db::Application, deployment::Platform, fleet::Fleet};

pub(super) fn missing(name: &str) -> AwsError {
    AwsError::new(
        "ApplicationDoesNotExistException",
        format!("No application found for name: {name}"),
    )
}

pub(super) async fn find(fleet: &Fleet, name: &str) -> Result<Application, AwsError> {
    fleet.db.application(name).await?.ok_or_else(|| missing(name))
}

pub(super) async fn create(fleet: &Fleet, input: &Value) -> Answer {
    let name = application_name(input)?;
    let platform = match member::<String>(input, "computePlatform")?.as_deref() {
        None | Some("Server") => Platform::Server,
        Some("ECS") => Platform::Ecs,
        Some(other) => {
            let text = format!(
                "this fleet deploys to Server (hosts) and ECS (containers), not to {other}"
            );
            return Err(AwsError::new("InvalidComputePlatformException", text));
        }
    };
    let id = uuid::Uuid::new_v4().to_string();
    let new = Application { name, id, platform, created: fleet.clock.now() };
    if !fleet.db.create_application(&new).await? {
        let text = format!("Application already exists: {}", new.name);
        return Err(AwsError::new("ApplicationAlreadyExistsException", text));
    }
    let tags = tags(input)?;
    fleet.db.tag(&application_arn(fleet, &new.name), &tags).await?;
    Ok(json!({"applicationId": new.id}))
}

fn info(application: &Application) -> Value {
    json!({
        "applicationId": application.id,
        "applicationName": application.name,
        "createTime": epoch(application.created),
        "linkedToGitHub": false,
        "computePlatform": application.platform.as_str(),
    })
}

pub(super) async fn get(fleet: &Fleet, input: &Value) -> Answer {
    let name = application_name(input)?;
    Ok(json!({"application": info(&find(fleet, &name).await?)}))
}

pub(super) async fn batch_get(fleet: &Fleet, input: &Value) -> Answer {
    let names = batch(
        input,
        "applicationNames",
        100,
        "ApplicationNameRequiredException",
        "BatchLimitExceededException",
    )?;
    let mut infos = Vec::new();
    for name in names {
        infos.push(info(&find(fleet, &name).await?));
    }
    Ok(json!({"applicationsInfo": infos}))
}

pub(super) async fn list(fleet: &Fleet, input: &Value) -> Answer {
    let names = fleet.db.application_names(&next_token(input)?, PAGE + 1).await?;
    Ok(page("applications", &names))
}

pub(super) async fn delete(fleet: &Fleet, input: &Value) -> Answer {
    let name = application_name(input)?;
    let groups = fleet.db.group_names(&name, "", i64::MAX).await?;
    if !fleet.db.delete_application(&name).await? {
        let text = format!("a deployment of {name} is active: stop it first");
        return Err(AwsError::new("OperationNotSupportedException", text));
    }
    for group in groups {
        fleet.engine.retire_group(&name, &group);
    }
    Ok(json!({}))
}

pub(super) async fn register_revision(fleet: &Fleet, input: &Value) -> Answer {
    let name = application_name(input)?;
    find(fleet, &name).await?;
    let revision: Value = member(input, "revision")?
        .ok_or_else(|| AwsError::new("RevisionRequiredException", "revision must be given"))?;
    check_revision(&revision)?;
    let description: Option<String> = member(input, "description")?;
    let now = fleet.clock.now();
    fleet.db.register_revision(&name, &revision, description.as_deref(), now).await?;
    Ok(json!({}))
}
