//! A workspace of one commit, fetched over HTTP without its history.

use std::{fmt, path::Path, time::Duration};

use pipeyard_model::address::CredentialUrl;

use crate::{GitError, GitResult, Sha, child::Git};

/// User and password of an HTTP request. They reach git by its environment only.
#[derive(Clone)]
pub struct BasicAuth {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BasicAuth(..)")
    }
}

/// Checks the commit out into `dest`, a folder that is empty or absent: a repository with this one
/// commit, detached. Nothing of the credentials stays there. No hook, filter or submodule of the
/// repository is run; links inside are created as they are, so whoever reads the folder afterwards
/// must not follow them.
///
/// `ca_file` holds authorities that are believed besides the system's. `deadline` holds for the whole. Dropping the future ends git and everything that it started.
///
/// # Errors
/// When the server can't be reached or refuses, the commit isn't there, or the folder can't be
/// written to. The folder is then to be removed.
pub async fn checkout(
    url: &str,
    auth: &BasicAuth,
    sha: &Sha,
    dest: &Path,
    ca_file: Option<&Path>,
    deadline: Duration,
) -> GitResult<()> {
    let remote = CredentialUrl::parse(url)
        .map_err(|error| GitError::Remote { remote: url.to_owned(), message: error.to_string() })?;
    let work = async {
        tokio::fs::create_dir_all(dest)
            .await
            .map_err(|e| GitError::io(format!("make {}", dest.display()), e))?;
        let init = Git::new("init", deadline)
            .args(["--quiet", "--template=", "--initial-branch=main"])
            .current_dir(dest)
            .run()
            .await?;
        if !init.status.success() {
            return Err(GitError::Repository { what: "make the workspace", message: init.stderr });
        }
        let fetch = Git::new("fetch", deadline)
            .args([
                "--quiet",
                "--no-tags",
                "--depth=1",
                "--no-write-fetch-head",
                "--no-recurse-submodules",
            ])
            .protocols("http:https")
            .direct_if(remote.is_loopback())
            .believe(ca_file)
            .basic_auth(&auth.user, &auth.password)
            .current_dir(dest)
            .trust(dest)
            .args(["--end-of-options", url, sha.as_str()])
            .run()
            .await?;
        if !fetch.status.success() {
            return Err(GitError::Remote { remote: url.to_owned(), message: fetch.stderr });
        }
        let checkout = Git::for_others("checkout", deadline)
            .args(["--quiet", "--force", "--detach", sha.as_str(), "--"])
            .current_dir(dest)
            .trust(dest)
            .run()
            .await?;
        if !checkout.status.success() {
            return Err(GitError::Repository {
                what: "check out the commit",
                message: checkout.stderr,
            });
        }
        Ok(())
    };
    tokio::time::timeout(deadline, work)
        .await
        .unwrap_or(Err(GitError::TimedOut { what: "checkout", seconds: deadline.as_secs() }))
}
