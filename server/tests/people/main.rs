//! What people and programs see of the server, through its router and a real database.

#![expect(clippy::unwrap_used, reason = "a test may end by a panic")]

mod access;
mod artifacts;
mod audit;
mod auth;
mod damage;
mod documented;
mod events;
mod keys;
mod logs;
mod outbox;
mod retention;
mod runners;
mod runs;
mod secrets;
mod stalled;
mod support;
mod tests;
mod ui;
