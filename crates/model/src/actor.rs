//! Who does something, by which credential and from where: what the audit log remembers of a change.

use std::net::IpAddr;

use crate::{AttemptId, RepoId, RunnerId, TokenId, UserId};

/// Who does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A person or program with an account.
    User(UserId),
    /// A runner, by its key.
    Runner(RunnerId),
    /// One try of a job or deploy.
    Attempt(AttemptId),
    /// The forge of a repository, by a delivery or by its refs.
    Forge(RepoId),
    /// The server itself: a timer, the judge, a command on the server's machine.
    Pipeyard,
    /// Somebody who didn't show a credential that is good.
    Nobody,
}

impl Who {
    /// The word for its kind in rows and JSON.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Runner(_) => "runner",
            Self::Attempt(_) => "attempt",
            Self::Forge(_) => "forge",
            Self::Pipeyard => "pipeyard",
            Self::Nobody => "nobody",
        }
    }

    /// Its id, if its kind has one.
    #[must_use]
    pub fn id(self) -> Option<String> {
        match self {
            Self::User(id) => Some(id.to_string()),
            Self::Runner(id) => Some(id.to_string()),
            Self::Attempt(id) => Some(id.to_string()),
            Self::Forge(id) => Some(id.to_string()),
            Self::Pipeyard | Self::Nobody => None,
        }
    }
}

/// Who changes something, by which credential, from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actor {
    /// Who.
    pub who: Who,
    /// The session or token that the request came with.
    pub credential: Option<TokenId>,
    /// Where the request came from.
    pub address: Option<IpAddr>,
}

impl Actor {
    /// Without a credential of a person and without an address.
    #[must_use]
    pub const fn of(who: Who) -> Self {
        Self { who, credential: None, address: None }
    }

    /// This person.
    #[must_use]
    pub const fn user(id: UserId) -> Self {
        Self::of(Who::User(id))
    }

    /// The server itself.
    #[must_use]
    pub const fn pipeyard() -> Self {
        Self::of(Who::Pipeyard)
    }

    /// The forge of this repository.
    #[must_use]
    pub const fn forge(repo: RepoId) -> Self {
        Self::of(Who::Forge(repo))
    }

    /// The same, from this address.
    #[must_use]
    pub const fn from(self, address: Option<IpAddr>) -> Self {
        Self { address, ..self }
    }

    /// The person, if it is one; nil for the others, which have no account.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        match self.who {
            Who::User(id) => id,
            Who::Runner(_) | Who::Attempt(_) | Who::Forge(_) | Who::Pipeyard | Who::Nobody => {
                UserId(uuid::Uuid::nil())
            }
        }
    }
}
