//! Deployments: create, read, list, stop, continue.

use pipeyard_model::{Timestamp, fleet::ServicePlatform};
use serde_json::{Value, json};

use super::{
    Answer, AwsError, Plan, applications, configs, groups,
    input::{
        PAGE, application_name, batch, epoch, group_name, list as page, member, next_token,
        required, time,
    },
    matches_all,
};
use crate::{
    appspec::{AppSpec, MISSING},
    bundles,
    db::{Changed, Created, Filter},
    deployment::{
        Creator, Deployment, DeploymentStatus, Phase, Platform, Proceed, Settings, Stop,
        TargetStatus, mint_id,
    },
    fleet::Fleet,
};

pub(super) fn missing(id: &str) -> AwsError {
    AwsError::new(
        "DeploymentDoesNotExistException",
        format!("The deployment {id} could not be found"),
    )
}

pub(super) fn deployment_id(input: &Value) -> Result<String, AwsError> {
    let id = required(input, "deploymentId", "DeploymentIdRequiredException")?;
    let tail = id.strip_prefix("d-").unwrap_or_default();
    if tail.len() == 9 && tail.bytes().all(|b| b.is_ascii_alphanumeric()) {
        Ok(id)
    } else {
        Err(AwsError::new(
            "InvalidDeploymentIdException",
            "a deployment id is d- and nine letters or digits",
        ))
    }
}

/// Checks that a revision is one that this fleet can fetch.
pub(super) fn check_revision(revision: &Value) -> Result<(), AwsError> {
    let invalid = |text: &str| Err(AwsError::new("InvalidRevisionException", text));
    if revision["revisionType"].as_str() != Some("S3") {
        return invalid("revisionType must be S3, with a bundle that was put to /bundles");
    }
    let location = &revision["s3Location"];
    for part in ["bucket", "key"] {
        if !location[part].as_str().is_some_and(|text| !text.is_empty() && text.len() <= 1024) {
            return invalid("s3Location needs bucket and key");
        }
    }
    match location["bundleType"].as_str() {
        Some("tgz") => Ok(()),
        _ => invalid("bundleType must be tgz"),
    }
}

pub(super) async fn create(fleet: &Fleet, input: &Value, invocation: Option<&str>) -> Answer {
    let application = applications::find(fleet, &application_name(input)?).await?;
    let name = group_name(input, "deploymentGroupName")?;
    let group = groups::find(fleet, &application.name, &name).await?;
    let revision: Value = member(input, "revision")?
        .ok_or_else(|| AwsError::new("RevisionRequiredException", "revision must be given"))?;
    check_revision(&revision)?;
    let description: Option<String> = member(input, "description")?;
    if description.as_ref().is_some_and(|text| text.chars().count() > 256) {
        let text = "The description is too long: at most 256 characters";
        return Err(AwsError::new("DescriptionTooLongException", text));
    }
    let mut settings = groups::settings(fleet, &group).await?;
    if input.get("autoRollbackConfiguration").is_some_and(|value| !value.is_null()) {
        settings.rollback_on = groups::rollback_events(input)?;
    }
    let config: Option<String> = member(input, "deploymentConfigName")?;
    let config = config.unwrap_or(group.config);
    let plan = super::lookup(&fleet.db, &config).await?.ok_or_else(|| configs::missing(&config))?;
    let fits = matches!(
        (application.platform, &settings.service.platform, plan),
        (Platform::Ecs, ServicePlatform::Container(_), Plan::Ecs(_))
            | (Platform::Server, ServicePlatform::Hosts(_), Plan::Hosts(_))
    );
    if !fits {
        let text = format!(
            "{config}, computePlatform {} and the service's platform don't fit together",
            application.platform.as_str()
        );
        return Err(AwsError::new("InvalidComputePlatformException", text));
    }
    check_content(fleet, application.platform, &settings, &revision).await?;
    let previous = fleet.db.last_good(&application.name, &name, "").await?;
    let now = fleet.clock.now();
    let new = Deployment {
        id: mint_id(),
        application: application.name,
        group: name,
        platform: application.platform,
        status: DeploymentStatus::Created,
        created: now,
        started: None,
        completed: None,
        description,
        creator: Creator::User,
        config,
        revision,
        previous_revision: previous.map(|deployment| deployment.revision),
        settings,
        phase: Phase::New,
        stop: None,
        proceed: Proceed::default(),
        error: None,
        rollback: None,
        weight: 0,
        weight_since: now,
        weight_epoch: 0,
    };
    match fleet.db.create_deployment(&new, invocation, None).await? {
        Created::New => {
            fleet.engine.start(&new.id);
            Ok(json!({"deploymentId": new.id}))
        }
        Created::Again(id) => Ok(json!({"deploymentId": id})),
        Created::Busy(id) => Err(AwsError::new(
            "DeploymentLimitExceededException",
            format!("The Deployment Group '{}' already has an active Deployment '{id}'", new.group),
        )),
    }
}

/// Refuses a bundle that the group's targets can't take, before anything of them is touched. Hosts
/// whose agent was never there are asked nothing; they fail later.
async fn check_content(
    fleet: &Fleet,
    platform: Platform,
    settings: &Settings,
    revision: &Value,
) -> Result<(), AwsError> {
    let refused = |text: String| Err(AwsError::new("InvalidRevisionException", text));
    let content = bundles::content(fleet, revision).await;
    let Some(content) = content.map_err(|error| AwsError::internal(&error))? else {
        return Ok(());
    };
    let problem = match platform {
        Platform::Ecs => content.broken,
        Platform::Server => content.problem,
    };
    if let Some(problem) = problem {
        return refused(format!("The bundle isn't one that can be unpacked: {problem}"));
    }
    if platform == Platform::Ecs {
        return Ok(());
    }
    let spec = match content.appspec.as_deref().ok_or(MISSING.to_owned()).and_then(AppSpec::parse) {
        Ok(spec) => spec,
        Err(problem) => return refused(problem),
    };
    for host in fleet.db.instances().await? {
        let ours = host.deregistered.is_none() && matches_all(&settings.tags, &host.tags);
        let unmet = host.doc.abilities.as_ref().and_then(|abilities| spec.unmet(abilities));
        if let Some(unmet) = unmet.filter(|_| ours) {
            return refused(format!(
                "appspec.yml asks for what the host {} can't do: {unmet}",
                host.name
            ));
        }
    }
    Ok(())
}

async fn info(fleet: &Fleet, deployment: Deployment) -> Answer {
    let targets = fleet.db.targets(&deployment.id).await?;
    let count = |status: TargetStatus| targets.iter().filter(|t| t.status == status).count();
    let mut info = json!({
        "applicationName": deployment.application,
        "deploymentGroupName": deployment.group,
        "deploymentConfigName": deployment.config,
        "deploymentId": deployment.id,
        "revision": deployment.revision,
        "status": deployment.status.as_str(),
        "createTime": epoch(deployment.created),
        "creator": deployment.creator,
        "ignoreApplicationStopFailures": true,
        "updateOutdatedInstancesOnly": false,
        "computePlatform": deployment.platform.as_str(),
        "deploymentStyle": match deployment.platform {
            Platform::Ecs => json!({
                "deploymentType": "BLUE_GREEN", "deploymentOption": "WITH_TRAFFIC_CONTROL"}),
            Platform::Server => json!({
                "deploymentType": "IN_PLACE", "deploymentOption": "WITH_TRAFFIC_CONTROL"}),
        },
        "deploymentOverview": {
            "Pending": count(TargetStatus::Pending),
            "InProgress": count(TargetStatus::InProgress),
            "Succeeded": count(TargetStatus::Succeeded),
            "Failed": count(TargetStatus::Failed),
            "Skipped": count(TargetStatus::Skipped),
            "Ready": count(TargetStatus::Ready),
        },
        "autoRollbackConfiguration": {
            "enabled": !deployment.settings.rollback_on.is_empty(),
            "events": deployment.settings.rollback_on,
        },
    });
    if deployment.platform == Platform::Ecs {
        info["blueGreenDeploymentConfiguration"] = json!({
            "terminateBlueInstancesOnDeploymentSuccess": {
                "action": "TERMINATE",
                "terminationWaitTimeInMinutes": deployment.settings.termination_minutes,
            },
            "deploymentReadyOption": match deployment.settings.ready_minutes {
                Some(minutes) => json!({
                    "actionOnTimeout": "STOP_DEPLOYMENT", "waitTimeInMinutes": minutes}),
                None => json!({"actionOnTimeout": "CONTINUE_DEPLOYMENT", "waitTimeInMinutes": 0}),
            },
        });
    }
    for (name, time) in [("startTime", deployment.started), ("completeTime", deployment.completed)]
    {
        if let Some(time) = time {
            info[name] = epoch(time);
        }
    }
    if let Phase::Keeping { .. } = deployment.phase {
        info["instanceTerminationWaitTimeStarted"] = json!(true);
    }
    if let Some(description) = deployment.description {
        info["description"] = json!(description);
    }
    if let Some(previous) = deployment.previous_revision {
        info["previousRevision"] = previous;
    }
    if let Some(error) = deployment.error {
        info["errorInformation"] = json!(error);
    }
    if let Some(rollback) = deployment.rollback {
        info["rollbackInfo"] = json!(rollback);
    }
    Ok(info)
}

pub(super) async fn find(fleet: &Fleet, id: &str) -> Result<Deployment, AwsError> {
    fleet.db.deployment(id).await?.ok_or_else(|| missing(id))
}

pub(super) async fn get(fleet: &Fleet, input: &Value) -> Answer {
    let deployment = find(fleet, &deployment_id(input)?).await?;
    Ok(json!({"deploymentInfo": info(fleet, deployment).await?}))
}

pub(super) async fn batch_get(fleet: &Fleet, input: &Value) -> Answer {
    let ids = batch(
        input,
        "deploymentIds",
        25,
        "DeploymentIdRequiredException",
        "BatchLimitExceededException",
    )?;
    let mut infos = Vec::new();
    for id in ids {
        // Ids that are unknown are left out, as AWS does.
        if let Some(deployment) = fleet.db.deployment(&id).await? {
            infos.push(info(fleet, deployment).await?);
        }
    }
    Ok(json!({"deploymentsInfo": infos}))
}

pub(super) async fn list(fleet: &Fleet, input: &Value) -> Answer {
    let given = |name: &str| input.get(name).is_some_and(|value| !value.is_null());
    let group = match (given("applicationName"), given("deploymentGroupName")) {
        (false, false) => None,
        (true, true) => {
            let application = application_name(input)?;
            let name = group_name(input, "deploymentGroupName")?;
            groups::find(fleet, &application, &name).await?;
            Some((application, name))
        }
        (false, true) => {
            let text = "applicationName must be given with deploymentGroupName";
            return Err(AwsError::new("ApplicationNameRequiredException", text));
        }
        (true, false) => {
            let text = "deploymentGroupName must be given with applicationName";
            return Err(AwsError::new("DeploymentGroupNameRequiredException", text));
        }
    };
    let words: Vec<String> = member(input, "includeOnlyStatuses")?.unwrap_or_default();
    let mut statuses = Vec::new();
    for word in &words {
        match DeploymentStatus::ALL.iter().find(|status| status.as_str() == word) {
            Some(status) => statuses.push(*status),
            // Words of CodeDeploy's that no deployment of this fleet ever has.
            None if word == "Queued" || word == "Baking" => {}
            None => {
                let text = format!("{word} isn't a status");
                return Err(AwsError::new("InvalidDeploymentStatusException", text));
            }
        }
    }
    if !words.is_empty() && statuses.is_empty() {
        return Ok(page("deployments", &[], None));
    }
    let range: Value = member(input, "createTimeRange")?.unwrap_or_default();
    let (from, to): (Option<Timestamp>, Option<Timestamp>) =
        (range["start"].as_f64().map(time), range["end"].as_f64().map(time));
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(AwsError::new("InvalidTimeRangeException", "start is after end"));
    }
    let token = next_token(input)?;
    let before = if token.is_empty() { Ok(i64::MAX) } else { token.parse() };
    let before = before.map_err(|_| {
        AwsError::new("InvalidNextTokenException", "nextToken isn't one of this list")
    })?;
    let filter = Filter { group, statuses, from, to };
    let found = fleet.db.list_deployments(&filter, before, PAGE).await?;
    Ok(page("deployments", &found.ids, found.next.map(|next| next.to_string()).as_deref()))
}

pub(super) async fn stop(fleet: &Fleet, input: &Value) -> Answer {
    let id = deployment_id(input)?;
    let rollback: Option<bool> = member(input, "autoRollbackEnabled")?;
    let now = fleet.clock.now();
    let changed = fleet.db.change(&id, |deployment| {
        if !deployment.status.is_active() {
            return Changed::Leave(Err("The deployment has already completed".to_owned()));
        }
        if deployment.phase == Phase::Retiring {
            let text = "The new version has all traffic and the old one is being removed";
            return Changed::Leave(Err(text.to_owned()));
        }
        let by_group = deployment
            .settings
            .rollback_on
            .iter()
            .any(|event| event == "DEPLOYMENT_STOP_ON_REQUEST");
        let rollback = rollback.unwrap_or(by_group);
        let before = deployment.stop;
        let stop = before.unwrap_or(Stop { at: now, rollback });
        deployment.stop = Some(Stop { rollback: stop.rollback || rollback, ..stop });
        Changed::Write(Ok(()))
    });
    let ((), _) = match changed.await?.ok_or_else(|| missing(&id))? {
        (Ok(()), deployment) => ((), deployment),
        (Err(text), _) => return Err(AwsError::new("DeploymentAlreadyCompletedException", text)),
    };
    fleet.engine.wake(&id);
    Ok(json!({"status": "Pending", "statusMessage": "The deployment is being stopped"}))
}

pub(super) async fn proceed(fleet: &Fleet, input: &Value) -> Answer {
    let id = deployment_id(input)?;
    let wait: Option<String> = member(input, "deploymentWaitType")?;
    let termination = match wait.as_deref() {
        None | Some("READY_WAIT") => false,
        Some("TERMINATION_WAIT") => true,
        Some(other) => {
            let text = format!("{other} is neither READY_WAIT nor TERMINATION_WAIT");
            return Err(AwsError::new("InvalidDeploymentWaitTypeException", text));
        }
    };
    let changed = fleet.db.change(&id, |deployment| {
        let waits = match (termination, deployment.phase) {
            (false, Phase::Ready { .. }) | (true, Phase::Keeping { .. }) => true,
            // The same word again, after an answer that was lost.
            (false, _) if deployment.proceed.ready => return Changed::Leave(Ok(())),
            (true, _) if deployment.proceed.termination => return Changed::Leave(Ok(())),
            _ => false,
        };
        if !deployment.status.is_active() {
            let text = "The deployment has already completed";
            return Changed::Leave(Err(("DeploymentAlreadyCompletedException", text)));
        }
        if deployment.platform == Platform::Server {
            let text = "an in-place deployment never waits";
            return Changed::Leave(Err(("UnsupportedActionForDeploymentTypeException", text)));
        }
        if !waits || deployment.stop.is_some() {
            let text = "The deployment isn't waiting for this";
            return Changed::Leave(Err(("DeploymentIsNotInReadyStateException", text)));
        }
        if termination {
            deployment.proceed.termination = true;
        } else {
            deployment.proceed.ready = true;
        }
        Changed::Write(Ok(()))
    });
    match changed.await?.ok_or_else(|| missing(&id))?.0 {
        Ok(()) => {
            fleet.engine.wake(&id);
            Ok(json!({}))
        }
        Err((code, text)) => Err(AwsError::new(code, text)),
    }
}
