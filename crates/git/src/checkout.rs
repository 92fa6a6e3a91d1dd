//! A workspace of one commit, fetched over HTTP without its history.

use std::{fmt, path::Path, time::Duration};

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
/// `deadline` holds for the whole. Dropping the future ends git and everything that it started.
///
/// # Errors
/// When the server can't be reached or refuses, the commit isn't there, or the folder can't be
/// written to. The folder is then to be removed.
pub async fn checkout(
    url: &str,
    auth: &BasicAuth,
    sha: &Sha,
    dest: &Path,
    deadline: Duration,
) -> GitResult<()> {
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(GitError::Remote {
            remote: url.to_owned(),
            message: "not an HTTP address".into(),
        });
    }
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
            .direct_if(on_this_machine(url))
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

/// Whether an HTTP address is on this machine only. A proxy would ask its own loopback.
fn on_this_machine(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or(six),
        None => host.split(':').next().unwrap_or(host),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_a_name_that_begins_like_it() {
        for here in [
            "http://127.0.0.1:8470/git/x",
            "http://127.9.9.9",
            "http://[::1]:8470/git/x",
            "http://localhost/x",
            "http://user:pass@LocalHost:1/x",
        ] {
            assert!(on_this_machine(here), "{here}");
        }
        for there in [
            "https://ci.example.com/git/x",
            "http://127.0.0.1.example.com/",
            "http://localhost.example.com/",
            "http://127.0.0.1@example.com/",
            "http://[2001:db8::1]/",
        ] {
            assert!(!on_this_machine(there), "{there}");
        }
    }
}
