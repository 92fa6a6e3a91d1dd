//! The metrics over stories told by hand.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod errors_of_others;
mod properties;
