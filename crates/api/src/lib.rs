//! What crosses the wire: the user API, the runner protocol, the error codes, and the HTTP client
//! over them. The server, the runner, `pipectl` and the web UI speak these types and no others.
//!
//! JSON throughout, times as RFC 3339 text in UTC. Additive changes only: a reader ignores fields
//! that it doesn't know. There is no business rule here.

pub mod client;
pub mod damage;
pub mod deploys;
pub mod error;
pub mod homes;
pub mod hooks;
pub mod runner;
pub mod test_report;
pub mod views;

pub use error::{ApiError, ErrorBody};
