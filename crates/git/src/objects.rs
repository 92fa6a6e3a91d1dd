//! Reading files, folders and commits of a mirror.

use git2::{Commit, ObjectType, Repository};
use pipeyard_model::Timestamp;

use crate::{GitError, GitResult, Mirror, Sha};

/// The most that is kept of a title or a name.
const TEXT_BYTES: usize = 400;

/// What a commit says of itself. Names and times are its author's claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its name.
    pub sha: Sha,
    /// First line of its message.
    pub title: String,
    /// Its author's name.
    pub author_name: String,
    /// Its author's address.
    pub author_email: String,
    /// When it was written.
    pub authored_at: Timestamp,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// Its parents; two or more for a merge.
    pub parents: Vec<Sha>,
}

impl CommitInfo {
    /// Whether it joins histories.
    #[must_use]
    pub fn is_merge(&self) -> bool {
        self.parents.len() > 1
    }

    pub(crate) fn of(commit: &Commit<'_>) -> Self {
        let (author, committer) = (commit.author(), commit.committer());
        Self {
            sha: commit.id().into(),
            title: text(commit.summary_bytes().unwrap_or_default()),
            author_name: text(author.name_bytes()),
            author_email: text(author.email_bytes()),
            authored_at: time(author.when()),
            committed_at: time(committer.when()),
            parents: commit.parent_ids().map(Sha::from).collect(),
        }
    }
}

/// One thing in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without the folder.
    pub name: String,
    /// Whether it is a regular file; links, folders and submodules are not.
    pub file: bool,
}

/// One line, without control characters, of bounded length.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut kept = String::new();
    for c in text.trim().chars() {
        let c = if c.is_control() { ' ' } else { c };
        if kept.len() + c.len_utf8() > TEXT_BYTES {
            kept.push('…');
            break;
        }
        kept.push(c);
    }
    kept
}

/// A commit can claim any time; beyond the year 9999 it is cut.
fn time(time: git2::Time) -> Timestamp {
    Timestamp::from_seconds(time.seconds().clamp(-62_135_596_800, 253_402_300_799))
}

fn commit<'r>(repository: &'r Repository, sha: &Sha) -> GitResult<Commit<'r>> {
    repository.find_commit(sha.oid()).map_err(|_| GitError::NoCommit(sha.clone()))
}

impl Mirror {
    /// What the commit says of itself.
    ///
    /// # Errors
    /// When the mirror doesn't have it.
    pub async fn commit_info(&self, sha: &Sha) -> GitResult<CommitInfo> {
        let sha = sha.clone();
        self.read(move |repository| Ok(CommitInfo::of(&commit(repository, &sha)?))).await
    }

    /// A regular file's bytes at a commit; `None` if there is no such file (a link is none).
    ///
    /// # Errors
    /// When the mirror doesn't have the commit, or the file is larger than `max_bytes`: then it is
    /// not read at all.
    pub async fn read_file(
        &self,
        sha: &Sha,
        path: &str,
        max_bytes: usize,
    ) -> GitResult<Option<Vec<u8>>> {
        let (sha, path) = (sha.clone(), path.to_owned());
        self.read(move |repository| {
            let failed = |e: git2::Error| GitError::repository("read a file of the mirror", &e);
            let tree = commit(repository, &sha)?.tree().map_err(failed)?;
            let entry = match tree.get_path(std::path::Path::new(&path)) {
                Ok(entry) => entry,
                Err(e) if e.code() == git2::ErrorCode::NotFound => return Ok(None),
                Err(e) => return Err(failed(e)),
            };
            if !is_file(entry.kind(), entry.filemode()) {
                return Ok(None);
            }
            let odb = repository.odb().map_err(failed)?;
            let (size, _) = odb.read_header(entry.id()).map_err(failed)?;
            if size > max_bytes {
                return Err(GitError::TooLarge { what: path, limit: max_bytes });
            }
            Ok(Some(repository.find_blob(entry.id()).map_err(failed)?.content().to_vec()))
        })
        .await
    }

    /// What a folder holds at a commit, by name; `None` if there is no such folder. Names that
    /// aren't UTF-8 are left out.
    ///
    /// # Errors
    /// When the mirror doesn't have the commit.
    pub async fn list_dir(&self, sha: &Sha, path: &str) -> GitResult<Option<Vec<Entry>>> {
        let (sha, path) = (sha.clone(), path.to_owned());
        self.read(move |repository| {
            let failed = |e: git2::Error| GitError::repository("read a folder of the mirror", &e);
            let tree = commit(repository, &sha)?.tree().map_err(failed)?;
            let entry = match tree.get_path(std::path::Path::new(&path)) {
                Ok(entry) if entry.kind() == Some(ObjectType::Tree) => entry,
                Ok(_) => return Ok(None),
                Err(e) if e.code() == git2::ErrorCode::NotFound => return Ok(None),
                Err(e) => return Err(failed(e)),
            };
            let folder = repository.find_tree(entry.id()).map_err(failed)?;
            let entries = folder.iter().filter_map(|entry| {
                let file = is_file(entry.kind(), entry.filemode());
                entry.name().ok().map(|name| Entry { name: name.to_owned(), file })
            });
            Ok(Some(entries.collect()))
        })
        .await
    }
}

/// A regular file, executable or not; not a symbolic link.
fn is_file(kind: Option<ObjectType>, mode: i32) -> bool {
    kind == Some(ObjectType::Blob) && mode != 0o120_000
}
