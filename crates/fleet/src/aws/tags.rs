//! Tags of resources, and ARNs.

use serde_json::{Value, json};

use super::{
    ACCOUNT, Answer, AwsError,
    input::{member, required, tags as read_tags},
};
use crate::fleet::Fleet;

pub(super) fn arn(fleet: &Fleet, resource: &str) -> String {
    format!("arn:aws:codedeploy:{}:{ACCOUNT}:{resource}", fleet.region)
}

pub(super) fn application_arn(fleet: &Fleet, name: &str) -> String {
    arn(fleet, &format!("application:{name}"))
}

pub(super) fn group_arn(fleet: &Fleet, application: &str, name: &str) -> String {
    arn(fleet, &format!("deploymentgroup:{application}/{name}"))
}

pub(super) fn instance_arn(fleet: &Fleet, name: &str) -> String {
    arn(fleet, &format!("instance/{name}"))
}

/// The resource of an ARN, normalised to this fleet's region and account so that a client that
/// builds ARNs with its own account finds what it tagged.
async fn resource(fleet: &Fleet, input: &Value) -> Result<String, AwsError> {
    let text = required(input, "ResourceArn", "ResourceArnRequiredException")?;
    let parts: Vec<&str> = text.splitn(7, ':').collect();
    let ["arn", _, "codedeploy", _, _, kind, name] = parts[..] else {
        let text = "an ARN of an application or a deployment group";
        return Err(AwsError::new("InvalidArnException", text));
    };
    let missing =
        || AwsError::new("ApplicationDoesNotExistException", format!("no resource {text}"));
    match (kind, name.split_once('/')) {
        ("application", _) => {
            fleet.db.application(name).await?.ok_or_else(missing)?;
            Ok(application_arn(fleet, name))
        }
        ("deploymentgroup", Some((application, group))) => {
            let found = fleet.db.group(application, group).await?;
            found.ok_or_else(|| super::groups::missing(application, group))?;
            Ok(group_arn(fleet, application, group))
        }
        _ => Err(AwsError::new("ArnNotSupportedException", format!("{kind} can't be tagged"))),
    }
}

pub(super) async fn tag(fleet: &Fleet, input: &Value) -> Answer {
    let arn = resource(fleet, input).await?;
    let given = json!({"tags": input["Tags"]});
    fleet.db.tag(&arn, &read_tags(&given)?).await?;
    Ok(json!({}))
}

pub(super) async fn untag(fleet: &Fleet, input: &Value) -> Answer {
    let arn = resource(fleet, input).await?;
    let keys: Vec<String> = member(input, "TagKeys")?.unwrap_or_default();
    fleet.db.untag(&arn, &keys).await?;
    Ok(json!({}))
}

pub(super) async fn list(fleet: &Fleet, input: &Value) -> Answer {
    let arn = resource(fleet, input).await?;
    let tags = fleet.db.tags(&arn).await?;
    let tags: Vec<Value> =
        tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
    Ok(json!({"Tags": tags}))
}
