//! What a deployment brings: commits that were not deployed before, and the paths that a commit
//! changed.

use git2::{Commit, DiffOptions, Repository};
use globset::GlobSet;

use crate::{CommitInfo, GitError, GitResult, Mirror, Sha};

/// The most paths of one commit that are looked at.
const MAX_PATHS: usize = 50_000;

/// The commits that are reachable from a new one and from nothing that was deployed already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitRange {
    /// They are known.
    Known {
        /// Newest first; merges are among them, marked by their parents.
        commits: Vec<CommitInfo>,
        /// There are more than the limit.
        truncated: bool,
    },
    /// Commits that the answer depends on are not in the mirror, so there is no answer.
    Unknown {
        /// They.
        missing: Vec<Sha>,
    },
}

impl Mirror {
    /// Commits reachable from `new` and from none of `deployed`, newest first, at most `limit`. With
    /// `paths` only commits that changed a path of the set against their first parent; merges then
    /// count for what they changed themselves.
    ///
    /// # Errors
    /// When the mirror is damaged. Missing commits are an answer, not an error.
    pub async fn commit_range(
        &self,
        new: &Sha,
        deployed: &[Sha],
        limit: usize,
        paths: Option<GlobSet>,
    ) -> GitResult<CommitRange> {
        let (new, deployed) = (new.clone(), deployed.to_vec());
        self.read(move |repository| {
            let failed = |e: git2::Error| GitError::repository("walk the history", &e);
            let absent = |sha: &&Sha| repository.find_commit(sha.oid()).is_err();
            let missing: Vec<Sha> =
                std::iter::once(&new).chain(&deployed).filter(absent).cloned().collect();
            if !missing.is_empty() {
                return Ok(CommitRange::Unknown { missing });
            }
            let mut walk = repository.revwalk().map_err(failed)?;
            walk.set_sorting(git2::Sort::TOPOLOGICAL | git2::Sort::TIME).map_err(failed)?;
            walk.push(new.oid()).map_err(failed)?;
            for sha in &deployed {
                walk.hide(sha.oid()).map_err(failed)?;
            }
            let mut commits = Vec::new();
            for oid in walk {
                let commit = repository.find_commit(oid.map_err(failed)?).map_err(failed)?;
                let wanted = match &paths {
                    None => true,
                    Some(set) => {
                        changed(repository, &commit)?.iter().any(|path| set.is_match(path))
                    }
                };
                if wanted {
                    if commits.len() == limit {
                        return Ok(CommitRange::Known { commits, truncated: true });
                    }
                    commits.push(CommitInfo::of(&commit));
                }
            }
            Ok(CommitRange::Known { commits, truncated: false })
        })
        .await
    }

    /// The paths that a commit changed against its first parent, or all of a first commit's; at
    /// most 50,000.
    ///
    /// # Errors
    /// When the mirror doesn't have the commit.
    pub async fn changed_paths(&self, sha: &Sha) -> GitResult<Vec<String>> {
        let sha = sha.clone();
        self.read(move |repository| {
            let commit =
                repository.find_commit(sha.oid()).map_err(|_| GitError::NoCommit(sha.clone()))?;
            changed(repository, &commit)
        })
        .await
    }

    /// The newest commit that both have, if they share a history.
    ///
    /// # Errors
    /// When the mirror is damaged.
    pub async fn merge_base(&self, one: &Sha, other: &Sha) -> GitResult<Option<Sha>> {
        let (one, other) = (one.oid(), other.oid());
        self.read(move |repository| match repository.merge_base(one, other) {
            Ok(base) => Ok(Some(base.into())),
            Err(e) if e.code() == git2::ErrorCode::NotFound => Ok(None),
            Err(e) => Err(GitError::repository("find the common commit", &e)),
        })
        .await
    }
}

fn changed(repository: &Repository, commit: &Commit<'_>) -> GitResult<Vec<String>> {
    let failed = |e: git2::Error| GitError::repository("compare two commits", &e);
    let tree = commit.tree().map_err(failed)?;
    let before = match commit.parent(0) {
        Ok(parent) => Some(parent.tree().map_err(failed)?),
        Err(_) => None,
    };
    let mut options = DiffOptions::new();
    options.skip_binary_check(true).ignore_submodules(true);
    let diff = repository
        .diff_tree_to_tree(before.as_ref(), Some(&tree), Some(&mut options))
        .map_err(failed)?;
    let mut paths = Vec::new();
    for delta in diff.deltas().take(MAX_PATHS) {
        let path = delta.new_file().path_bytes().or(delta.old_file().path_bytes());
        if let Some(path) = path {
            paths.push(String::from_utf8_lossy(path).into_owned());
        }
    }
    Ok(paths)
}
