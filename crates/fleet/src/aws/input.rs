//! Reading inputs: required members, names, pages, times.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use pipeyard_model::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::AwsError;

/// Names on one page of a list.
pub(super) const PAGE: i64 = 100;

/// Reads a member; none if it is absent or null.
pub(super) fn member<T: DeserializeOwned>(
    input: &Value,
    name: &str,
) -> Result<Option<T>, AwsError> {
    match input.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(value)
            .map(Some)
            .map_err(|error| AwsError::new("SerializationException", format!("{name}: {error}"))),
    }
}

/// Reads a text that must be there and not be empty.
pub(super) fn required(input: &Value, name: &str, code: &'static str) -> Result<String, AwsError> {
    let text: Option<String> = member(input, name)?;
    text.filter(|text| !text.is_empty())
        .ok_or_else(|| AwsError::new(code, format!("{name} must be given")))
}

/// Reads a name by CodeDeploy's rule: 1 to 100 letters, digits, and `. _ + = , @ -`.
pub(super) fn name(
    input: &Value,
    member: &str,
    missing: &'static str,
    invalid: &'static str,
) -> Result<String, AwsError> {
    let text = required(input, member, missing)?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._+=,@-".contains(&b);
    if text.len() <= 100 && text.bytes().all(legal) && text != "." && text != ".." {
        return Ok(text);
    }
    Err(AwsError::new(
        invalid,
        format!("{member} must have 1 to 100 letters, digits or . _ + = , @ -"),
    ))
}

pub(super) fn application_name(input: &Value) -> Result<String, AwsError> {
    name(
        input,
        "applicationName",
        "ApplicationNameRequiredException",
        "InvalidApplicationNameException",
    )
}

pub(super) fn group_name(input: &Value, member: &str) -> Result<String, AwsError> {
    name(
        input,
        member,
        "DeploymentGroupNameRequiredException",
        "InvalidDeploymentGroupNameException",
    )
}

/// Where a list goes on; empty at its beginning.
pub(super) fn next_token(input: &Value) -> Result<String, AwsError> {
    let invalid = || AwsError::new("InvalidNextTokenException", "nextToken isn't one of this list");
    let Some(token) = member::<String>(input, "nextToken")? else { return Ok(String::new()) };
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    text.strip_prefix("after:").map(str::to_owned).ok_or_else(invalid)
}

/// A page of names in ascending order. `names` may hold more than a page.
pub(super) fn page(member: &str, names: &[String]) -> Value {
    let size = usize::try_from(PAGE).unwrap_or(usize::MAX);
    let shown = &names[..names.len().min(size)];
    let next = shown.last().filter(|_| names.len() > size);
    list(member, shown, next.map(String::as_str))
}

/// A list and where it goes on.
pub(super) fn list(member: &str, names: &[String], next: Option<&str>) -> Value {
    let mut output = json!({ member: names });
    if let Some(next) = next {
        output["nextToken"] = json!(URL_SAFE_NO_PAD.encode(format!("after:{next}")));
    }
    output
}

/// A time on the wire: seconds since 1970 with a fraction.
pub(super) fn epoch(time: Timestamp) -> Value {
    json!((time.0 / 1_000) as f64 / 1_000.0)
}

pub(super) fn time(seconds: f64) -> Timestamp {
    Timestamp((seconds * 1e6) as i64)
}

/// Names for one batch operation, at most `limit`.
pub(super) fn batch(
    input: &Value,
    member_name: &str,
    limit: usize,
    missing: &'static str,
    too_many: &'static str,
) -> Result<Vec<String>, AwsError> {
    let names: Vec<String> = member(input, member_name)?.unwrap_or_default();
    if names.is_empty() {
        return Err(AwsError::new(missing, format!("{member_name} must be given")));
    }
    if names.len() > limit {
        return Err(AwsError::new(too_many, format!("{member_name} takes at most {limit}")));
    }
    Ok(names)
}

/// `[{"Key": .., "Value": ..}]`.
pub(super) fn tags(input: &Value) -> Result<Vec<(String, String)>, AwsError> {
    #[derive(serde::Deserialize)]
    struct Tag {
        #[serde(rename = "Key")]
        key: Option<String>,
        #[serde(rename = "Value")]
        value: Option<String>,
    }
    let tags: Vec<Tag> = member(input, "tags")?.unwrap_or_default();
    if tags.len() > 50 {
        return Err(AwsError::new("TagLimitExceededException", "at most 50 tags at once"));
    }
    Ok(tags
        .into_iter()
        .map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()))
        .collect())
}
