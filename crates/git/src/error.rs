//! What can go wrong with Git, and whether trying again may help.

use crate::Sha;

/// The result of an operation on Git.
pub type GitResult<T> = Result<T, GitError>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The remote answered with an error or not at all.
    #[error("failed to reach {remote}: {message}")]
    Remote {
        /// The remote, without credentials.
        remote: String,
        /// What is known of it, in words that tell nothing of the network behind the server.
        message: String,
    },
    /// The child took longer than its deadline and was ended.
    #[error("git {what} took longer than {seconds} s and was ended")]
    TimedOut {
        /// Which command.
        what: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// The commit isn't in the repository.
    #[error("there is no commit {0} in the repository; it may have been removed by a forced push")]
    NoCommit(Sha),
    /// Something is larger than its limit.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What, in words.
        what: String,
        /// The limit.
        limit: usize,
    },
    /// A fetch brings more than it may.
    #[error("{remote} sends more than {limit} bytes; nothing of it was kept")]
    FetchTooLarge {
        /// The remote, without credentials.
        remote: String,
        /// The limit.
        limit: u64,
    },
    /// There is no `git` program.
    #[error("failed to start git: {0}. Install git 2.31 or newer")]
    NoGit(std::io::Error),
    /// A folder can't be read or written.
    #[error("failed to {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The repository on this machine is damaged or isn't one.
    #[error("failed to {what}: {message}")]
    Repository {
        /// What was tried.
        what: &'static str,
        /// What libgit2 or git said.
        message: String,
    },
}

impl GitError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Remote { .. } => "remote_unreachable",
            Self::TimedOut { .. } => "git_timed_out",
            Self::NoCommit(_) => "commit_not_found",
            Self::TooLarge { .. } => "too_large",
            Self::FetchTooLarge { .. } => "fetch_too_large",
            Self::NoGit(_) => "git_missing",
            Self::Io { .. } => "git_io",
            Self::Repository { .. } => "repository_damaged",
        }
    }

    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    pub(crate) fn repository(what: &'static str, error: &git2::Error) -> Self {
        Self::Repository { what, message: error.message().to_owned() }
    }
}
