//! From a push to its runs and its checkout: real repositories made with git, a real database, the
//! server's own routes.

#![expect(clippy::unwrap_used, reason = "helpers of tests count as tests")]

mod checkout;
mod examples;
mod files;
mod hooks;
mod pulls;
mod pushes;
mod repository;
mod start;
mod world;
