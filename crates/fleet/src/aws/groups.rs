//! Deployment groups. A group is kept as its caller wrote it, so that what Terraform reads back is
//! what it wrote; what the engine needs of it is read when a deployment is created.

use serde_json::{Map, Value, json};

use super::{
    Answer, AwsError, applications, configs, filters,
    input::{PAGE, application_name, epoch, group_name, member, next_token, page, required, tags},
    tags::group_arn,
};
use crate::{
    db::Group,
    deployment::{Deployment, Settings},
    fleet::Fleet,
};

const DEFAULT_CONFIG: &str = "CodeDeployDefault.OneAtATime";
const DEFAULT_ECS_CONFIG: &str = "CodeDeployDefault.ECSAllAtOnce";

/// Members that are kept and read back.
const KEPT: [&str; 14] = [
    "deploymentConfigName",
    "ec2TagFilters",
    filters::FLAT,
    "serviceRoleArn",
    "alarmConfiguration",
    "autoRollbackConfiguration",
    "outdatedInstancesStrategy",
    "deploymentStyle",
    "blueGreenDeploymentConfiguration",
    "loadBalancerInfo",
    "ec2TagSet",
    "ecsServices",
    filters::SET,
    "terminationHookEnabled",
];

pub(super) fn missing(application: &str, name: &str) -> AwsError {
    AwsError::new(
        "DeploymentGroupDoesNotExistException",
        format!("No Deployment Group found for name: {name} in application {application}"),
    )
}

pub(super) async fn find(fleet: &Fleet, application: &str, name: &str) -> Result<Group, AwsError> {
    applications::find(fleet, application).await?;
    fleet.db.group(application, name).await?.ok_or_else(|| missing(application, name))
}

/// Refuses what this fleet could only pretend to do.
fn refuse_impossible(input: &Value) -> Result<(), AwsError> {
    let filled = |name: &str| input[name].as_array().is_some_and(|list| !list.is_empty());
    let refuse = |code, text: &str| Err(AwsError::new(code, text));
    if filled("autoScalingGroups") {
        return refuse("InvalidAutoScalingGroupException", "this fleet has no Auto Scaling groups");
    }
    if filled("triggerConfigurations") {
        return refuse("InvalidTriggerConfigException", "this fleet sends no notifications");
    }
    let alarms = &input["alarmConfiguration"];
    let named = alarms["alarms"].as_array().is_some_and(|list| !list.is_empty());
    if alarms["enabled"].as_bool().unwrap_or(false) && named {
        return refuse("InvalidAlarmConfigException", "this fleet has no alarms to watch");
    }
    if filled("ec2TagFilters")
        || input["ec2TagSet"]["ec2TagSetList"].as_array().is_some_and(|l| !l.is_empty())
    {
        let text = "this fleet has no EC2 instances: use onPremisesTagSet";
        return refuse("InvalidEC2TagException", text);
    }
    Ok(())
}

async fn check(fleet: &Fleet, input: &Value, config: &str) -> Result<(), AwsError> {
    refuse_impossible(input)?;
    if configs_missing(fleet, config).await? {
        return Err(configs::missing(config));
    }
    ready_minutes(input)?;
    termination_minutes(input)?;
    filters::groups(input)?;
    rollback_events(input)?;
    Ok(())
}

async fn configs_missing(fleet: &Fleet, config: &str) -> Result<bool, AwsError> {
    Ok(super::lookup(&fleet.db, config).await?.is_none())
}

pub(super) async fn create(fleet: &Fleet, input: &Value) -> Answer {
    let application = applications::find(fleet, &application_name(input)?).await?;
    let name = group_name(input, "deploymentGroupName")?;
    required(input, "serviceRoleArn", "RoleRequiredException")?;
    let default = match application.platform {
        crate::deployment::Platform::Ecs => DEFAULT_ECS_CONFIG,
        crate::deployment::Platform::Server => DEFAULT_CONFIG,
    };
    let config: Option<String> = member(input, "deploymentConfigName")?;
    let config = config.unwrap_or_else(|| default.to_owned());
    check(fleet, input, &config).await?;
    let mut doc = Map::new();
    for member in KEPT {
        if let Some(value) = input.get(member).filter(|value| !value.is_null()) {
            doc.insert(member.to_owned(), value.clone());
        }
    }
    doc.insert("deploymentConfigName".into(), json!(config));
    let id = uuid::Uuid::new_v4().to_string();
    let doc = Value::Object(doc);
    let new = Group { id, application: application.name, name, config, doc };
    if !fleet.db.create_group(&new).await? {
        let text = format!("Deployment group already exists: {}", new.name);
        return Err(AwsError::new("DeploymentGroupAlreadyExistsException", text));
    }
    fleet.db.tag(&group_arn(fleet, &new.application, &new.name), &tags(input)?).await?;
    Ok(json!({"deploymentGroupId": new.id}))
}

pub(super) async fn update(fleet: &Fleet, input: &Value) -> Answer {
    let application = application_name(input)?;
    let name = group_name(input, "currentDeploymentGroupName")?;
    let mut group = find(fleet, &application, &name).await?;
    if member::<String>(input, "newDeploymentGroupName")?.is_some_and(|new| new != name) {
        let text = "a group can't be renamed here: what runs is known by its name";
        return Err(AwsError::new("OperationNotSupportedException", text));
    }
    if let Some(config) = member::<String>(input, "deploymentConfigName")? {
        group.config = config;
    }
    check(fleet, input, &group.config).await?;
    for member in KEPT {
        if let Some(value) = input.get(member).filter(|value| !value.is_null()) {
            group.doc[member] = value.clone();
            // One way to choose hosts takes the place of the other.
            let other = match member {
                filters::FLAT => filters::SET,
                filters::SET => filters::FLAT,
                _ => continue,
            };
            if let Some(doc) = group.doc.as_object_mut() {
                doc.remove(other);
            }
        }
    }
    fleet.db.update_group(&group).await?;
    Ok(json!({"hooksNotCleanedUp": []}))
}

fn last(deployment: &Deployment) -> Value {
    let mut info = json!({
        "deploymentId": deployment.id,
        "status": deployment.status.as_str(),
        "createTime": epoch(deployment.created),
    });
    if let Some(completed) = deployment.completed {
        info["endTime"] = epoch(completed);
    }
    info
}

pub(super) async fn get(fleet: &Fleet, input: &Value) -> Answer {
    let application = application_name(input)?;
    let group = find(fleet, &application, &group_name(input, "deploymentGroupName")?).await?;
    let platform = applications::find(fleet, &application).await?.platform;
    let mut info = group.doc;
    info["applicationName"] = json!(application);
    info["deploymentGroupName"] = json!(group.name);
    info["deploymentGroupId"] = json!(group.id);
    info["computePlatform"] = json!(platform.as_str());
    if info.get("deploymentStyle").is_none() {
        info["deploymentStyle"] =
            json!({"deploymentType": "IN_PLACE", "deploymentOption": "WITHOUT_TRAFFIC_CONTROL"});
    }
    if let Some(good) = fleet.db.last_good(&application, &group.name, "").await? {
        info["lastSuccessfulDeployment"] = last(&good);
        info["targetRevision"] = good.revision;
    }
    if let Some(tried) = fleet.db.last_attempted(&application, &group.name).await? {
        info["lastAttemptedDeployment"] = last(&tried);
    }
    Ok(json!({"deploymentGroupInfo": info}))
}

pub(super) async fn list(fleet: &Fleet, input: &Value) -> Answer {
    let application = application_name(input)?;
    applications::find(fleet, &application).await?;
    let names = fleet.db.group_names(&application, &next_token(input)?, PAGE + 1).await?;
    let mut output = page("deploymentGroups", &names);
    output["applicationName"] = json!(application);
    Ok(output)
}

pub(super) async fn delete(fleet: &Fleet, input: &Value) -> Answer {
    let application = application_name(input)?;
    let name = group_name(input, "deploymentGroupName")?;
    if !fleet.db.delete_group(&application, &name).await? {
        let text = format!("a deployment of {name} is active: stop it first");
        return Err(AwsError::new("OperationNotSupportedException", text));
    }
    fleet.engine.retire_group(&application, &name);
    Ok(json!({"hooksNotCleanedUp": []}))
}

fn invalid_blue_green(text: &str) -> AwsError {
    AwsError::new("InvalidBlueGreenDeploymentConfigurationException", text)
}

/// Minutes to wait in `Ready`; none if traffic shifts without a word.
fn ready_minutes(doc: &Value) -> Result<Option<u32>, AwsError> {
    let option = &doc["blueGreenDeploymentConfiguration"]["deploymentReadyOption"];
    match option["actionOnTimeout"].as_str() {
        None | Some("CONTINUE_DEPLOYMENT") => Ok(None),
        Some("STOP_DEPLOYMENT") => {
            let minutes = option["waitTimeInMinutes"].as_u64().and_then(|m| u32::try_from(m).ok());
            let minutes = minutes.filter(|minutes| (1..=2_880).contains(minutes));
            minutes.map(Some).ok_or_else(|| {
                invalid_blue_green("STOP_DEPLOYMENT needs waitTimeInMinutes of 1 to 2880")
            })
        }
        Some(other) => Err(invalid_blue_green(&format!("actionOnTimeout {other} is unknown"))),
    }
}

fn termination_minutes(doc: &Value) -> Result<u32, AwsError> {
    let option =
        &doc["blueGreenDeploymentConfiguration"]["terminateBlueInstancesOnDeploymentSuccess"];
    if option["action"].as_str() == Some("KEEP_ALIVE") {
        return Err(invalid_blue_green("old containers can't be kept: use TERMINATE"));
    }
    let minutes = option["terminationWaitTimeInMinutes"].as_u64().unwrap_or(0);
    let minutes = u32::try_from(minutes).ok().filter(|minutes| *minutes <= 2_880);
    minutes.ok_or_else(|| invalid_blue_green("terminationWaitTimeInMinutes is at most 2880"))
}

/// Auto-rollback events; empty if it isn't enabled.
pub(super) fn rollback_events(doc: &Value) -> Result<Vec<String>, AwsError> {
    let configuration = &doc["autoRollbackConfiguration"];
    if !configuration["enabled"].as_bool().unwrap_or(false) {
        return Ok(Vec::new());
    }
    let invalid = || {
        AwsError::new("InvalidAutoRollbackConfigException", "enabled needs a list of known events")
    };
    let events: Vec<String> =
        serde_json::from_value(configuration["events"].clone()).map_err(|_| invalid())?;
    const KNOWN: [&str; 3] =
        ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM", "DEPLOYMENT_STOP_ON_REQUEST"];
    if events.is_empty() || events.iter().any(|event| !KNOWN.contains(&event.as_str())) {
        return Err(invalid());
    }
    Ok(events)
}

/// What a deployment takes from its group.
pub(super) async fn settings(fleet: &Fleet, group: &Group) -> Result<Settings, AwsError> {
    let service = fleet.db.service(&group.application, &group.name).await?.ok_or_else(|| {
        AwsError::new(
            "InvalidTargetInstancesException",
            format!(
                "the group has no service: PUT /services/{}/{} first",
                group.application, group.name
            ),
        )
    })?;
    Ok(Settings {
        rollback_on: rollback_events(&group.doc)?,
        ready_minutes: ready_minutes(&group.doc)?,
        termination_minutes: termination_minutes(&group.doc)?,
        tags: filters::groups(&group.doc)?,
        service,
    })
}
