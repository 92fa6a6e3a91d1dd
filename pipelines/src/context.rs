//! What happened: the event and the commit that a pipeline is compiled for.

use serde::{Deserialize, Serialize};

/// What asks for a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A branch moved.
    Push,
    /// A pull request was opened or got new commits.
    PullRequest {
        /// The branch that it wants to change.
        base: String,
    },
    /// A person asked for it.
    Manual,
}

/// The event and its commit. Every text here may come from a stranger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// What asks for the run.
    pub event: Event,
    /// The commit's full hash.
    pub sha: String,
    /// The pushed branch; for a pull request, the branch that it comes from.
    pub branch: String,
    /// The commit's author, by name.
    pub author: String,
    /// The repository's default branch.
    pub default_branch: String,
}

impl Context {
    /// A push to the default branch `main`: what a file is checked against when no event is known.
    #[must_use]
    pub fn example() -> Self {
        Self {
            event: Event::Push,
            sha: "0123456789abcdef0123456789abcdef01234567".into(),
            branch: "main".into(),
            author: "Ada Lovelace".into(),
            default_branch: "main".into(),
        }
    }

    /// The first seven characters of the hash.
    #[must_use]
    pub fn short(&self) -> &str {
        self.sha.get(..7).unwrap_or(&self.sha)
    }

    /// What every step finds in its environment about the commit, by variable.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, &str); 5] {
        let event = match self.event {
            Event::Push => "push",
            Event::PullRequest { .. } => "pull_request",
            Event::Manual => "manual",
        };
        [
            ("PIPEYARD_COMMIT", &self.sha),
            ("PIPEYARD_COMMIT_SHORT", self.short()),
            ("PIPEYARD_BRANCH", &self.branch),
            ("PIPEYARD_AUTHOR", &self.author),
            ("PIPEYARD_EVENT", event),
        ]
    }
}
