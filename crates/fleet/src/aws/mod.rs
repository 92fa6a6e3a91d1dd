//! The CodeDeploy API: awsJson1.1 over `POST /`, signed with SigV4.
//!
//! Unknown members of an input are ignored, unknown operations are refused by name. An operation
//! that this fleet can't honour as asked is refused rather than half done.

mod applications;
mod configs;
mod deployments;
mod error;
mod filters;
mod groups;
mod input;
mod instances;
mod tags;
mod targets;

use std::sync::Arc;

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;

pub(crate) use configs::{Minimum, Plan, Shift, lookup};
pub(crate) use error::AwsError;
pub(crate) use filters::matches_all;

use crate::{
    fleet::Fleet,
    sigv4::{self, Scope, Signed},
};

/// Custom deployment configurations that one fleet keeps.
pub(crate) const MAX_CONFIGS: usize = 50;
/// The account in ARNs.
const ACCOUNT: &str = "000000000000";
const PREFIX: &str = "CodeDeploy_20141006.";

type Answer = Result<Value, AwsError>;

/// `POST /`.
pub(crate) async fn handle(
    State(fleet): State<Arc<Fleet>>,
    guest: Option<Extension<pipeyard_listen::Guest>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = Signed {
        method: &method,
        path: uri.path(),
        query: uri.query().unwrap_or_default(),
        headers: &headers,
        body: &body,
    };
    let scope = Scope { region: &fleet.region, service: "codedeploy" };
    let keys = std::slice::from_ref(&fleet.credentials.key);
    let id = uuid::Uuid::new_v4().to_string();
    let answer = match sigv4::verify(&request, keys, scope, fleet.clock.now()) {
        Ok(_) => {
            if let Some(guest) = guest {
                guest.known();
            }
            match take(&fleet, &headers).await {
                Ok(()) => run(&fleet, &headers, &body).await,
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error.into()),
    };
    let mut response = match answer {
        Ok(value) => {
            let mut response = Response::new(Body::from(value.to_string()));
            let kind = header::HeaderValue::from_static("application/x-amz-json-1.1");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => error.into_response(),
    };
    if let Ok(id) = header::HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    response
}

/// Whether an operation changes nothing, so that the same request may come twice.
fn only_reads(operation: &str) -> bool {
    ["Get", "BatchGet", "List"].iter().any(|verb| operation.starts_with(verb))
}

/// Takes a signed request that changes something, once. An SDK signs anew for each of its tries.
async fn take(fleet: &Fleet, headers: &HeaderMap) -> Result<(), AwsError> {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok());
    if target.and_then(|target| target.strip_prefix(PREFIX)).is_some_and(only_reads) {
        return Ok(());
    }
    let taken = match sigv4::signature_and_end(headers) {
        Some((signature, end)) => {
            let call = headers.get("amz-sdk-invocation-id").and_then(|value| value.to_str().ok());
            let now = fleet.clock.now();
            fleet.db.take_signature(signature, call.unwrap_or_default(), end, now).await?
        }
        None => false,
    };
    if taken {
        return Ok(());
    }
    Err(AwsError::new(
        "InvalidSignatureException",
        "This signed request was taken already. Sign every request anew, also one that is tried \
         again.",
    ))
}

async fn run(fleet: &Arc<Fleet>, headers: &HeaderMap, body: &[u8]) -> Answer {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let target = text("x-amz-target").unwrap_or_default();
    let Some(operation) = target.strip_prefix(PREFIX) else {
        return Err(AwsError::new(
            "UnknownOperationException",
            format!("X-Amz-Target must begin with {PREFIX}, it is '{target}'"),
        ));
    };
    let invocation = text("amz-sdk-invocation-id");
    let input: Value = if body.is_empty() {
        Value::Object(serde_json::Map::new())
    } else {
        serde_json::from_slice(body)
            .map_err(|error| AwsError::new("SerializationException", error.to_string()))?
    };
    match operation {
        "CreateApplication" => applications::create(fleet, &input).await,
        "GetApplication" => applications::get(fleet, &input).await,
        "BatchGetApplications" => applications::batch_get(fleet, &input).await,
        "ListApplications" => applications::list(fleet, &input).await,
        "DeleteApplication" => applications::delete(fleet, &input).await,
        "RegisterApplicationRevision" => applications::register_revision(fleet, &input).await,
        "CreateDeploymentGroup" => groups::create(fleet, &input).await,
        "GetDeploymentGroup" => groups::get(fleet, &input).await,
        "UpdateDeploymentGroup" => groups::update(fleet, &input).await,
        "ListDeploymentGroups" => groups::list(fleet, &input).await,
        "DeleteDeploymentGroup" => groups::delete(fleet, &input).await,
        "CreateDeploymentConfig" => configs::create(fleet, &input).await,
        "GetDeploymentConfig" => configs::get(fleet, &input).await,
        "ListDeploymentConfigs" => configs::list(fleet, &input).await,
        "DeleteDeploymentConfig" => configs::delete(fleet, &input).await,
        "CreateDeployment" => deployments::create(fleet, &input, invocation).await,
        "GetDeployment" => deployments::get(fleet, &input).await,
        "BatchGetDeployments" => deployments::batch_get(fleet, &input).await,
        "ListDeployments" => deployments::list(fleet, &input).await,
        "StopDeployment" => deployments::stop(fleet, &input).await,
        "ContinueDeployment" => deployments::proceed(fleet, &input).await,
        "ListDeploymentTargets" => targets::list(fleet, &input).await,
        "GetDeploymentTarget" => targets::get(fleet, &input).await,
        "BatchGetDeploymentTargets" => targets::batch_get(fleet, &input).await,
        "RegisterOnPremisesInstance" => instances::register(fleet, &input).await,
        "DeregisterOnPremisesInstance" => instances::deregister(fleet, &input).await,
        "GetOnPremisesInstance" => instances::get(fleet, &input).await,
        "ListOnPremisesInstances" => instances::list(fleet, &input).await,
        "AddTagsToOnPremisesInstances" => instances::tag(fleet, &input, true).await,
        "RemoveTagsFromOnPremisesInstances" => instances::tag(fleet, &input, false).await,
        "TagResource" => tags::tag(fleet, &input).await,
        "UntagResource" => tags::untag(fleet, &input).await,
        "ListTagsForResource" => tags::list(fleet, &input).await,
        other => Err(AwsError::new(
            "OperationNotSupportedException",
            format!("this fleet doesn't have the operation {other}"),
        )),
    }
}
