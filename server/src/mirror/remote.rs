//! From a repository's row to its mirror: opening its credentials, fetching, pinning.

use pipeyard_git::{BadUrl, Credentials, GitError, Mirror, RemoteRefs, RemoteUrl, Sha};
use pipeyard_model::RepoId;
use pipeyard_store::repos::Repo;

use crate::{
    AppState,
    outgoing::address::{Refused, check_remote},
    seal::Seal,
};

/// Why a repository's history can't be had.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Git's own problem.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The address in the database isn't one any more.
    #[error(transparent)]
    Url(#[from] BadUrl),
    /// It may not be dialed.
    #[error(transparent)]
    Address(#[from] Refused),
    /// Another master key sealed its credentials.
    #[error(
        "the repository's credentials can't be opened with this installation's key; add it again"
    )]
    Credentials,
}

impl MirrorError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Git(error) => error.code(),
            Self::Url(_) => "remote_invalid",
            Self::Address(refused) => refused.code(),
            Self::Credentials => "credentials_unreadable",
        }
    }
}

/// What a webhook's secret is sealed for.
#[must_use]
pub fn hook_secret_purpose(repo: RepoId) -> String {
    format!("hook secret:{repo}")
}

fn credentials_purpose(repo: RepoId) -> String {
    format!("repository credentials:{repo}")
}

/// Seals the credentials that a repository is fetched with.
#[must_use]
pub fn seal_credentials(seal: &Seal, repo: RepoId, credentials: &Credentials) -> Vec<u8> {
    // A user holds no colon, which `RemoteUrl` sees to.
    let plain = format!("{}:{}", credentials.user, credentials.password);
    seal.seal(&credentials_purpose(repo), plain.as_bytes())
}

async fn remote(
    state: &AppState,
    repo: &Repo,
) -> Result<(RemoteUrl, Option<Credentials>), MirrorError> {
    let (url, _) = RemoteUrl::parse(&repo.url)?;
    // At every fetch: a name may lead elsewhere by now.
    let url = check_remote(&state.config, url, true).await?;
    let Some(sealed) = &repo.credentials else { return Ok((url, None)) };
    let plain = state
        .seal
        .unseal(&credentials_purpose(repo.id), sealed)
        .map_err(|_| MirrorError::Credentials)?;
    let plain = String::from_utf8(plain).map_err(|_| MirrorError::Credentials)?;
    let (user, password) = plain.split_once(':').ok_or(MirrorError::Credentials)?;
    Ok((url, Some(Credentials { user: user.to_owned(), password: password.to_owned() })))
}

/// Asks the remote for its branches, without fetching anything.
///
/// # Errors
/// When it can't be reached.
pub async fn remote_refs(state: &AppState, repo: &Repo) -> Result<RemoteRefs, MirrorError> {
    let (url, credentials) = remote(state, repo).await?;
    Ok(pipeyard_git::remote_refs(&url, credentials.as_ref()).await?)
}

/// The mirror as it is, made if there is none yet.
///
/// # Errors
/// When it can't be made.
pub async fn open(state: &AppState, repo: RepoId) -> Result<Mirror, MirrorError> {
    Ok(Mirror::open_or_init(state.mirrors.path(repo)).await?)
}

/// Brings the mirror to the remote's state.
///
/// # Errors
/// When the remote can't be reached.
pub async fn fetch(state: &AppState, repo: &Repo) -> Result<Mirror, MirrorError> {
    let (url, credentials) = remote(state, repo).await?;
    let _only_writer = state.mirrors.write_lock(repo.id).await;
    let mirror = open(state, repo.id).await?;
    mirror.fetch(&url, credentials.as_ref()).await?;
    Ok(mirror)
}

/// Brings one commit into the mirror that none of the remote's branches has. Nothing keeps it there.
///
/// # Errors
/// When the remote can't be reached. [`GitError::NoCommit`] when it can and doesn't have it.
pub async fn ask_for(state: &AppState, repo: &Repo, sha: &Sha) -> Result<(), MirrorError> {
    let mirror = open(state, repo.id).await?;
    if mirror.has_commit(sha).await? {
        return Ok(());
    }
    let (url, credentials) = remote(state, repo).await?;
    let _only_writer = state.mirrors.write_lock(repo.id).await;
    let limit = state.config.max_stranger_bytes;
    match mirror.fetch_commit(&url, credentials.as_ref(), sha, limit).await {
        Ok(()) => Ok(()),
        Err(GitError::Remote { .. }) => Err(GitError::NoCommit(sha.clone()).into()),
        Err(other) => Err(other.into()),
    }
}

/// Brings a stranger's commit into the mirror, now that a person has approved its run, and keeps it
/// while the run is of interest.
///
/// # Errors
/// When the remote can't be reached or doesn't have the commit.
pub async fn admit(state: &AppState, repo: &Repo, sha: &Sha) -> Result<(), MirrorError> {
    ask_for(state, repo, sha).await?;
    Ok(open(state, repo.id).await?.pin_stranger(sha).await?)
}
