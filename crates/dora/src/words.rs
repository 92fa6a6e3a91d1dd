//! The sentences that say why a row counts.

use std::time::Duration;

use pipeyard_model::IncidentId;

use crate::{Failure, LeadStart, Method, NoLead, Role};

/// A duration as people say it: `45 s`, `12 min`, `3 h 20 min`, `2 d 4 h`.
pub(crate) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match () {
        () if seconds < 120 => format!("{seconds} s"),
        () if minutes < 120 => format!("{minutes} min"),
        () if hours < 48 => match minutes % 60 {
            0 => format!("{hours} h"),
            rest => format!("{hours} h {rest} min"),
        },
        () => match hours % 24 {
            0 => format!("{days} d"),
            rest => format!("{days} d {rest} h"),
        },
    }
}

/// Why a deployment does or doesn't count in the frequency.
pub(crate) fn frequency(role: Role) -> &'static str {
    match role {
        Role::Deployed { hotfix: false, partial: false } => "counts because it serves all users",
        Role::Deployed { hotfix: true, partial: false } => {
            "counts because a hotfix is a deployment too"
        }
        Role::Deployed { partial: true, .. } => {
            "counts because it serves users, although some targets did not take it"
        }
        Role::Aborted { .. } => {
            "does not count because it was taken back before it served all users; it is in the change fail rate"
        }
        Role::RolledBack => {
            "does not count because a rollback is no deployment; it is in the rework rate"
        }
        Role::RollbackFailed => "does not count because it is a rollback, and it failed",
        Role::Redeployed => "does not count because this commit was already running",
        Role::FailedBeforeTraffic => "does not count because it failed before any user reached it",
        Role::NeverStarted => "does not count because it never started",
        Role::Unfinished => "does not count yet because it is not over",
    }
}

/// Why a deployment does or doesn't count in the fail rate.
pub(crate) fn failing(role: Role, failure: Option<&Failure>) -> String {
    match (role, failure) {
        (Role::Aborted { .. } | Role::Deployed { .. }, Some(failure)) => {
            let how = failed_how(role, failure);
            format!("counts as failed because {how}")
        }
        (Role::Aborted { .. } | Role::Deployed { .. }, None) => {
            "counts as good because no failure is linked to it".into()
        }
        (Role::RolledBack | Role::RollbackFailed, _) => {
            "does not count because a rollback is no deployment".into()
        }
        (Role::Redeployed, _) => "does not count because this commit was already running".into(),
        (Role::FailedBeforeTraffic, _) => {
            "does not count because it failed before any user reached it".into()
        }
        (Role::NeverStarted, _) => "does not count because it never started".into(),
        (Role::Unfinished, _) => "does not count yet because it is not over".into(),
    }
}

fn failed_how(role: Role, failure: &Failure) -> String {
    let incidents = match &failure.incidents[..] {
        [] => None,
        [one] => Some(format!("incident {one}")),
        many => Some(format!("{} (they count once)", list(many))),
    };
    let aborted = matches!(role, Role::Aborted { .. });
    match (aborted, incidents, failure.method) {
        (true, None, _) => "it was taken back after users had reached it".into(),
        (true, Some(incidents), _) => {
            format!("it was taken back after users had reached it, and of {incidents}")
        }
        (false, Some(incidents), Some(Method::Inferred)) => {
            format!(
                "of {incidents}: it was the latest success within 24 h before the impact (inferred)"
            )
        }
        (false, Some(incidents), Some(Method::Manual)) => {
            format!("of {incidents}, linked by a person")
        }
        (false, Some(incidents), _) => format!("of {incidents}, which names it"),
        (false, None, _) => match failure.repaired_by {
            Some(by) if failure.method == Some(Method::Hotfix) => {
                format!("deployment {by} repaired it")
            }
            Some(by) => format!("deployment {by} rolled it back"),
            None if failure.method == Some(Method::Manual) => "a person marked it".into(),
            None => "it was rolled back".into(),
        },
    }
}

fn list(incidents: &[IncidentId]) -> String {
    let shown: Vec<String> = incidents.iter().take(5).map(ToString::to_string).collect();
    let more = incidents.len().saturating_sub(5);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("incidents {}{more}", shown.join(", "))
}

/// Why a deployment does or doesn't count as rework.
pub(crate) fn rework(role: Role, repairs: Option<pipeyard_model::DeploymentId>) -> String {
    let of = repairs.map_or_else(String::new, |id| format!(" of deployment {id}"));
    match role {
        Role::RolledBack => format!("counts as rework because it is a rollback{of}"),
        Role::Deployed { hotfix: true, .. } | Role::Aborted { hotfix: true } => {
            format!("counts as rework because it is a hotfix{of}")
        }
        Role::Deployed { hotfix: false, .. } | Role::Aborted { hotfix: false } => {
            "counts as planned work because it is neither a rollback nor a hotfix".into()
        }
        Role::RollbackFailed => "does not count because the rollback failed".into(),
        Role::Redeployed => "does not count because this commit was already running".into(),
        Role::FailedBeforeTraffic => {
            "does not count because it failed before any user reached it".into()
        }
        Role::NeverStarted => "does not count because it never started".into(),
        Role::Unfinished => "does not count yet because it is not over".into(),
    }
}

/// Why a commit counts in the lead time.
pub(crate) fn lead(seconds: u64, start: LeadStart) -> String {
    let start = match start {
        LeadStart::Authored => "it was authored",
        LeadStart::FirstSeen => "it was first seen here (its own dates are later)",
        LeadStart::Committed => "it was picked from another branch",
    };
    format!("counts because it was deployed {} after {start}", span(seconds))
}

/// Why a commit doesn't count in the lead time.
pub(crate) fn no_lead(why: NoLead) -> String {
    match why {
        NoLead::Merge => "does not count because a merge only joins other commits".into(),
        NoLead::FromTheFuture => {
            let skew = Duration::as_secs(&crate::MAX_SKEW) / 60;
            format!("does not count because its date is over {skew} min later than its deployment")
        }
    }
}
