//! How a command ends: an exit code that tells the outcome, and an error with its fix.

use std::process::ExitCode;

use pipeyard_api::client::ClientError;

/// Exit codes; a script may branch on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, and what was asked about is good.
    Ok,
    /// 1: what was asked about failed.
    Failed,
    /// 2: the command line or a file is wrong.
    Usage,
    /// 3: it was cancelled or aborted.
    Cancelled,
    /// 4: not signed in, or not allowed.
    Permission,
    /// 5: it isn't there.
    NotFound,
    /// 6: the server can't be reached.
    Unreachable,
    /// 7: gave up waiting; it goes on.
    GaveUp,
    /// 8: it waits for a person's approval.
    NeedsApproval,
    /// 9: it failed, and was rolled back.
    RolledBack,
    /// 130: Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Cancelled => 3,
            Self::Permission => 4,
            Self::NotFound => 5,
            Self::Unreachable => 6,
            Self::GaveUp => 7,
            Self::NeedsApproval => 8,
            Self::RolledBack => 9,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The result of a command.
pub type Outcome = Result<Exit, Failure>;

/// Why a command couldn't do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// Stable code, if there is one.
    pub code: Option<String>,
    /// What, where and why.
    pub message: String,
    /// The fix.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with a message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, code: None, message: message.into(), hint: None }
    }

    /// The command line or a file is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Something isn't there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// Adds the fix.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints it to standard error.
    pub fn report(&self) {
        let code = self.code.as_ref().map(|c| format!("[{c}]")).unwrap_or_default();
        crate::term::say(&format!("error{code}: {}", self.message));
        if let Some(hint) = &self.hint {
            crate::term::say(&format!("hint: {hint}"));
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Unreachable { .. } => Self::new(Exit::Unreachable, message)
                .hint("is the server running? `pipectl up` starts everything on this machine; `pipectl doctor` checks it"),
            ClientError::Refused { status, error } => {
                let exit = match status {
                    401 | 403 => Exit::Permission,
                    404 | 410 => Exit::NotFound,
                    400 | 413 | 422 => Exit::Usage,
                    503 => Exit::Unreachable,
                    _ => Exit::Failed,
                };
                let hint = error.hint.or_else(|| (status == 401).then(|| "sign in: pipectl login URL".to_owned()));
                Self { exit, code: Some(error.code), message: error.message, hint }
            }
            ClientError::BadAnswer { .. } => Self::new(Exit::Failed, message)
                .hint("the server and this pipectl may be of different versions: pipectl --version"),
            ClientError::BadAddress { .. } => Self::new(Exit::Usage, message),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}
