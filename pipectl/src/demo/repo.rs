//! The shop's repository: a real bare repository and a clone to commit in, made with Git itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tokio::process::Command;

/// The bare repository and its clone.
#[derive(Debug)]
pub(crate) struct ShopRepo {
    /// What Pipeyard is told about.
    pub(crate) bare: PathBuf,
    work: PathBuf,
    shop: PathBuf,
}

impl ShopRepo {
    /// Makes both below `dir`.
    pub(crate) async fn make(dir: &Path, shop: &Path) -> anyhow::Result<Self> {
        let it =
            Self { bare: dir.join("shop.git"), work: dir.join("shop"), shop: shop.to_path_buf() };
        fs::create_dir_all(dir)?;
        git(dir, &["init", "-q", "--bare", "-b", "main", "shop.git"]).await?;
        git(dir, &["init", "-q", "-b", "main", "shop"]).await?;
        git(&it.work, &["remote", "add", "origin", &it.bare.display().to_string()]).await?;
        copy(&it.shop, &it.work, &["versions"])?;
        Ok(it)
    }

    /// Commits and pushes a version: the shop with the files of `versions/<version>` on top.
    /// Answers the commit.
    pub(crate) async fn push_version(
        &self,
        version: &str,
        message: &str,
    ) -> anyhow::Result<String> {
        let overlay = self.shop.join("versions").join(version);
        if overlay.is_dir() {
            copy(&overlay, &self.work, &[])?;
        }
        git(&self.work, &["add", "-A"]).await?;
        git(&self.work, &["commit", "-q", "--allow-empty", "-m", message]).await?;
        git(&self.work, &["push", "-q", "origin", "HEAD:refs/heads/main"]).await?;
        git(&self.work, &["rev-parse", "HEAD"]).await
    }
}

fn copy(from: &Path, to: &Path, without: &[&str]) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("failed to read {}", from.display()))? {
        let entry = entry?;
        if without.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target, &[])?;
        } else {
            // `fs::copy` keeps the mode: scripts stay executable.
            fs::copy(entry.path(), &target)
                .with_context(|| format!("failed to copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}

async fn git(dir: &Path, args: &[&str]) -> anyhow::Result<String> {
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
        .await
        .context("failed to start git")?;
    anyhow::ensure!(
        output.status.success(),
        "git {args:?} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
