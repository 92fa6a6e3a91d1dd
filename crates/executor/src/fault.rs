//! Something that an executor couldn't do: a stable code and a sentence with the fix.

use crate::{ExecutorError, JobOutcome, Reason};

/// What went wrong outside of the user's own commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<Fault> for Reason {
    fn from(fault: Fault) -> Self {
        Self { code: fault.code.to_owned(), message: fault.message }
    }
}

impl From<Fault> for ExecutorError {
    fn from(fault: Fault) -> Self {
        Self { code: fault.code, message: fault.message }
    }
}

impl From<Fault> for JobOutcome {
    fn from(fault: Fault) -> Self {
        Reason::from(fault).into()
    }
}
