//! What Pipeyard remembers, as traits whose verbs are use cases, one trait by aggregate.
//!
//! Contract of every verb: it is one transaction; when it returns `Ok` its effect is durable; when
//! it returns `Err` it had none, but for [`StoreError::Unknown`], after which the caller must look.
//! Verbs that people or runners may repeat are idempotent and say so. State changes go through the
//! pure machines of `pipeyard_model`, inside the transaction, and append to the events of the run.
//!
//! There is no SQL here and no row type: each database has a crate of its own, and both pass the
//! suite in [`conformance`].

pub mod accounts;
pub mod artifacts;
pub mod audit;
pub mod conformance;
pub mod deployments;
pub mod dora;
pub mod error;
pub mod events;
pub mod health;
pub mod intake;
pub mod keys;
pub mod outbox;
pub mod queue;
pub mod repos;
pub mod retention;
pub mod runners;
pub mod runs;
pub mod secrets;
pub mod test_reports;

pub use error::{StoreError, StoreResult};

/// Everything at once, for the composition root and the server's state.
pub trait Store:
    accounts::Accounts
    + artifacts::Artifacts
    + deployments::Deployments
    + dora::Dora
    + events::Events
    + health::Health
    + intake::Intake
    + keys::Keys
    + outbox::Outbox
    + queue::Queue
    + repos::Repos
    + retention::Retention
    + runners::Runners
    + runs::Runs
    + secrets::Secrets
    + test_reports::TestReports
    + std::fmt::Debug
    + Send
    + Sync
{
}

impl<T> Store for T where
    T: accounts::Accounts
        + artifacts::Artifacts
        + deployments::Deployments
        + dora::Dora
        + dora::Dora
        + events::Events
        + health::Health
        + intake::Intake
        + keys::Keys
        + outbox::Outbox
        + queue::Queue
        + repos::Repos
        + retention::Retention
        + runners::Runners
        + runs::Runs
        + secrets::Secrets
        + test_reports::TestReports
        + std::fmt::Debug
        + Send
        + Sync
{
}
