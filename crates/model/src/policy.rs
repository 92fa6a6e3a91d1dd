//! Who may do what. A route names the permission that it needs; a role has permissions. Nobody else
//! decides by a role's name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a person was given for the whole installation. The order is that of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads; starts, cancels and reruns; opens and closes incidents.
    Developer,
    /// Everything.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 2] = [Self::Developer, Self::Admin];

    /// The word for it in rows, JSON and options.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Developer => "developer",
            Self::Admin => "admin",
        }
    }

    /// Whether this role may.
    #[must_use]
    pub const fn may(self, permission: Permission) -> bool {
        match self {
            Self::Admin => true,
            Self::Developer => match permission {
                Permission::Read
                | Permission::Own
                | Permission::Work
                | Permission::Incidents
                | Permission::Decide => true,
                Permission::Approve
                | Permission::Repositories
                | Permission::Secrets
                | Permission::Environments
                | Permission::Runners
                | Permission::Users
                | Permission::Audit
                | Permission::Notifications => false,
            },
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; a role is developer or admin")]
pub struct BadRole(pub String);

impl FromStr for Role {
    type Err = BadRole;
    fn from_str(text: &str) -> Result<Self, BadRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| BadRole(text.chars().take(80).collect()))
    }
}

/// What a route needs of the person who calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// Look at runs, logs, artifacts, deployments, environments, runners, metrics.
    Read,
    /// One's own sessions and tokens.
    Own,
    /// Start, cancel and rerun; end a deployment.
    Work,
    /// Open and close incidents.
    Incidents,
    /// Decide about a deployment: who may is said by its environment, see
    /// [`may_command`](crate::environment::may_command).
    Decide,
    /// Let a held run of a fork go.
    Approve,
    /// Repositories and the tokens of their forges.
    Repositories,
    /// Secrets of jobs.
    Secrets,
    /// Environments and their services.
    Environments,
    /// Runners and their enrolment.
    Runners,
    /// Users and everybody's sessions and tokens.
    Users,
    /// The audit log.
    Audit,
    /// Where notifications go and what they are signed with.
    Notifications,
}

impl Permission {
    /// What it allows, for the answer to somebody who lacks it: "... is for administrators".
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Read => "looking at runs and deployments",
            Self::Own => "managing one's own tokens",
            Self::Work => "starting, cancelling and rerunning",
            Self::Incidents => "opening and closing incidents",
            Self::Decide => "deciding about this deployment",
            Self::Approve => "approving a held run",
            Self::Repositories => "managing repositories and the tokens of their forges",
            Self::Secrets => "managing secrets",
            Self::Environments => "managing environments",
            Self::Runners => "managing runners",
            Self::Users => "managing users and the tokens of others",
            Self::Audit => "reading the audit log",
            Self::Notifications => "managing notifications",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_read_back_from_its_word() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        for bad in ["", "Admin", "root", "admin ", "maintainer"] {
            assert!(bad.parse::<Role>().is_err(), "{bad:?}");
        }
    }
}
