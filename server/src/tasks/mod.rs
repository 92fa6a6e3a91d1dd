//! The server's tasks: signal plus timer, no input, idempotent, safe to kill anywhere. Each reads
//! the store, makes one correction at a time and goes to sleep.

pub mod compile;
pub mod deploy;
pub mod dora;
pub mod health;
pub mod leases;
pub mod logs;
pub mod outbox;
pub mod refs;
pub mod retention;
pub mod serving;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::AppState;

/// Starts every task; they end when `shutdown` is cancelled.
pub fn start(state: &AppState, shutdown: &CancellationToken) -> TaskTracker {
    let tasks = TaskTracker::new();
    tasks.spawn(compile::run(state.clone(), shutdown.clone()));
    tasks.spawn(refs::run(state.clone(), shutdown.clone()));
    tasks.spawn(leases::run(state.clone(), shutdown.clone()));
    tasks.spawn(logs::run(state.clone(), shutdown.clone()));
    tasks.spawn(outbox::run(state.clone(), shutdown.clone()));
    tasks.spawn(deploy::run(state.clone(), shutdown.clone()));
    tasks.spawn(dora::run(state.clone(), shutdown.clone()));
    tasks.spawn(health::run(state.clone(), shutdown.clone()));
    tasks.spawn(retention::run(state.clone(), shutdown.clone()));
    tasks.spawn(serving::run(state.clone(), shutdown.clone()));
    tasks
}
