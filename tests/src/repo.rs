//! A bare repository with a clone to push from, made with Git itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A bare repository and a working clone beside it.
#[derive(Debug)]
pub struct TestRepo {
    /// The bare repository that Pipeyard is told about.
    pub bare: PathBuf,
    /// The clone that commits are made in.
    pub work: PathBuf,
}

impl TestRepo {
    /// Makes both below `dir`, on the branch `main`.
    #[must_use]
    pub fn new(dir: &Path, name: &str) -> Self {
        let bare = dir.join(format!("{name}.git"));
        let work = dir.join(name);
        git(dir, &["init", "-q", "--bare", "-b", "main", &bare.display().to_string()]);
        git(dir, &["init", "-q", "-b", "main", &work.display().to_string()]);
        git(&work, &["remote", "add", "origin", &bare.display().to_string()]);
        Self { bare, work }
    }

    /// Writes a file in the clone.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.work.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("make a folder");
        }
        fs::write(&path, content).expect("write a file");
    }

    /// Commits everything and answers the commit's SHA.
    pub fn commit(&self, message: &str) -> String {
        git(&self.work, &["add", "-A"]);
        git(&self.work, &["commit", "-q", "--allow-empty", "-m", message]);
        git(&self.work, &["rev-parse", "HEAD"])
    }

    /// Pushes HEAD to `branch`; answers what Git printed, the hook's words included.
    pub fn push(&self, branch: &str) -> String {
        git(&self.work, &["push", "-q", "-f", "origin", &format!("HEAD:refs/heads/{branch}")])
    }

    /// Writes the pipeline file, commits and pushes to main; answers the SHA.
    pub fn push_pipeline(&self, yaml: &str) -> String {
        self.write(".pipeyard.yml", yaml);
        let sha = self.commit("Change the pipeline");
        self.push("main");
        sha
    }
}

/// Runs git with a fixed identity, outside of the user's own configuration.
///
/// # Panics
/// When it fails.
pub fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(dir)
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_AUTHOR_NAME", "Ada")
        .env("GIT_AUTHOR_EMAIL", "ada@example.com")
        .env("GIT_COMMITTER_NAME", "Ada")
        .env("GIT_COMMITTER_EMAIL", "ada@example.com")
        .output()
        .expect("start git");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?} failed: {problem}");
    text
}
