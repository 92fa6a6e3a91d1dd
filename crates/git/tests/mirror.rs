//! Mirrors of real repositories, made and changed with git itself.

#![expect(clippy::unwrap_used, reason = "a helper that fails must fail its test")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use pipeyard_git::{CommitRange, GitError, Mirror, RemoteUrl, Sha, remote_refs};
use tempfile::TempDir;

/// A work tree with commits at fixed times.
struct Work {
    dir: TempDir,
    clock: std::cell::Cell<i64>,
}

impl Work {
    fn new() -> Self {
        let work =
            Self { dir: tempfile::tempdir().unwrap(), clock: std::cell::Cell::new(1_700_000_000) };
        work.git(&["init", "--quiet", "--initial-branch=main"]);
        work
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn git(&self, args: &[&str]) -> String {
        self.clock.set(self.clock.get() + 60);
        let date = format!("{} +0000", self.clock.get());
        let output = Command::new("git")
            .args([
                "-c",
                "user.name=Ann",
                "-c",
                "user.email=ann@example.org",
                "-c",
                "commit.gpgSign=false",
            ])
            .args(args)
            .current_dir(self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_DATE", &date)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, file: &str, text: &str) -> Sha {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self.git(&["add", "--all"]);
        self.git(&[
            "commit",
            "--quiet",
            "--allow-empty",
            "-m",
            &format!("Change {file}\n\nBecause."),
        ]);
        self.head()
    }

    fn head(&self) -> Sha {
        self.git(&["rev-parse", "HEAD"]).parse().unwrap()
    }

    fn url(&self) -> RemoteUrl {
        RemoteUrl::parse(self.path().to_str().unwrap()).unwrap().0
    }
}

async fn mirror(dir: &TempDir) -> Mirror {
    Mirror::open_or_init(dir.path().join("m.git")).await.unwrap()
}

#[tokio::test]
async fn a_mirror_follows_branches_forced_pushes_and_removals() {
    let (work, dir) = (Work::new(), tempfile::tempdir().unwrap());
    let first = work.commit("a", "1");
    work.git(&["branch", "topic"]);
    let mirror = mirror(&dir).await;
    mirror.fetch(&work.url(), None).await.unwrap();
    let names =
        |refs: Vec<(String, Sha)>| refs.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(mirror.refs().await.unwrap()), ["refs/heads/main", "refs/heads/topic"]);

    let lost = work.commit("a", "2");
    mirror.fetch(&work.url(), None).await.unwrap();
    mirror.pin(&lost).await.unwrap();
    work.git(&["reset", "--quiet", "--hard", first.as_str()]);
    let forced = work.commit("a", "3");
    work.git(&["branch", "-D", "topic"]);
    mirror.fetch(&work.url(), None).await.unwrap();
    assert_eq!(mirror.refs().await.unwrap(), [("refs/heads/main".to_owned(), forced.clone())]);
    assert_eq!(mirror.branch("main").await.unwrap(), Some(forced));
    assert_eq!(mirror.branch("topic").await.unwrap(), None);

    // The commit that the forced push removed is pinned: even a thorough clean-up keeps it.
    let path = mirror.path().to_owned();
    let gc = Command::new("git")
        .arg("-C")
        .arg(&path)
        .args(["gc", "--quiet", "--prune=now"])
        .status()
        .unwrap();
    assert!(gc.success());
    assert!(mirror.has_commit(&lost).await.unwrap());
    mirror.maintain().await.unwrap();
}

#[tokio::test]
async fn a_commit_that_no_branch_has_is_fetched_by_its_name() {
    let (work, dir) = (Work::new(), tempfile::tempdir().unwrap());
    let first = work.commit("a", "1");
    let orphan = work.commit("a", "2");
    work.git(&["reset", "--quiet", "--hard", first.as_str()]);
    let mirror = mirror(&dir).await;
    mirror.fetch(&work.url(), None).await.unwrap();
    assert!(!mirror.has_commit(&orphan).await.unwrap());
    mirror.fetch_commit(&work.url(), None, &orphan, 1 << 30).await.unwrap();
    assert!(mirror.has_commit(&orphan).await.unwrap());
    let never: Sha = "1111111111111111111111111111111111111111".parse().unwrap();
    let error = mirror.fetch_commit(&work.url(), None, &never, 1 << 30).await.unwrap_err();
    assert_eq!(error.code(), "remote_unreachable");
}

#[tokio::test]
async fn a_remote_tells_its_branches_and_its_default_branch_even_when_it_is_empty() {
    let work = Work::new();
    work.git(&["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    let empty = remote_refs(&work.url(), None).await.unwrap();
    assert_eq!((empty.default_branch.as_deref(), empty.branches.len()), (Some("trunk"), 0));
    let sha = work.commit("a", "1");
    // Git itself allows this name; nothing that Pipeyard starts may read it as an option.
    work.git(&[
        "update-ref",
        "refs/heads/--upload-pack=touch pwned".replace(' ', "_").as_str(),
        sha.as_str(),
    ]);
    let refs = remote_refs(&work.url(), None).await.unwrap();
    assert_eq!(refs.default_branch.as_deref(), Some("trunk"));
    assert_eq!(refs.branches, [("refs/heads/trunk".to_owned(), sha)]);
    let dir = tempfile::tempdir().unwrap();
    mirror(&dir).await.fetch(&work.url(), None).await.unwrap();
    assert!(!work.path().join("pwned").exists());
}

#[tokio::test]
async fn a_remote_that_is_not_there_is_named_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let url = RemoteUrl::parse("/nonexistent/shop.git").unwrap().0;
    let error = mirror(&dir).await.fetch(&url, None).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent/shop.git"), "{error}");
    assert!(error.to_string().contains("there is no repository"), "{error}");
    assert!(!error.to_string().contains("fatal"), "git's own words stay in the log: {error}");
}

#[tokio::test]
async fn files_are_read_at_a_commit_and_never_beyond_the_limit_or_through_a_link() {
    let (work, dir) = (Work::new(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink("/etc/passwd", work.path().join("link")).unwrap();
    work.commit(".pipeyard/b.yml", "b");
    let sha = work.commit(".pipeyard/a.yml", "0123456789");
    let mirror = mirror(&dir).await;
    mirror.fetch(&work.url(), None).await.unwrap();
    assert_eq!(
        mirror.read_file(&sha, ".pipeyard/a.yml", 10).await.unwrap().unwrap(),
        b"0123456789"
    );
    assert_eq!(mirror.read_file(&sha, ".pipeyard.yml", 10).await.unwrap(), None);
    assert_eq!(mirror.read_file(&sha, ".pipeyard", 10).await.unwrap(), None);
    assert_eq!(mirror.read_file(&sha, "link", 1000).await.unwrap(), None);
    let error = mirror.read_file(&sha, ".pipeyard/a.yml", 9).await.unwrap_err();
    assert!(matches!(error, GitError::TooLarge { limit: 9, .. }));
    let entries = mirror.list_dir(&sha, ".pipeyard").await.unwrap().unwrap();
    assert_eq!(entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["a.yml", "b.yml"]);
    assert!(entries.iter().all(|e| e.file));
    assert_eq!(mirror.list_dir(&sha, "none").await.unwrap(), None);
    let info = mirror.commit_info(&sha).await.unwrap();
    assert_eq!((info.title.as_str(), info.author_name.as_str()), ("Change .pipeyard/a.yml", "Ann"));
    assert_eq!(info.parents.len(), 1);
}

#[tokio::test]
async fn a_range_holds_what_was_not_deployed_and_says_when_it_cannot_know() {
    let (work, dir) = (Work::new(), tempfile::tempdir().unwrap());
    let base = work.commit("api/a", "1");
    work.git(&["checkout", "--quiet", "-b", "fix"]);
    let fix = work.commit("web/b", "1");
    work.git(&["checkout", "--quiet", "main"]);
    let main = work.commit("api/a", "2");
    work.git(&["merge", "--quiet", "--no-ff", "-m", "Merge fix", "fix"]);
    let merge = work.head();
    let mirror = mirror(&dir).await;
    mirror.fetch(&work.url(), None).await.unwrap();
    let range = async |new: &Sha, deployed: &[Sha], limit, paths: Option<&str>| {
        let set = paths.map(|glob| {
            let mut set = globset::GlobSetBuilder::new();
            set.add(globset::Glob::new(glob).unwrap());
            set.build().unwrap()
        });
        mirror.commit_range(new, deployed, limit, set).await.unwrap()
    };
    let shas = |range| match range {
        CommitRange::Known { commits, truncated } => {
            (commits.into_iter().map(|c| c.sha).collect::<Vec<_>>(), truncated)
        }
        CommitRange::Unknown { missing } => panic!("{missing:?}"),
    };
    let (mut all, truncated) = shas(range(&merge, std::slice::from_ref(&base), 5000, None).await);
    assert_eq!((all[0].clone(), truncated), (merge.clone(), false));
    all.sort();
    let mut expected = vec![merge.clone(), main.clone(), fix.clone()];
    expected.sort();
    assert_eq!(all, expected);
    // What went out as a hot fix is no part of the next release.
    assert_eq!(
        shas(range(&merge, &[main.clone(), fix.clone()], 5000, None).await).0,
        std::slice::from_ref(&merge)
    );
    // A rollback brings nothing new.
    assert_eq!(shas(range(&base, std::slice::from_ref(&merge), 5000, None).await).0, []);
    assert!(shas(range(&merge, std::slice::from_ref(&base), 2, None).await).1);
    assert_eq!(
        shas(range(&merge, std::slice::from_ref(&base), 5000, Some("api/**")).await).0,
        std::slice::from_ref(&main)
    );
    let gone: Sha = "2222222222222222222222222222222222222222".parse().unwrap();
    let answer = range(&merge, &[base.clone(), gone.clone()], 5000, None).await;
    assert_eq!(answer, CommitRange::Unknown { missing: vec![gone] });
    let CommitRange::Known { commits, .. } = range(&merge, &[main], 5000, None).await else {
        panic!()
    };
    assert_eq!(commits.iter().filter(|c| c.is_merge()).count(), 1);
    assert_eq!(mirror.changed_paths(&fix).await.unwrap(), ["web/b"]);
    assert_eq!(mirror.changed_paths(&base).await.unwrap(), ["api/a"]);
    assert_eq!(mirror.merge_base(&merge, &fix).await.unwrap(), Some(fix));
}

#[tokio::test]
async fn a_lock_that_a_killed_fetch_left_heals() {
    let (work, dir) = (Work::new(), tempfile::tempdir().unwrap());
    work.commit("a", "1");
    let mirror = mirror(&dir).await;
    let lock: PathBuf = mirror.path().join("refs/heads/main.lock");
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    std::fs::write(&lock, "").unwrap();
    assert!(
        mirror.fetch(&work.url(), None).await.is_err(),
        "a fresh lock may be a living writer's"
    );
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    std::fs::File::options().write(true).open(&lock).unwrap().set_modified(old).unwrap();
    mirror.fetch(&work.url(), None).await.unwrap();
    assert_eq!(mirror.refs().await.unwrap().len(), 1);
}
