//! A mirror: a bare repository that follows a remote's branches.
//!
//! Branches are copied as they are, forced pushes and removals included. A commit that a run needs
//! is pinned by a ref of its own, `refs/pipeyard/<sha>`, so that it outlives them; a stranger's for a
//! while only, by `refs/pipeyard/strangers/<sha>`. Fetching, pinning
//! and maintenance write: one at a time for each mirror, which the owner sees to. Reading needs no
//! lock. A mirror whose writer was killed heals by the next fetch.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use git2::Repository;
use pipeyard_model::{Clock as _, SystemClock, Timestamp};

use crate::{
    Credentials, GitError, GitResult, RemoteUrl, Sha, branch_of, check_ref,
    child::{Git, Output},
};

/// For a fetch; a first one may be large.
const FETCH_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// For asking a remote for its refs.
const REFS_DEADLINE: Duration = Duration::from_secs(60);
/// For repacking.
const MAINTENANCE_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// The most that one fetch of a repository's branches brings.
const FETCH_BYTES: u64 = 32 << 30;
/// What git writes of a pack at a time, at most: so near to its limit comes a file.
const BUFFER: u64 = 16 * 1024;
/// The most that a remote's list of refs may have: over 300,000 of them.
const REFS_BYTES: usize = 32 * 1024 * 1024;
/// A lock file of this age belongs to a process that was killed: a living one holds it for moments.
const STALE_LOCK: Duration = Duration::from_secs(30);

/// A mirror on this machine.
#[derive(Debug, Clone)]
pub struct Mirror {
    path: PathBuf,
}

/// What a remote has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRefs {
    /// The branch that HEAD names, if the remote tells.
    pub default_branch: Option<String>,
    /// Branches by their full name, in the remote's order. Those with names that Pipeyard refuses
    /// are left out.
    pub branches: Vec<(String, Sha)>,
}

impl Mirror {
    /// The mirror in this folder, which is made if there is none.
    ///
    /// # Errors
    /// When the folder can't be made or holds something else.
    pub async fn open_or_init(path: impl Into<PathBuf>) -> GitResult<Self> {
        let mirror = Self { path: path.into() };
        let folder = mirror.path.clone();
        blocking(move || {
            if Repository::open_bare(&folder).is_ok() {
                return Ok(());
            }
            let mut options = git2::RepositoryInitOptions::new();
            options.bare(true).mkpath(true).external_template(false);
            Repository::init_opts(&folder, &options)
                .map(drop)
                .map_err(|e| GitError::repository("make the mirror", &e))
        })
        .await?;
        Ok(mirror)
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Brings every branch to the remote's state.
    ///
    /// # Errors
    /// When the remote can't be reached in time; the mirror is then as before.
    pub async fn fetch(&self, url: &RemoteUrl, credentials: Option<&Credentials>) -> GitResult<()> {
        let all = "+refs/heads/*:refs/heads/*";
        self.fetch_refspec(url, credentials, all, true, FETCH_BYTES).await
    }

    /// Fetches one commit that no branch may have. Nothing keeps it: see [`Self::pin`] and
    /// [`Self::pin_stranger`].
    ///
    /// # Errors
    /// When the remote can't be reached in time, no longer has the commit, or sends more than `limit`
    /// bytes.
    pub async fn fetch_commit(
        &self,
        url: &RemoteUrl,
        credentials: Option<&Credentials>,
        sha: &Sha,
        limit: u64,
    ) -> GitResult<()> {
        self.fetch_refspec(url, credentials, sha.as_str(), false, limit).await
    }

    async fn fetch_refspec(
        &self,
        url: &RemoteUrl,
        credentials: Option<&Credentials>,
        refspec: &str,
        prune: bool,
        limit: u64,
    ) -> GitResult<()> {
        let mut healed = false;
        loop {
            let mut git = Git::limited("fetch", FETCH_DEADLINE, limit)
                .args([
                    "--quiet",
                    "--no-tags",
                    "--no-write-fetch-head",
                    "--no-recurse-submodules",
                    "--no-auto-maintenance",
                ])
                .repository(&self.path)
                .remote(url, credentials);
            if prune {
                git = git.arg("--prune");
            }
            git = self.trust_local(git, url).await?;
            let output = git.arg("--end-of-options").arg(url.as_str()).arg(refspec).run().await?;
            if output.status.success() {
                return Ok(());
            }
            // A fetch that failed leaves what it had of a pack.
            let path = self.path.clone();
            let half = blocking(move || Ok(remove_half_packs(&path))).await?;
            if half.saturating_add(BUFFER) >= limit {
                return Err(GitError::FetchTooLarge { remote: url.to_string(), limit });
            }
            if !healed && output.stderr.contains(".lock") {
                healed = true;
                let path = self.path.clone();
                if blocking(move || Ok(remove_stale_locks(&path))).await? {
                    continue;
                }
            }
            return Err(remote_error(url, &output));
        }
    }

    /// Lets git read a folder of another user on this machine: an administrator named it. The
    /// process at the other end of the pipe reads no configuration but a file.
    async fn trust_local(&self, git: Git, url: &RemoteUrl) -> GitResult<Git> {
        let Some(remote) = url.local_path() else { return Ok(git) };
        let file = self.path.join("pipeyard-remote.config");
        let text = safe_directory(&remote);
        let written = file.clone();
        blocking(move || {
            std::fs::write(&written, text).map_err(|e| GitError::io("write to the mirror", e))
        })
        .await?;
        Ok(git.env("GIT_CONFIG_GLOBAL", file))
    }

    /// Its branches by their full names.
    ///
    /// # Errors
    /// When the mirror is damaged.
    pub async fn refs(&self) -> GitResult<Vec<(String, Sha)>> {
        self.read(|repository| {
            let failed = |e: git2::Error| GitError::repository("list the mirror's refs", &e);
            let mut refs = Vec::new();
            for reference in repository.references_glob("refs/heads/*").map_err(failed)? {
                let reference = reference.map_err(failed)?;
                if let (Ok(name), Some(id)) = (reference.name(), reference.target()) {
                    refs.push((name.to_owned(), Sha::from(id)));
                }
            }
            Ok(refs)
        })
        .await
    }

    /// The commit at a branch's tip.
    ///
    /// # Errors
    /// When the mirror is damaged.
    pub async fn branch(&self, name: &str) -> GitResult<Option<Sha>> {
        let name = format!("refs/heads/{name}");
        if check_ref(&name).is_err() {
            return Ok(None);
        }
        self.read(move |repository| match repository.find_reference(&name) {
            Ok(reference) => Ok(reference.target().map(Sha::from)),
            Err(e) if e.code() == git2::ErrorCode::NotFound => Ok(None),
            Err(e) => Err(GitError::repository("read the branch", &e)),
        })
        .await
    }

    /// Whether the commit can be reached from this branch, as the mirror has it.
    ///
    /// # Errors
    /// When the mirror is damaged.
    pub async fn branch_has(&self, branch: &str, sha: &Sha) -> GitResult<bool> {
        let Some(tip) = self.branch(branch).await? else { return Ok(false) };
        if tip == *sha {
            return Ok(true);
        }
        let (tip, sha) = (tip.oid(), sha.oid());
        self.read(move |repository| {
            if repository.find_commit(sha).is_err() {
                return Ok(false);
            }
            repository
                .graph_descendant_of(tip, sha)
                .map_err(|e| GitError::repository("walk the history", &e))
        })
        .await
    }

    /// The branches from which the commit can be reached, as the mirror has them; at most 1,000.
    ///
    /// # Errors
    /// When git fails or takes too long.
    pub async fn branches_with(&self, sha: &Sha) -> GitResult<Vec<String>> {
        if !self.has_commit(sha).await? {
            return Ok(Vec::new());
        }
        let output = Git::new("for-each-ref", REFS_DEADLINE)
            .args(["--format=%(refname)", "--count=1000"])
            .arg(format!("--contains={sha}"))
            .arg("refs/heads/")
            .repository(&self.path)
            .max_output(REFS_BYTES)
            .run()
            .await?;
        if !output.status.success() {
            return Err(GitError::Repository {
                what: "look for the commit's branches",
                message: output.stderr,
            });
        }
        let names = String::from_utf8_lossy(&output.stdout);
        Ok(names.lines().filter_map(branch_of).map(str::to_owned).collect())
    }

    /// Whether the mirror has the commit with its tree.
    ///
    /// # Errors
    /// When the mirror is damaged.
    pub async fn has_commit(&self, sha: &Sha) -> GitResult<bool> {
        let oid = sha.oid();
        self.read(move |repository| {
            Ok(repository.find_commit(oid).is_ok_and(|commit| commit.tree().is_ok()))
        })
        .await
    }

    /// Which of these commits the mirror has with their trees.
    ///
    /// # Errors
    /// When the mirror is damaged.
    pub async fn which_commits(&self, shas: HashSet<Sha>) -> GitResult<HashSet<Sha>> {
        self.read(move |repository| {
            let there = |sha: &Sha| {
                repository.find_commit(sha.oid()).is_ok_and(|commit| commit.tree().is_ok())
            };
            Ok(shas.into_iter().filter(there).collect())
        })
        .await
    }

    /// Keeps the commit whatever happens to its branch. A repeat changes nothing.
    ///
    /// # Errors
    /// When the mirror doesn't have the commit or can't be written to.
    pub async fn pin(&self, sha: &Sha) -> GitResult<()> {
        self.pin_as(pin_name(sha), sha).await
    }

    async fn pin_as(&self, name: String, sha: &Sha) -> GitResult<()> {
        let sha = sha.clone();
        self.read(move |repository| {
            let commit =
                repository.find_commit(sha.oid()).map_err(|_| GitError::NoCommit(sha.clone()))?;
            repository
                .reference(&name, commit.id(), true, "pin")
                .map(drop)
                .map_err(|e| GitError::repository("pin a commit", &e))
        })
        .await
    }

    /// Keeps a stranger's commit, until [`Self::unpin_stranger`].
    ///
    /// # Errors
    /// When the mirror doesn't have the commit or can't be written to.
    pub async fn pin_stranger(&self, sha: &Sha) -> GitResult<()> {
        self.pin_as(stranger_name(sha), sha).await
    }

    /// The strangers' commits that are kept.
    ///
    /// # Errors
    /// When the mirror is damaged.
    pub async fn strangers(&self) -> GitResult<Vec<Sha>> {
        self.read(|repository| {
            let failed = |e: git2::Error| GitError::repository("list the mirror's refs", &e);
            let mut pinned = Vec::new();
            for reference in repository.references_glob(&format!("{STRANGERS}*")).map_err(failed)? {
                pinned.extend(reference.map_err(failed)?.target().map(Sha::from));
            }
            Ok(pinned)
        })
        .await
    }

    /// Keeps a stranger's commit no longer.
    ///
    /// # Errors
    /// When the mirror can't be written to.
    pub async fn unpin_stranger(&self, sha: &Sha) -> GitResult<()> {
        let name = stranger_name(sha);
        self.read(move |repository| match repository.find_reference(&name) {
            Ok(mut reference) => {
                reference.delete().map_err(|e| GitError::repository("unpin a commit", &e))
            }
            Err(_) => Ok(()),
        })
        .await
    }

    /// Repacks, if there is enough to gain, and forgets unpinned commits that were unreachable for
    /// two weeks. Cheap when there is nothing to do.
    ///
    /// # Errors
    /// When git fails or takes longer than half an hour.
    pub async fn maintain(&self) -> GitResult<()> {
        let output = Git::new("gc", MAINTENANCE_DEADLINE)
            .args(["--auto", "--quiet"])
            .config("gc.auto", "2000")
            .config("gc.autoPackLimit", "30")
            .config("gc.autoDetach", "false")
            .repository(&self.path)
            .run()
            .await?;
        if output.status.success() {
            Ok(())
        } else {
            Err(GitError::Repository { what: "repack the mirror", message: output.stderr })
        }
    }

    /// Runs `work` on a thread of its own with the repository open.
    pub(crate) async fn read<T, F>(&self, work: F) -> GitResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Repository) -> GitResult<T> + Send + 'static,
    {
        let path = self.path.clone();
        blocking(move || {
            let repository = Repository::open_bare(&path)
                .map_err(|e| GitError::repository("open the mirror", &e))?;
            work(&repository)
        })
        .await
    }
}

/// Asks a remote for its branches and its default branch, without fetching anything.
///
/// # Errors
/// When the remote can't be reached in a minute, or has more refs than 32 MiB of text.
pub async fn remote_refs(
    url: &RemoteUrl,
    credentials: Option<&Credentials>,
) -> GitResult<RemoteRefs> {
    let mut git = Git::new("ls-remote", REFS_DEADLINE)
        .args(["--quiet", "--symref"])
        .remote(url, credentials)
        .max_output(REFS_BYTES);
    let trust = match url.local_path() {
        Some(path) => Some(trust_file(&path).await?),
        None => None,
    };
    if let Some(file) = &trust {
        git = git.env("GIT_CONFIG_GLOBAL", file.path());
    }
    let output = git.args(["--end-of-options", url.as_str(), "HEAD", "refs/heads/*"]).run().await?;
    if !output.status.success() {
        return Err(remote_error(url, &output));
    }
    let mut refs = parse_refs(&output.stdout);
    if let (None, Some(path)) = (&refs.default_branch, url.local_path()) {
        // An empty repository tells nobody the branch that its first push should go to.
        let head = Git::new("symbolic-ref", REFS_DEADLINE)
            .arg("HEAD")
            .current_dir(&path)
            .trust(&path)
            .run()
            .await?;
        let name = String::from_utf8_lossy(&head.stdout);
        refs.default_branch =
            branch_of(name.trim()).filter(|_| head.status.success()).map(str::to_owned);
    }
    Ok(refs)
}

fn parse_refs(stdout: &[u8]) -> RemoteRefs {
    let mut refs = RemoteRefs { default_branch: None, branches: Vec::new() };
    for line in String::from_utf8_lossy(stdout).lines() {
        let Some((left, name)) = line.split_once('\t') else { continue };
        if let (Some(target), "HEAD") = (left.strip_prefix("ref: "), name) {
            if check_ref(target).is_ok() {
                refs.default_branch = branch_of(target).map(str::to_owned);
            }
        } else if let (Ok(sha), Some(_), Ok(())) = (left.parse(), branch_of(name), check_ref(name))
        {
            refs.branches.push((name.to_owned(), sha));
        }
    }
    refs
}

/// A file that lets the process at the other end read one folder of another user.
async fn trust_file(remote: &Path) -> GitResult<TemporaryFile> {
    let text = safe_directory(remote);
    blocking(move || {
        TemporaryFile::new(&text).map_err(|e| GitError::io("write a temporary file", e))
    })
    .await
}

fn safe_directory(remote: &Path) -> String {
    let quote = |path: &Path| path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    let mut text = format!("[safe]\n\tdirectory = \"{}\"\n", quote(remote));
    // A work tree is named by its folder, its repository lies inside.
    text.push_str(&format!("\tdirectory = \"{}\"\n", quote(&remote.join(".git"))));
    text
}

/// Removed when dropped.
#[derive(Debug)]
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(text: &str) -> std::io::Result<Self> {
        use std::{
            io::Write as _,
            sync::atomic::{AtomicU64, Ordering},
        };
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path =
                std::env::temp_dir().join(format!("pipeyard-git-{}-{n}", std::process::id()));
            match std::fs::File::create_new(&path) {
                Ok(mut file) => {
                    file.write_all(text.as_bytes())?;
                    return Ok(Self(path));
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Removes packs that a fetch didn't finish; answers the size of the largest. One that reaches the limit
/// on files ended its fetch, whatever git says. Only while nobody else writes to the mirror.
fn remove_half_packs(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path.join("objects/pack")) else { return 0 };
    let mut largest = 0;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with("tmp_") {
            largest = largest.max(entry.metadata().map_or(0, |data| data.len()));
            let _ = std::fs::remove_file(entry.path());
        }
    }
    largest
}

/// What is said of a remote that can't be had. Git's and curl's own words tell of addresses and ports
/// behind the server: they go into the log, and a person gets one of these sentences.
fn remote_error(url: &RemoteUrl, output: &Output) -> GitError {
    tracing::warn!(remote = %url, status = %output.status, said = output.stderr, "a remote can't be had");
    GitError::Remote { remote: url.to_string(), message: remote_words(&output.stderr).to_owned() }
}

fn remote_words(stderr: &str) -> &'static str {
    let said = |words: &[&str]| words.iter().any(|words| stderr.contains(words));
    // Redirects aren't followed: the credentials would go with them, and the rule on addresses not.
    if said(&["error: 301", "error: 302", "error: 307", "error: 308"]) {
        "the repository has moved: add it again by its new address"
    } else if said(&["Could not resolve", "Name or service not known", "not known"]) {
        "its host has no address"
    } else if said(&["Host key verification failed"]) {
        "the host's SSH key isn't known to the server: add it to the server's known_hosts"
    } else if said(&[
        "Authentication failed",
        "could not read Username",
        "could not read Password",
        "error: 401",
        "error: 403",
        "Permission denied",
    ]) {
        "it refuses these credentials, or asks for some"
    } else if said(&["not our ref", "couldn't find remote ref", "no such remote ref"]) {
        "it doesn't have that commit"
    } else if said(&[
        "not found",
        "error: 404",
        "does not appear to be a git repository",
        "does not exist",
        "No such file or directory",
        "not a git repository",
    ]) {
        "there is no repository, or these credentials don't show it"
    } else if said(&["SSL", "certificate", "TLS"]) {
        "its TLS certificate isn't trusted, or it doesn't speak TLS"
    } else if said(&[
        "Failed to connect",
        "Couldn't connect",
        "Connection",
        "timed out",
        "unreachable",
    ]) {
        "nothing answers there"
    } else {
        "what answers there isn't a repository that git can read"
    }
}

fn pin_name(sha: &Sha) -> String {
    format!("refs/pipeyard/{sha}")
}

/// Where strangers' commits are kept: apart from the others, because they aren't kept for ever.
const STRANGERS: &str = "refs/pipeyard/strangers/";

fn stranger_name(sha: &Sha) -> String {
    format!("{STRANGERS}{sha}")
}

/// Removes lock files that a killed writer left; tells whether there were any.
fn remove_stale_locks(path: &Path) -> bool {
    let mut removed = false;
    let mut folders = vec![path.join("refs")];
    let mut files: Vec<PathBuf> = ["packed-refs.lock", "HEAD.lock", "config.lock", "shallow.lock"]
        .map(|name| path.join(name))
        .to_vec();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) if entry.path().extension().is_some_and(|e| e == "lock") => {
                    files.push(entry.path());
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    for file in files {
        let written = file.metadata().and_then(|m| m.modified()).ok();
        let micros = written.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map(|d| d.as_micros());
        let age = micros
            .and_then(|m| i64::try_from(m).ok())
            .map(|m| SystemClock.now().since(Timestamp(m)));
        if age.is_some_and(|age| age >= STALE_LOCK) && std::fs::remove_file(&file).is_ok() {
            tracing::warn!(file = %file.display(), "removed a lock that a killed git left");
            removed = true;
        }
    }
    removed
}

/// Runs blocking work on a thread of its own.
pub(crate) async fn blocking<T, F>(work: F) -> GitResult<T>
where
    T: Send + 'static,
    F: FnOnce() -> GitResult<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(e) => Err(GitError::Repository { what: "finish the work", message: e.to_string() }),
    }
}
