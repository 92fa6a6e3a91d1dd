//! The words of Pipeyard as types: ids, names, times, the compiled plan and the pure state machines.
//!
//! Everything here is data and arithmetic. There is no I/O, no async, no randomness that is not
//! passed in, and no clock but [`Clock`]: every transition takes `now` as an argument.

pub mod actor;
pub mod address;
pub mod admission;
pub mod branch;
pub mod codes;
pub mod credential;
pub mod deployment;
pub mod environment;
pub mod fleet;
pub mod id;
pub mod job;
pub mod jump;
pub mod lease;
pub mod log;
pub mod name;
pub mod net;
pub mod origin;
pub mod plan;
pub mod policy;
pub mod policy_codes;
pub mod run;
pub mod runner;
pub mod secret;
pub mod size;
pub mod status;
pub mod time;

pub use actor::{Actor, Who};
pub use branch::{BadBranchGlob, BranchGlob};
pub use id::*;
pub use name::{BadName, EnvironmentName, NodeName, RepoName, SecretName, ServiceName, UserName};
pub use policy::{Permission, Role};
pub use size::{BadSize, ByteSize};
pub use status::{Conclusion, Status};
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
