//! What can go wrong in a store.

/// The result of a verb.
pub type StoreResult<T> = Result<T, StoreError>;

/// Why a verb had no effect.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// What it names isn't there.
    #[error("there is no {what}")]
    NotFound {
        /// In words: `run 81`.
        what: String,
    },
    /// The state doesn't allow it; the message says which state and what would.
    #[error("{message}")]
    Conflict {
        /// Stable code: `run_finished`, `name_taken`, `stale_epoch`, ...
        code: &'static str,
        /// What, why and the fix.
        message: String,
    },
    /// A row that no version of this program wrote.
    #[error("table {table}, column {column}, row {row}: {problem}")]
    Corrupt {
        /// Table.
        table: &'static str,
        /// Column.
        column: &'static str,
        /// Its key.
        row: String,
        /// What is wrong with the value.
        problem: String,
    },
    /// The database's file isn't what was written to it; what is read from it may be wrong.
    #[error("the database is damaged, restore the last backup: {0}")]
    Damaged(String),
    /// The database is busy or away; nothing was written. May be tried again.
    #[error("the database can't be reached: {0}")]
    Unavailable(String),
    /// The commit's outcome isn't known: the caller must look before it repeats.
    #[error("the commit's outcome is unknown: {0}")]
    Unknown(String),
}

impl StoreError {
    /// Something isn't there.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::NotFound { what: what.to_string() }
    }

    /// The state doesn't allow it.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::Conflict { code, message: message.into() }
    }
}
