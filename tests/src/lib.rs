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
pub use repo::TestRepo;
pub use site::Site;
pub use users::Users;
pub use wait::until;

/// Whether a test that needs Docker can run. Without Docker it says its name and skips; on CI it
/// fails.
#[must_use]
pub fn docker(test: &str) -> bool {
    let answers = std::process::Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !answers {
        assert!(std::env::var_os("CI").is_none(), "{test} needs Docker, and no daemon answers");
        eprintln!("SKIPPED {test}: it needs Docker, and no daemon answers");
    }
    answers
}
