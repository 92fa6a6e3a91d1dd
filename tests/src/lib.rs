//! What scenarios share: a whole installation of the real binaries in a folder of its own, whose
//! parts can be killed one by one.
//!
//! Nothing here looks into the database: scenarios compare what Pipeyard says with what can be
//! known from outside, Git refs, Docker labels, ledgers that steps left.

pub mod installation;
pub mod repo;
pub mod site;
pub mod users;
pub mod wait;

pub use installation::{Installation, Options};
pub use pipeyard_needs::docker;
pub use repo::TestRepo;
pub use site::Site;
pub use users::Users;
pub use wait::until;
