//! A bare repository and a work tree that pushes to it.

use std::{path::Path, process::Command};

use tempfile::TempDir;

/// The shortest pipeline.
pub(crate) const PIPELINE: &str = "jobs:\n  test:\n    image: busybox\n    run: make test\n";

pub(crate) struct Repository {
    folder: TempDir,
}

impl Repository {
    /// An empty one.
    pub(crate) fn empty() -> Self {
        let it = Self { folder: tempfile::tempdir().unwrap() };
        it.run(&it.bare(), &["init", "--quiet", "--bare", "--initial-branch=main"]);
        it.run(&it.work(), &["init", "--quiet", "--initial-branch=main"]);
        it.git(&["remote", "add", "origin", &it.bare()]);
        it
    }

    /// One whose branch `main` has the shortest pipeline.
    pub(crate) fn with_pipeline() -> Self {
        let it = Self::empty();
        it.push(".pipeyard.yml", PIPELINE);
        it
    }

    pub(crate) fn bare(&self) -> String {
        self.folder.path().join("shop.git").display().to_string()
    }

    fn work(&self) -> String {
        self.folder.path().join("work").display().to_string()
    }

    fn run(&self, folder: &str, args: &[&str]) -> String {
        std::fs::create_dir_all(folder).unwrap();
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
            .current_dir(folder)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs git in the work tree.
    pub(crate) fn git(&self, args: &[&str]) -> String {
        self.run(&self.work(), args)
    }

    pub(crate) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Writes a file and commits; answers the SHA.
    pub(crate) fn commit(&self, file: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = Path::new(&self.work()).join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", &format!("Change {file}")]);
        self.head()
    }

    /// Commits and pushes to the present branch; answers the SHA.
    pub(crate) fn push(&self, file: &str, bytes: impl AsRef<[u8]>) -> String {
        let sha = self.commit(file, bytes);
        self.git(&["push", "--quiet", "--force", "origin", "HEAD"]);
        sha
    }
}
