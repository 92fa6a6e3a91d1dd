//! The provider's targets in our words.

use aws_sdk_codedeploy::{
    primitives::DateTime,
    types::{DeploymentTarget, LifecycleErrorCode, LifecycleEvent},
};
use pipeyard_model::Timestamp;

use crate::provider::{Target, TargetEvent};

/// One host or container set; none of a kind that we don't know.
pub(super) fn target(target: &DeploymentTarget) -> Option<Target> {
    let (id, status, events) = if let Some(host) = target.instance_target() {
        (host.target_id(), host.status(), host.lifecycle_events())
    } else if let Some(set) = target.ecs_target() {
        (set.target_id(), set.status(), set.lifecycle_events())
    } else {
        return None;
    };
    Some(Target {
        id: id?.to_owned(),
        state: status.map_or_else(|| "unknown".into(), |s| snake(s.as_str())),
        events: events.iter().map(event).collect(),
    })
}

fn event(event: &LifecycleEvent) -> TargetEvent {
    let diagnostics = event.diagnostics();
    let problem = diagnostics.and_then(|d| {
        let code =
            d.error_code().map(LifecycleErrorCode::as_str).filter(|code| *code != "Success")?;
        let script = d.script_name().map(|s| format!(" in {s}")).unwrap_or_default();
        Some(format!("{code}{script}: {}", d.message().unwrap_or("no message")))
    });
    let log_tail = diagnostics.and_then(|d| d.log_tail()).filter(|text| !text.is_empty());
    TargetEvent {
        name: event.lifecycle_event_name().unwrap_or("?").to_owned(),
        state: event.status().map_or_else(|| "unknown".into(), |s| snake(s.as_str())),
        started: event.start_time().map(time),
        finished: event.end_time().map(time),
        problem,
        log_tail: log_tail.map(|text| text.chars().take(4_096).collect()),
    }
}

fn time(time: &DateTime) -> Timestamp {
    Timestamp(time.secs() * 1_000_000 + i64::from(time.subsec_nanos() / 1_000))
}

/// `InProgress` is `in_progress`.
fn snake(word: &str) -> String {
    let mut text = String::new();
    for c in word.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_are_in_snake_case() {
        assert_eq!(super::snake("InProgress"), "in_progress");
        assert_eq!(super::snake("Ready"), "ready");
    }
}
