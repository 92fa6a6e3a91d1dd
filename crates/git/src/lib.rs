//! Git: mirrors, commit ranges, checkouts.
//!
//! Objects are read with libgit2 behind `spawn_blocking`. The network belongs to a `git` child
//! process, which brings credentials, proxies and SSH with it; the child gets an environment made
//! from nothing, only the protocols that the remote was added with, no configuration but ours, a
//! deadline and a cap on its output. No text from outside becomes an option: URLs are parsed by
//! [`RemoteUrl`], commits by [`Sha`], names of refs are never arguments.
//!
//! Absent on purpose: pushing, submodules, LFS, hooks. There is no lock here; a mirror wants one
//! writer at a time, which its owner sees to.

mod checkout;
mod child;
mod error;
mod history;
mod mirror;
mod objects;
mod refname;
mod serve;
mod sha;
mod url;

pub use checkout::{BasicAuth, checkout};
pub use error::{GitError, GitResult};
pub use history::CommitRange;
pub use mirror::{Mirror, RemoteRefs, remote_refs};
pub use objects::{CommitInfo, Entry};
pub use refname::{BadRef, branch_of, check_ref};
pub use serve::{UploadPack, upload_pack};
pub use sha::{BadSha, Sha};
pub use url::{BadUrl, Credentials, RemoteKind, RemoteUrl};
