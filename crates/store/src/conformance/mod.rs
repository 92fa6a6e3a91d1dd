//! The suite that every database passes: one module by aggregate, one function by promise. Each
//! store crate calls every function with a fresh, empty store and the clock that it was opened with.
//!
//! The functions panic when a promise is broken; their names say which.

#![expect(clippy::unwrap_used, reason = "a broken promise ends the test")]

mod make;

pub mod age;
pub mod claims;
pub mod deploys;
pub mod ends;
pub mod intake;
pub mod kept;
pub mod people;
pub mod places;
pub mod rollouts;
pub mod runners;
pub mod runs;
pub mod secrets;
pub mod sums;
pub mod tests;
pub mod told;

pub use make::{Made, deploy, job, need, new_deployment, one_job, places, plan, runner, setup};
