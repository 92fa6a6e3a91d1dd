//! On-premises instances: hosts that run the agent.

use serde_json::{Value, json};

use super::{
    Answer, AwsError,
    input::{PAGE, batch, epoch, member, name, next_token, page, tags},
    tags::instance_arn,
};
use crate::{db::Instance, deployment::TagFilter, fleet::Fleet};

/// Instances that one fleet keeps.
const MAX_INSTANCES: usize = 10_000;

fn instance_name(input: &Value) -> Result<String, AwsError> {
    name(input, "instanceName", "InstanceNameRequiredException", "InvalidInstanceNameException")
}

fn missing(name: &str) -> AwsError {
    AwsError::new(
        "InstanceNotRegisteredException",
        format!("The instance {name} is not registered"),
    )
}

pub(super) async fn register(fleet: &Fleet, input: &Value) -> Answer {
    let name = instance_name(input)?;
    let user: Option<String> = member(input, "iamUserArn")?;
    let session: Option<String> = member(input, "iamSessionArn")?;
    let identity = match (user, session) {
        (Some(arn), None) | (None, Some(arn)) => arn,
        (None, None) => {
            let text = "iamUserArn or iamSessionArn must be given";
            return Err(AwsError::new("IamArnRequiredException", text));
        }
        (Some(_), Some(_)) => {
            let text = "only one of iamUserArn and iamSessionArn may be given";
            return Err(AwsError::new("MultipleIamArnsProvidedException", text));
        }
    };
    if fleet.db.instances().await?.len() >= MAX_INSTANCES {
        let text = format!("at most {MAX_INSTANCES} instances");
        return Err(AwsError::new("InstanceLimitExceededException", text));
    }
    if !fleet.db.register_instance(&name, &identity, fleet.clock.now()).await? {
        let text = format!("The instance name {name} is already registered");
        return Err(AwsError::new("InstanceNameAlreadyRegisteredException", text));
    }
    Ok(json!({}))
}

pub(super) async fn deregister(fleet: &Fleet, input: &Value) -> Answer {
    let name = instance_name(input)?;
    if !fleet.db.deregister_instance(&name, fleet.clock.now()).await? {
        return Err(missing(&name));
    }
    Ok(json!({}))
}

fn info(fleet: &Fleet, instance: &Instance) -> Value {
    let arn =
        if instance.identity.contains(":assumed-role/") { "iamSessionArn" } else { "iamUserArn" };
    let mut output = json!({
        "instanceName": instance.name,
        arn: instance.identity,
        "instanceArn": instance_arn(fleet, &instance.name),
        "registerTime": epoch(instance.registered),
        "tags": instance.tags.iter()
            .map(|(key, value)| json!({"Key": key, "Value": value})).collect::<Vec<_>>(),
    });
    if let Some(time) = instance.deregistered {
        output["deregisterTime"] = epoch(time);
    }
    output
}

pub(super) async fn get(fleet: &Fleet, input: &Value) -> Answer {
    let name = instance_name(input)?;
    let instance = fleet.db.instance(&name).await?.ok_or_else(|| missing(&name))?;
    Ok(json!({"instanceInfo": info(fleet, &instance)}))
}

pub(super) async fn list(fleet: &Fleet, input: &Value) -> Answer {
    let status: Option<String> = member(input, "registrationStatus")?;
    let filters: Vec<TagFilter> = member(input, "tagFilters")?.unwrap_or_default();
    let after = next_token(input)?;
    let deregistered = match status.as_deref() {
        None | Some("Registered") => false,
        Some("Deregistered") => true,
        Some(other) => {
            let text = format!("{other} is neither Registered nor Deregistered");
            return Err(AwsError::new("InvalidRegistrationStatusException", text));
        }
    };
    let found = fleet.db.instances().await?.into_iter().filter(|instance| {
        instance.name > after
            && instance.deregistered.is_some() == deregistered
            && (filters.is_empty() || filters.iter().any(|filter| filter.matches(&instance.tags)))
    });
    let size = usize::try_from(PAGE).unwrap_or(usize::MAX);
    let names: Vec<String> = found.take(size + 1).map(|instance| instance.name).collect();
    Ok(page("instanceNames", &names))
}

pub(super) async fn tag(fleet: &Fleet, input: &Value, add: bool) -> Answer {
    let tags = tags(input)?;
    if tags.is_empty() {
        return Err(AwsError::new("TagRequiredException", "tags must be given"));
    }
    let names = batch(
        input,
        "instanceNames",
        100,
        "InstanceNameRequiredException",
        "InstanceLimitExceededException",
    )?;
    let known = fleet.db.instances().await?;
    for name in &names {
        if !known.iter().any(|i| i.name == *name && i.deregistered.is_none()) {
            return Err(missing(name));
        }
    }
    if add {
        fleet.db.add_instance_tags(&names, &tags).await?;
    } else {
        fleet.db.remove_instance_tags(&names, &tags).await?;
    }
    Ok(json!({}))
}
