//! Typed ids. An id of one kind can't be passed for another, from the URL to the row.
//!
//! Things that people name in a sentence ("run 81", "deployment 12") have small numbers that the
//! database assigns, always increasing and never used again. Everything else has a UUID v7, which
//! sorts by creation time.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The text isn't an id of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind} id")]
pub struct BadId {
    /// What kind of id was expected, in words.
    pub kind: &'static str,
    /// The text as it was given.
    pub text: String,
}

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident, $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            /// A new id, later than every id made before it in this process.
            #[must_use]
            pub fn new() -> Self {
                Self(uuid::Uuid::now_v7())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                text.parse().map(Self).map_err(|_| BadId { kind: $kind, text: text.to_owned() })
            }
        }
    )*};
}

macro_rules! number_id {
    ($($(#[$doc:meta])* $name:ident, $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                match text.parse() {
                    Ok(number) if number > 0 => Ok(Self(number)),
                    _ => Err(BadId { kind: $kind, text: text.to_owned() }),
                }
            }
        }
    )*};
}

uuid_id! {
    /// A repository that Pipeyard knows.
    RepoId, "repository";
    /// The address part of a webhook: `/hooks/{forge}/{hook id}`.
    HookId, "hook";
    /// One job of one run, over all its attempts.
    JobId, "job";
    /// A registered runner.
    RunnerId, "runner";
    /// One claim request of a runner; repeated when the reply was lost.
    RequestId, "request";
    /// A kept output of a job.
    ArtifactId, "artifact";
    /// An immutable thing that a deployment ships.
    ReleaseId, "release";
    /// A person or machine that signs in.
    UserId, "user";
    /// A stored credential; the secret half is only kept hashed.
    TokenId, "token";
    /// One message in the durable outbox.
    OutboxId, "outbox message";
    /// What we ask a provider to start, before we ask it: the idempotency token of a deployment.
    IntentId, "intent";
    /// One installation of Pipeyard; a label on everything made in Docker.
    InstallationId, "installation";
}

number_id! {
    /// One execution of a pipeline for one commit.
    RunId, "run";
    /// One rollout of a release to an environment.
    DeploymentId, "deployment";
    /// A production failure.
    IncidentId, "incident";
}

/// Which try of a job this is, from 1. It fences writes: a write that carries an older epoch than
/// the job's own is refused.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One try of a job; it owns the lease and the log.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
pub struct AttemptId {
    /// The job that is tried.
    pub job: JobId,
    /// Which try.
    pub epoch: Epoch,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_id_refuses_zero_and_words() {
        assert_eq!("81".parse(), Ok(RunId(81)));
        for bad in ["0", "-1", "", "latest", "1.5", "9223372036854775808"] {
            assert!(bad.parse::<RunId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_id_says_what_was_expected() {
        let error = "abc".parse::<JobId>().unwrap_err();
        assert_eq!(error.to_string(), "\"abc\" is not a job id");
    }
}
