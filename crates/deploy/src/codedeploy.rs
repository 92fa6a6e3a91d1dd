//! The one CodeDeploy client: the endpoint tells AWS from the embedded fleet.
//!
//! SDK retries are off for `CreateDeployment`, which has no idempotency token, and on for the rest.
//! Waiters aren't used: they give up after 30 minutes and wait blindly while a deployment is
//! `Ready`.
//!
//! Absent: an upload to S3, and making applications and groups on AWS (a group there needs roles
//! and load balancers that are yours to choose).

use std::{collections::BTreeMap, path::Path, time::Duration};

use async_trait::async_trait;
use aws_sdk_codedeploy::{
    Client, Config,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::create_deployment::CreateDeploymentError,
    types::{
        AutoRollbackConfiguration, AutoRollbackEvent, BlueGreenDeploymentConfiguration, BundleType,
        ComputePlatform, DeploymentOption, DeploymentReadyAction, DeploymentReadyOption,
        DeploymentStatus, DeploymentStyle, DeploymentType, DeploymentWaitType, MinimumHealthyHosts,
        MinimumHealthyHostsType, OnPremisesTagSet, RevisionLocation, RevisionLocationType,
        S3Location, TagFilter, TagFilterType, TimeRange,
    },
};
use aws_smithy_http_client::tls::{
    Provider as Tls, TlsContext, TrustStore, rustls_provider::CryptoMode,
};
use pipeyard_model::{IntentId, Timestamp, fleet::ServicePlatform};

use crate::{
    control::FleetControl,
    provider::{
        BUCKET, Bundle, CreateAnswer, CreateRequest, Finding, Group, GroupName, Provider,
        ProviderError, ProviderStatus, Snapshot, Style, Target, marker,
    },
    said,
};

mod read;

/// A clock that differs from the provider's by less than this finds its deployments.
const SKEW: Duration = Duration::from_secs(300);
/// A clock that was set back by less finds what was asked of the fleet before that.
const SET_BACK: Duration = Duration::from_secs(7 * 86_400);
/// Pages of a list that are read at most.
const PAGES: usize = 20;
/// The role that a group names; the fleet doesn't use it.
const ROLE: &str = "arn:aws:iam::000000000000:role/pipeyard";

/// Who we are to the provider.
#[derive(Clone)]
pub struct Keys {
    /// The access key's id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// For temporary keys.
    pub session_token: Option<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.access_key_id)
    }
}

/// A CodeDeploy endpoint.
#[derive(Debug, Clone)]
pub struct CodeDeploy {
    client: Client,
    /// The fleet's own resources; none on AWS.
    fleet: Option<FleetControl>,
}

impl CodeDeploy {
    /// The embedded fleet at `endpoint`.
    #[must_use]
    pub fn fleet(endpoint: &str, region: String, keys: Keys, control: FleetControl) -> Self {
        // Both go by true clocks, mostly the same one. What the client believed to have learned of a
        // difference would be wrong as soon as either clock is put right.
        let config = config(region)
            .endpoint_url(endpoint)
            .credentials_provider(credentials(keys))
            .disable_clock_skew_correction(true);
        Self { client: Client::from_conf(config.build()), fleet: Some(control) }
    }

    /// AWS itself. Without keys the SDK looks for them in its usual places.
    pub async fn aws(region: String, keys: Option<Keys>) -> Self {
        let mut config = config(region.clone());
        if let Some(keys) = keys {
            config = config.credentials_provider(credentials(keys));
        } else {
            let shared = aws_config::defaults(BehaviorVersion::latest())
                .region(Region::new(region))
                .http_client(http())
                .load()
                .await;
            config.set_credentials_provider(shared.credentials_provider());
        }
        Self { client: Client::from_conf(config.build()), fleet: None }
    }

    /// Moves traffic by weights of our own; none on AWS.
    #[must_use]
    pub fn traffic_control(&self) -> Option<&FleetControl> {
        self.fleet.as_ref()
    }

    async fn ensure_application(&self, group: &Group) -> Result<(), ProviderError> {
        let platform = match &group.definition.platform {
            ServicePlatform::Container(_) => ComputePlatform::Ecs,
            ServicePlatform::Hosts(_) => ComputePlatform::Server,
        };
        let made = self
            .client
            .create_application()
            .application_name(&group.name.application)
            .compute_platform(platform)
            .send()
            .await;
        made.map(|_| ()).or_else(|e| unless(&e, &["ApplicationAlreadyExistsException"]))
    }

    async fn ensure_config(&self, style: Style) -> Result<String, ProviderError> {
        let minimum = match style {
            Style::BlueGreen | Style::Canary { .. } => {
                return Ok("CodeDeployDefault.ECSAllAtOnce".into());
            }
            Style::InPlace { minimum_healthy: 0 } => {
                return Ok("CodeDeployDefault.AllAtOnce".into());
            }
            Style::InPlace { minimum_healthy } => minimum_healthy,
        };
        let name = config_name(style);
        let hosts = MinimumHealthyHosts::builder()
            .r#type(MinimumHealthyHostsType::HostCount)
            .value(i32::try_from(minimum).unwrap_or(i32::MAX))
            .build();
        let made = self
            .client
            .create_deployment_config()
            .deployment_config_name(&name)
            .compute_platform(ComputePlatform::Server)
            .minimum_healthy_hosts(hosts)
            .send()
            .await;
        made.map(|_| ()).or_else(|e| unless(&e, &["DeploymentConfigAlreadyExistsException"]))?;
        Ok(name)
    }

    async fn ensure_group(
        &self,
        group: &Group,
        style: Style,
        config: &str,
    ) -> Result<(), ProviderError> {
        let (kind, option) = match style {
            Style::BlueGreen | Style::Canary { .. } => {
                (DeploymentType::BlueGreen, DeploymentOption::WithTrafficControl)
            }
            Style::InPlace { .. } => {
                (DeploymentType::InPlace, DeploymentOption::WithTrafficControl)
            }
        };
        let shape =
            DeploymentStyle::builder().deployment_type(kind).deployment_option(option).build();
        let ready = match style {
            Style::Canary { wait_minutes } => Some(
                DeploymentReadyOption::builder()
                    .action_on_timeout(DeploymentReadyAction::StopDeployment)
                    .wait_time_in_minutes(i32::try_from(wait_minutes.min(2_880)).unwrap_or(2_880))
                    .build(),
            ),
            Style::BlueGreen => Some(
                DeploymentReadyOption::builder()
                    .action_on_timeout(DeploymentReadyAction::ContinueDeployment)
                    .build(),
            ),
            Style::InPlace { .. } => None,
        };
        let blue_green = ready.map(|ready| {
            BlueGreenDeploymentConfiguration::builder().deployment_ready_option(ready).build()
        });
        let tags = tag_set(&group.tags);
        let made = self
            .client
            .create_deployment_group()
            .application_name(&group.name.application)
            .deployment_group_name(&group.name.group)
            .deployment_config_name(config)
            .service_role_arn(ROLE)
            .deployment_style(shape.clone())
            .set_blue_green_deployment_configuration(blue_green.clone())
            .set_on_premises_tag_set(tags.clone())
            .send()
            .await;
        let Err(error) = made else { return Ok(()) };
        unless(&error, &["DeploymentGroupAlreadyExistsException"])?;
        let updated = self
            .client
            .update_deployment_group()
            .application_name(&group.name.application)
            .current_deployment_group_name(&group.name.group)
            .deployment_config_name(config)
            .deployment_style(shape)
            .set_blue_green_deployment_configuration(blue_green)
            .set_on_premises_tag_set(tags)
            .send()
            .await;
        updated.map(|_| ()).map_err(|e| problem(&e))
    }
}

fn config_name(style: Style) -> String {
    match style {
        Style::BlueGreen | Style::Canary { .. } => "CodeDeployDefault.ECSAllAtOnce".into(),
        Style::InPlace { minimum_healthy: 0 } => "CodeDeployDefault.AllAtOnce".into(),
        Style::InPlace { minimum_healthy } => format!("pipeyard-minimum-{minimum_healthy}"),
    }
}

/// Each tag is a group of its own, because one match in a group is enough and all groups must
/// match.
fn tag_set(tags: &BTreeMap<String, String>) -> Option<OnPremisesTagSet> {
    let groups = tags.iter().map(|(key, value)| {
        let kind = TagFilterType::KeyAndValue;
        vec![TagFilter::builder().key(key).value(value).r#type(kind).build()]
    });
    let groups: Vec<_> = groups.collect();
    let set = OnPremisesTagSet::builder().set_on_premises_tag_set_list(Some(groups));
    (!tags.is_empty()).then(|| set.build())
}

fn http() -> aws_sdk_codedeploy::config::SharedHttpClient {
    let builder =
        aws_smithy_http_client::Builder::new().tls_provider(Tls::Rustls(CryptoMode::Ring));
    let Some(pem) = pipeyard_trust::pem() else { return builder.build_https() };
    let store = TrustStore::default().with_pem_certificate(pem);
    match TlsContext::builder().with_trust_store(store).build() {
        Ok(context) => builder.tls_context(context).build_https(),
        // Only the system's authorities are believed then; the connection says so.
        Err(error) => {
            tracing::error!(%error, "the CA file can't be used for the provider");
            builder.build_https()
        }
    }
}

fn config(region: String) -> aws_sdk_codedeploy::config::Builder {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .operation_attempt_timeout(Duration::from_secs(10))
        .operation_timeout(Duration::from_secs(25))
        .build();
    Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region))
        .http_client(http())
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(3))
}

fn credentials(keys: Keys) -> Credentials {
    let Keys { access_key_id, secret_access_key, session_token } = keys;
    Credentials::new(access_key_id, secret_access_key, session_token, None, "pipeyard")
}

/// Fine when it is one of these errors.
fn unless<E, R>(error: &SdkError<E, R>, codes: &[&str]) -> Result<(), ProviderError>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    match error.as_service_error().and_then(ProvideErrorMetadata::code) {
        Some(code) if codes.contains(&code) => Ok(()),
        _ => Err(problem(error)),
    }
}

fn problem<E, R>(error: &SdkError<E, R>) -> ProviderError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    if let Some(service) = error.as_service_error()
        && let Some(code) = service.code()
        && !matches!(
            code,
            "ThrottlingException" | "Throttling" | "InternalFailure" | "ServiceUnavailable"
        )
    {
        let message = service.message().unwrap_or("it gave no reason").to_owned();
        if is_about_time(code, &message) {
            return ProviderError::Unreachable(format!(
                "its clock and this machine's differ too much: {code}: {message}; let both follow a \
                 time server"
            ));
        }
        return ProviderError::Refused { code: code.to_owned(), message };
    }
    ProviderError::Unreachable(said(error))
}

/// A refusal because of the time of a request passes when clocks are put right: it is trouble, never
/// a no.
fn is_about_time(code: &str, message: &str) -> bool {
    matches!(
        code,
        "RequestTimeTooSkewed" | "RequestExpired" | "RequestInTheFuture" | "ExpiredRequest"
    ) || (matches!(code, "InvalidSignatureException" | "SignatureDoesNotMatch")
        && ["expired", "not yet current", "more than 5 minutes", "in the future"]
            .iter()
            .any(|words| message.contains(words)))
}

/// Only a clean "no" is a no; everything else may have been heard.
fn lost_or_refused(
    error: &SdkError<CreateDeploymentError, aws_sdk_codedeploy::config::http::HttpResponse>,
) -> CreateAnswer {
    if let SdkError::ServiceError(answer) = error
        && answer.raw().status().is_client_error()
        && let ProviderError::Refused { code, message } = problem(error)
    {
        return if code == "DeploymentLimitExceededException" {
            CreateAnswer::Busy
        } else {
            CreateAnswer::Refused { code, message }
        };
    }
    CreateAnswer::Lost(said(error))
}

#[async_trait]
impl Provider for CodeDeploy {
    async fn prepare(&self, group: &Group, style: Style) -> Result<(), ProviderError> {
        let Some(fleet) = &self.fleet else { return Ok(()) };
        self.ensure_application(group).await?;
        let config = self.ensure_config(style).await?;
        self.ensure_group(group, style, &config).await?;
        fleet.put_service(&group.name, &group.definition).await
    }

    async fn upload(&self, bundle: &Bundle, file: &Path) -> Result<(), ProviderError> {
        match &self.fleet {
            Some(fleet) => fleet.put_bundle(bundle, file).await,
            None => Err(ProviderError::Refused {
                code: "no_bundle_store".into(),
                message: "uploads to S3 aren't supported yet; use the embedded fleet".into(),
            }),
        }
    }

    async fn create(&self, request: &CreateRequest) -> CreateAnswer {
        let s3 = S3Location::builder()
            .bucket(BUCKET)
            .key(request.bundle.key())
            .bundle_type(BundleType::TarGZip)
            .e_tag(&request.bundle.sha256)
            .build();
        let revision = RevisionLocation::builder()
            .revision_type(RevisionLocationType::S3)
            .s3_location(s3)
            .build();
        let events =
            [AutoRollbackEvent::DeploymentFailure, AutoRollbackEvent::DeploymentStopOnRequest];
        let roll_back = AutoRollbackConfiguration::builder()
            .enabled(request.roll_back)
            .set_events(request.roll_back.then(|| events.to_vec()))
            .build();
        let sent = self
            .client
            .create_deployment()
            .application_name(&request.group.application)
            .deployment_group_name(&request.group.group)
            .deployment_config_name(config_name(request.style))
            .description(request.description())
            .revision(revision)
            .auto_rollback_configuration(roll_back)
            .customize()
            .config_override(Config::builder().retry_config(RetryConfig::disabled()))
            .send()
            .await;
        match sent {
            Ok(answer) => match answer.deployment_id() {
                Some(id) => CreateAnswer::Created(id.to_owned()),
                None => CreateAnswer::Lost("the answer has no id".into()),
            },
            Err(error) => lost_or_refused(&error),
        }
    }

    async fn find(
        &self,
        group: &GroupName,
        token: IntentId,
        since: Timestamp,
    ) -> Result<Finding, ProviderError> {
        let earlier = if self.fleet.is_some() { SET_BACK } else { SKEW };
        let start =
            aws_sdk_codedeploy::primitives::DateTime::from_secs((since - earlier).0 / 1_000_000);
        let marker = marker(token);
        let mut finding = Finding::default();
        let mut next = None;
        for _ in 0..PAGES {
            let page = self
                .client
                .list_deployments()
                .application_name(&group.application)
                .deployment_group_name(&group.group)
                .create_time_range(TimeRange::builder().start(start).build())
                .set_next_token(next.take())
                .send()
                .await;
            let page = match page {
                Ok(page) => page,
                // Before the first deployment there is no group.
                Err(error) => {
                    return unless(
                        &error,
                        &[
                            "ApplicationDoesNotExistException",
                            "DeploymentGroupDoesNotExistException",
                        ],
                    )
                    .map(|()| finding);
                }
            };
            for ids in page.deployments().chunks(25) {
                let batch =
                    self.client.batch_get_deployments().set_deployment_ids(Some(ids.to_vec()));
                let batch = batch.send().await.map_err(|e| problem(&e))?;
                for info in batch.deployments_info() {
                    let Some(id) = info.deployment_id() else { continue };
                    let ours = info.description().is_some_and(|text| {
                        text.split(' ').next().is_some_and(|first| first == marker)
                    });
                    // A deployment that restores another one repeats its description.
                    let restores = info
                        .rollback_info()
                        .is_some_and(|r| r.rollback_triggering_deployment_id().is_some());
                    if ours && !restores {
                        finding.ours = Some(id.to_owned());
                    }
                    let over = info.status().is_some_and(|status| {
                        use DeploymentStatus::{Failed, Stopped, Succeeded};
                        [Succeeded, Failed, Stopped].contains(status)
                    });
                    if !over {
                        finding.active = Some(id.to_owned());
                    }
                }
            }
            next = page.next_token().map(ToOwned::to_owned);
            if next.is_none() {
                return Ok(finding);
            }
        }
        Err(ProviderError::Unreachable("the list of deployments doesn't end".into()))
    }

    async fn observe(&self, id: &str) -> Result<Snapshot, ProviderError> {
        let answer = self.client.get_deployment().deployment_id(id).send().await;
        let answer = answer.map_err(|e| problem(&e))?;
        let info = answer.deployment_info();
        let word = info.and_then(|i| i.status()).map_or("Unknown", DeploymentStatus::as_str);
        let status = match word {
            "Ready" => ProviderStatus::Ready,
            "Succeeded" => ProviderStatus::Succeeded,
            "Failed" => ProviderStatus::Failed,
            "Stopped" => ProviderStatus::Stopped,
            _ => ProviderStatus::Working,
        };
        let error = info.and_then(|i| i.error_information());
        let problem = error.map(|e| {
            let code = e.code().map_or("", |c| c.as_str());
            format!("{code}: {}", e.message().unwrap_or("no reason given"))
        });
        let successor = info
            .and_then(|i| i.rollback_info())
            .and_then(|r| r.rollback_deployment_id())
            .map(ToOwned::to_owned);
        Ok(Snapshot { status, word: word.to_owned(), problem, successor })
    }

    async fn targets(&self, id: &str) -> Result<Vec<Target>, ProviderError> {
        let mut targets = Vec::new();
        let mut next = None;
        for _ in 0..PAGES {
            let page = self
                .client
                .list_deployment_targets()
                .deployment_id(id)
                .set_next_token(next.take())
                .send()
                .await
                .map_err(|e| problem(&e))?;
            for ids in page.target_ids().chunks(25) {
                let batch = self
                    .client
                    .batch_get_deployment_targets()
                    .deployment_id(id)
                    .set_target_ids(Some(ids.to_vec()))
                    .send()
                    .await
                    .map_err(|e| problem(&e))?;
                targets.extend(batch.deployment_targets().iter().filter_map(read::target));
            }
            next = page.next_token().map(ToOwned::to_owned);
            if next.is_none() {
                break;
            }
        }
        Ok(targets)
    }

    async fn proceed(&self, id: &str) -> Result<(), ProviderError> {
        let sent = self
            .client
            .continue_deployment()
            .deployment_id(id)
            .deployment_wait_type(DeploymentWaitType::ReadyWait)
            .send()
            .await;
        let fine = ["DeploymentAlreadyCompletedException", "DeploymentIsNotInReadyStateException"];
        sent.map(|_| ()).or_else(|e| unless(&e, &fine))
    }

    async fn stop(&self, id: &str, roll_back: bool) -> Result<(), ProviderError> {
        let sent = self
            .client
            .stop_deployment()
            .deployment_id(id)
            .auto_rollback_enabled(roll_back)
            .send()
            .await;
        sent.map(|_| ()).or_else(|e| unless(&e, &["DeploymentAlreadyCompletedException"]))
    }

    fn settles_within(&self) -> Duration {
        // The fleet lists what it has made; AWS promises nothing.
        Duration::from_secs(if self.fleet.is_some() { 5 } else { 60 })
    }
}
