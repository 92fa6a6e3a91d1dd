//! Deployment configurations: the 17 predefined ones and custom ones.

use std::time::Duration;

use pipeyard_model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Answer, AwsError, MAX_CONFIGS,
    input::{epoch, list as page, member, name},
};
use crate::{
    db::{Config, Db},
    fleet::Fleet,
};

/// How a deployment goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Plan {
    /// In place: how many hosts must stay healthy.
    Hosts(Minimum),
    /// Blue/green: how traffic shifts.
    Ecs(Shift),
    /// For functions, which this fleet has none of.
    Lambda(Shift),
}

/// How many hosts must be healthy at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Minimum {
    Count(u32),
    /// Rounded up to whole hosts.
    Percent(u8),
    /// All but one: `OneAtATime`.
    AllButOne,
}

/// How traffic shifts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Shift {
    AllAtOnce,
    /// `percent` first, everything after `minutes`.
    Canary {
        percent: u8,
        minutes: u32,
    },
    /// `percent` more every `minutes`.
    Linear {
        percent: u8,
        minutes: u32,
    },
}

impl Shift {
    /// The weight of step `step` (from 0) and how long it is served; none after the last.
    pub(crate) fn step(self, step: u32) -> Option<(u8, Duration)> {
        let wait = |minutes: u32| Duration::from_secs(u64::from(minutes) * 60);
        let all = Some((100, Duration::ZERO));
        match (self, step) {
            (Self::AllAtOnce, 0) | (Self::Canary { .. }, 1) => all,
            (Self::Canary { percent, minutes }, 0) => Some((percent, wait(minutes))),
            (Self::AllAtOnce | Self::Canary { .. }, _) => None,
            (Self::Linear { percent, minutes }, step) => {
                let before = u32::from(percent).saturating_mul(step);
                match u8::try_from(before.saturating_add(u32::from(percent))) {
                    _ if before >= 100 => None,
                    Ok(weight) if weight < 100 => Some((weight, wait(minutes))),
                    _ => all,
                }
            }
        }
    }
}

const ECS: [(&str, Shift); 5] = [
    ("ECSAllAtOnce", Shift::AllAtOnce),
    ("ECSCanary10Percent5Minutes", Shift::Canary { percent: 10, minutes: 5 }),
    ("ECSCanary10Percent15Minutes", Shift::Canary { percent: 10, minutes: 15 }),
    ("ECSLinear10PercentEvery1Minutes", Shift::Linear { percent: 10, minutes: 1 }),
    ("ECSLinear10PercentEvery3Minutes", Shift::Linear { percent: 10, minutes: 3 }),
];

const LAMBDA: [(&str, Shift); 9] = [
    ("LambdaAllAtOnce", Shift::AllAtOnce),
    ("LambdaCanary10Percent5Minutes", Shift::Canary { percent: 10, minutes: 5 }),
    ("LambdaCanary10Percent10Minutes", Shift::Canary { percent: 10, minutes: 10 }),
    ("LambdaCanary10Percent15Minutes", Shift::Canary { percent: 10, minutes: 15 }),
    ("LambdaCanary10Percent30Minutes", Shift::Canary { percent: 10, minutes: 30 }),
    ("LambdaLinear10PercentEvery1Minute", Shift::Linear { percent: 10, minutes: 1 }),
    ("LambdaLinear10PercentEvery2Minutes", Shift::Linear { percent: 10, minutes: 2 }),
    ("LambdaLinear10PercentEvery3Minutes", Shift::Linear { percent: 10, minutes: 3 }),
    ("LambdaLinear10PercentEvery10Minutes", Shift::Linear { percent: 10, minutes: 10 }),
];

const HOSTS: [(&str, Minimum); 3] = [
    ("OneAtATime", Minimum::AllButOne),
    ("HalfAtATime", Minimum::Percent(50)),
    ("AllAtOnce", Minimum::Count(0)),
];

const PREFIX: &str = "CodeDeployDefault.";

/// Every predefined configuration.
pub(super) fn predefined() -> impl Iterator<Item = (String, Plan)> {
    let hosts = HOSTS.iter().map(|(name, minimum)| (*name, Plan::Hosts(*minimum)));
    let ecs = ECS.iter().map(|(name, shift)| (*name, Plan::Ecs(*shift)));
    let lambda = LAMBDA.iter().map(|(name, shift)| (*name, Plan::Lambda(*shift)));
    hosts.chain(ecs).chain(lambda).map(|(name, plan)| (format!("{PREFIX}{name}"), plan))
}

/// The plan of this name; none if there is none.
pub(crate) async fn lookup(db: &Db, name: &str) -> Result<Option<Plan>, crate::db::DbError> {
    if let Some((_, plan)) = predefined().find(|(known, _)| known == name) {
        return Ok(Some(plan));
    }
    let custom = db.configs().await?.into_iter().find(|config| config.name == name);
    Ok(custom.and_then(|config| serde_json::from_value(config.doc["plan"].clone()).ok()))
}

pub(super) fn missing(name: &str) -> AwsError {
    AwsError::new(
        "DeploymentConfigDoesNotExistException",
        format!("No Deployment Configuration found for name: {name}"),
    )
}

fn config_name(input: &Value) -> Result<String, AwsError> {
    name(
        input,
        "deploymentConfigName",
        "DeploymentConfigNameRequiredException",
        "InvalidDeploymentConfigNameException",
    )
}

fn parse(input: &Value) -> Result<Plan, AwsError> {
    let platform: Option<String> = member(input, "computePlatform")?;
    if !matches!(input.get("zonalConfig"), None | Some(Value::Null)) {
        return Err(AwsError::new(
            "InvalidZonalDeploymentConfigurationException",
            "this fleet has no zones",
        ));
    }
    if platform.as_deref().unwrap_or("Server") == "Server" {
        let invalid = |text: &str| AwsError::new("InvalidMinimumHealthyHostValueException", text);
        let given: Value = member(input, "minimumHealthyHosts")?
            .ok_or_else(|| invalid("minimumHealthyHosts must be given for Server"))?;
        let value = given["value"].as_u64().and_then(|value| u32::try_from(value).ok());
        return match (given["type"].as_str(), value) {
            (Some("HOST_COUNT"), Some(count)) => Ok(Plan::Hosts(Minimum::Count(count))),
            (Some("FLEET_PERCENT"), Some(percent)) if percent <= 100 => {
                Ok(Plan::Hosts(Minimum::Percent(u8::try_from(percent).unwrap_or(100))))
            }
            _ => Err(invalid("a HOST_COUNT of 0 or more, or a FLEET_PERCENT of 0 to 100")),
        };
    }
    let invalid = |text: &str| AwsError::new("InvalidTrafficRoutingConfigurationException", text);
    let routing: Value = member(input, "trafficRoutingConfig")?
        .ok_or_else(|| invalid("trafficRoutingConfig must be given"))?;
    let numbers = |step: &Value, percent: &str, minutes: &str| {
        let percent = step[percent].as_u64().and_then(|value| u8::try_from(value).ok());
        let minutes = step[minutes].as_u64().and_then(|value| u32::try_from(value).ok());
        match (percent, minutes) {
            (Some(percent @ 1..=99), Some(minutes @ 1..=2880)) => Ok((percent, minutes)),
            _ => Err(invalid("a percentage of 1 to 99 and an interval of 1 to 2880 minutes")),
        }
    };
    let shift = match routing["type"].as_str() {
        Some("AllAtOnce") => Shift::AllAtOnce,
        Some("TimeBasedCanary") => {
            let step = &routing["timeBasedCanary"];
            let (percent, minutes) = numbers(step, "canaryPercentage", "canaryInterval")?;
            Shift::Canary { percent, minutes }
        }
        Some("TimeBasedLinear") => {
            let step = &routing["timeBasedLinear"];
            let (percent, minutes) = numbers(step, "linearPercentage", "linearInterval")?;
            Shift::Linear { percent, minutes }
        }
        _ => return Err(invalid("type must be AllAtOnce, TimeBasedCanary or TimeBasedLinear")),
    };
    match platform.as_deref() {
        Some("ECS") => Ok(Plan::Ecs(shift)),
        _ => Err(AwsError::new(
            "InvalidComputePlatformException",
            "computePlatform must be Server or ECS",
        )),
    }
}

pub(super) async fn create(fleet: &Fleet, input: &Value) -> Answer {
    let name = config_name(input)?;
    let exists = || {
        AwsError::new("DeploymentConfigAlreadyExistsException", format!("{name} exists already"))
    };
    let plan = parse(input)?;
    if name.starts_with(PREFIX) {
        let text = format!("names that begin with {PREFIX} are taken");
        return Err(AwsError::new("InvalidDeploymentConfigNameException", text));
    }
    if fleet.db.configs().await?.len() >= MAX_CONFIGS {
        let text = format!("at most {MAX_CONFIGS} custom configurations");
        return Err(AwsError::new("DeploymentConfigLimitExceededException", text));
    }
    let id = uuid::Uuid::new_v4().to_string();
    let doc = json!({"id": id, "plan": plan});
    let new = Config { name: name.clone(), created: fleet.clock.now(), doc };
    if !fleet.db.create_config(&new).await? {
        return Err(exists());
    }
    Ok(json!({"deploymentConfigId": id}))
}

fn info(name: &str, id: &str, plan: Plan, created: Timestamp) -> Value {
    let mut info = json!({
        "deploymentConfigId": id,
        "deploymentConfigName": name,
        "createTime": epoch(created),
    });
    let shift = match plan {
        Plan::Hosts(minimum) => {
            info["computePlatform"] = json!("Server");
            info["minimumHealthyHosts"] = match minimum {
                Minimum::Count(count) => json!({"type": "HOST_COUNT", "value": count}),
                Minimum::Percent(percent) => json!({"type": "FLEET_PERCENT", "value": percent}),
                Minimum::AllButOne => json!({"type": "MOST_CONCURRENCY", "value": 1}),
            };
            return info;
        }
        Plan::Ecs(shift) => {
            info["computePlatform"] = json!("ECS");
            shift
        }
        Plan::Lambda(shift) => {
            info["computePlatform"] = json!("Lambda");
            shift
        }
    };
    info["trafficRoutingConfig"] = match shift {
        Shift::AllAtOnce => json!({"type": "AllAtOnce"}),
        Shift::Canary { percent, minutes } => json!({
            "type": "TimeBasedCanary",
            "timeBasedCanary": {"canaryPercentage": percent, "canaryInterval": minutes},
        }),
        Shift::Linear { percent, minutes } => json!({
            "type": "TimeBasedLinear",
            "timeBasedLinear": {"linearPercentage": percent, "linearInterval": minutes},
        }),
    };
    info
}

pub(super) async fn get(fleet: &Fleet, input: &Value) -> Answer {
    let name = config_name(input)?;
    if let Some((i, (_, plan))) = predefined().enumerate().find(|(_, (known, _))| *known == name) {
        let id = format!("00000000-0000-0000-0000-{:012}", i + 1);
        // When CodeDeploy began.
        let created = Timestamp::from_seconds(1_415_750_400);
        return Ok(json!({"deploymentConfigInfo": info(&name, &id, plan, created)}));
    }
    let custom = fleet.db.configs().await?.into_iter().find(|config| config.name == name);
    let custom = custom.ok_or_else(|| missing(&name))?;
    let plan = serde_json::from_value(custom.doc["plan"].clone())
        .map_err(|error| AwsError::internal(&error))?;
    let id = custom.doc["id"].as_str().unwrap_or_default();
    Ok(json!({"deploymentConfigInfo": info(&name, id, plan, custom.created)}))
}

pub(super) async fn list(fleet: &Fleet, _input: &Value) -> Answer {
    let custom = fleet.db.configs().await?.into_iter().map(|config| config.name);
    let names: Vec<String> = predefined().map(|(name, _)| name).chain(custom).collect();
    Ok(page("deploymentConfigsList", &names, None))
}

pub(super) async fn delete(fleet: &Fleet, input: &Value) -> Answer {
    let name = config_name(input)?;
    if name.starts_with(PREFIX) {
        return Err(AwsError::new("InvalidOperationException", "predefined configurations stay"));
    }
    if !fleet.db.delete_config(&name).await? {
        let text = format!("{name} is used by a deployment group");
        return Err(AwsError::new("DeploymentConfigInUseException", text));
    }
    Ok(json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seventeen_have_their_names() {
        let names: Vec<String> = predefined().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 17);
        assert!(names.contains(&"CodeDeployDefault.ECSLinear10PercentEvery1Minutes".into()));
        assert!(names.contains(&"CodeDeployDefault.LambdaLinear10PercentEvery1Minute".into()));
    }

    #[test]
    fn a_shift_ends_at_a_hundred_percent() {
        let minute = Duration::from_secs(60);
        let steps = |shift: Shift| (0..).map_while(|i| shift.step(i)).collect::<Vec<_>>();
        assert_eq!(steps(Shift::AllAtOnce), [(100, Duration::ZERO)]);
        let canary = Shift::Canary { percent: 10, minutes: 5 };
        assert_eq!(steps(canary), [(10, 5 * minute), (100, Duration::ZERO)]);
        let linear = Shift::Linear { percent: 40, minutes: 1 };
        assert_eq!(steps(linear), [(40, minute), (80, minute), (100, Duration::ZERO)]);
        let tens = steps(Shift::Linear { percent: 10, minutes: 3 });
        assert_eq!((tens.len(), tens[9]), (10, (100, Duration::ZERO)));
    }
}
