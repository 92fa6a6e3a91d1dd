//! Status (is it over?) apart from conclusion (how did it end?).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a run, job or step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not started; the reason is shown beside it.
    Queued,
    /// Started.
    Running,
    /// Over; there is a conclusion.
    Finished,
}

/// How a run, job or step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// It did what it should.
    Success,
    /// The user's own commands failed, or a check did.
    Failure,
    /// Pipeyard or its surroundings failed: no image, a lost runner, a file that isn't a pipeline.
    Error,
    /// It took longer than its timeout.
    TimedOut,
    /// A person or a newer push ended it.
    Cancelled,
    /// It was not needed, or something that it needs didn't succeed.
    Skipped,
}

impl Conclusion {
    /// Whether work that needs this may go on.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Success
    }
}

macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        impl $type {
            /// The word for it in rows, JSON and on the screen.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text { $($word => Ok(Self::$variant),)* _ => Err(UnknownWord(text.to_owned())) }
            }
        }
    };
}

/// A word that isn't one of the enum's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown word {0:?}")]
pub struct UnknownWord(pub String);

words!(Status { Queued = "queued", Running = "running", Finished = "finished" });
words!(Conclusion {
    Success = "success",
    Failure = "failure",
    Error = "error",
    TimedOut = "timed_out",
    Cancelled = "cancelled",
    Skipped = "skipped",
});
