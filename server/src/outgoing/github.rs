//! Commit statuses at GitHub.

use pipeyard_model::{RepoId, address::CredentialUrl};
use pipeyard_store::outbox::CommitState;
use serde_json::json;

use super::{Undelivered, broken, client, judge};
use crate::{AppState, http::secrets::forge_token_purpose};

/// A run's or a deployment's state, on its commit.
pub(super) struct Status<'a> {
    pub(super) repo: RepoId,
    /// The page that the status leads to, from `/`.
    pub(super) page: String,
    pub(super) commit: &'a str,
    /// What the status is told by; another one of the same commit stands beside it.
    pub(super) context: String,
    pub(super) state: CommitState,
    pub(super) description: &'a str,
}

/// `owner/name` of a repository by the address that it is fetched from, over https or ssh.
#[must_use]
pub fn repository(url: &str) -> Option<String> {
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?.1,
        // git@github.com:owner/name.git
        None => url.split_once(':')?.1,
    };
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let (owner, name) = path.split_once('/')?;
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    (plain(owner) && plain(name)).then(|| format!("{owner}/{name}"))
}

pub(super) async fn send(state: &AppState, status: &Status<'_>) -> Result<(), Undelivered> {
    let later = |error: pipeyard_store::StoreError| Undelivered::Later(error.to_string(), None);
    let never = |problem: &str| Undelivered::Never(problem.to_owned());
    let repo = state.store.repo(status.repo).await.map_err(later)?;
    let repo = repo.ok_or_else(|| never("the repository was removed"))?;
    let slug = repository(&repo.url)
        .ok_or_else(|| never("the repository's address names no owner/name"))?;
    let sealed = state.store.forge_token(status.repo).await.map_err(later)?;
    let sealed = sealed.ok_or_else(|| never("the repository's forge token was removed"))?;
    let token = state
        .seal
        .unseal(&forge_token_purpose(status.repo), &sealed)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| never("the repository's forge token can't be opened; set it again"))?;
    let word = match status.state {
        CommitState::Pending => "pending",
        CommitState::Success => "success",
        CommitState::Failure => "failure",
        CommitState::Error => "error",
    };
    let base = CredentialUrl::parse(&state.config.github_api)
        .map_err(|error| never(&format!("github_api: {error}")))?
        .base();
    let body = json!({
        "state": word,
        "target_url": format!("{}{}", state.config.url(), status.page),
        "description": status.description,
        "context": status.context,
    });
    let client = client().build().map_err(|error| broken(&error))?;
    let response = client
        .post(format!("{base}/repos/{slug}/statuses/{}", status.commit))
        .bearer_auth(token)
        .header("accept", "application/vnd.github+json")
        .header("x-github-api-version", "2022-11-28")
        .json(&body)
        .send()
        .await
        .map_err(|error| broken(&error))?;
    judge(&response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_known_by_any_of_its_addresses() {
        for url in [
            "https://github.com/acme/shop.git",
            "https://github.com/acme/shop",
            "ssh://git@github.com:22/acme/shop.git",
            "git@github.com:acme/shop.git",
        ] {
            assert_eq!(repository(url).as_deref(), Some("acme/shop"), "{url}");
        }
        for bad in [
            "/srv/git/shop.git",
            "https://github.com/shop",
            "https://github.com/a/../x",
            "git@h:a/b?c",
        ] {
            assert_eq!(repository(bad), None, "{bad}");
        }
    }
}
