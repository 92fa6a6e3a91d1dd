//! Keeps a successful job's outputs: finds files by pattern, uploads them by digest.
//!
//! Nothing in the workspace is trusted (see [`workspace`]): links aren't followed, only regular files
//! are read, and a file is opened once.

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    path::Path,
    time::Duration,
};

use globset::{GlobBuilder, GlobMatcher};
use pipeyard_model::{AttemptId, Conclusion};
use sha2::{Digest as _, Sha256};

use crate::{
    protocol::{CallError, Server},
    workspace::{self, Kind},
};

/// More files than that are refused: keep an archive instead.
const MAX_FILES: usize = 1000;
/// Files and folders that are looked at.
const MAX_WALK: usize = 500_000;
/// Tries of an upload.
const TRIES: u32 = 6;

/// Why outputs weren't kept.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) conclusion: Conclusion,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Problem {
    fn user(code: &'static str, message: String) -> Self {
        Self { conclusion: Conclusion::Failure, code, message }
    }

    fn own(code: &'static str, message: String) -> Self {
        Self { conclusion: Conclusion::Error, code, message }
    }
}

/// Uploads every file that a pattern matches; answers a line for the log for each.
pub(crate) async fn keep(
    server: &Server,
    attempt: AttemptId,
    workspace: &Path,
    patterns: &[String],
) -> Result<Vec<String>, Problem> {
    let root = workspace.to_path_buf();
    let wanted = patterns.to_vec();
    let paths = tokio::task::spawn_blocking(move || find(&root, &wanted))
        .await
        .map_err(|e| Problem::own("artifacts_failed", e.to_string()))??;
    let mut kept = Vec::with_capacity(paths.len());
    for path in paths {
        kept.push(upload(server, attempt, workspace, &path).await?);
    }
    Ok(kept)
}

/// Paths relative to the workspace, sorted, for patterns that each match something.
fn find(workspace: &Path, patterns: &[String]) -> Result<Vec<String>, Problem> {
    let matchers = patterns
        .iter()
        .map(|pattern| {
            GlobBuilder::new(pattern.trim_end_matches('/'))
                .literal_separator(true)
                .build()
                .map(|glob| (pattern, glob.compile_matcher()))
                .map_err(|e| {
                    Problem::user("artifact_pattern", format!("{pattern:?} isn't a pattern: {e}"))
                })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut hits = vec![false; matchers.len()];
    let mut found = Vec::new();
    let whole = workspace::walk(workspace, "", MAX_WALK, |path, kind| {
        if kind == Kind::File && matched(&matchers, path, &mut hits) {
            found.push(path.to_owned());
        }
    })
    .map_err(|e| Problem::own("artifacts_failed", format!("failed to read the workspace: {e}")))?;
    if !whole {
        let message = format!("the workspace has more than {MAX_WALK} files");
        return Err(Problem::user("too_many_files", message));
    }
    if let Some(at) = hits.iter().position(|hit| !hit) {
        let message = format!(
            "no file matches the artifact {:?}; the job ended well, but it didn't make it",
            patterns[at]
        );
        return Err(Problem::user("artifact_missing", message));
    }
    if found.len() > MAX_FILES {
        let message = format!(
            "{} files match; at most {MAX_FILES} are kept: keep an archive instead",
            found.len()
        );
        return Err(Problem::user("too_many_artifacts", message));
    }
    found.sort();
    Ok(found)
}

/// Whether a pattern matches the path or a folder that it is in.
fn matched(matchers: &[(&String, GlobMatcher)], path: &str, hits: &mut [bool]) -> bool {
    let mut any = false;
    for ((_, matcher), hit) in matchers.iter().zip(hits) {
        let mut part = Some(path);
        while let Some(text) = part {
            if matcher.is_match(text) {
                *hit = true;
                any = true;
                break;
            }
            part = text.rsplit_once('/').map(|(parent, _)| parent);
        }
    }
    any
}

async fn upload(
    server: &Server,
    attempt: AttemptId,
    workspace: &Path,
    path: &str,
) -> Result<String, Problem> {
    let failed = |what: String| Problem::own("artifacts_failed", format!("{path}: {what}"));
    let (root, name) = (workspace.to_path_buf(), path.to_owned());
    let (file, sha256, size) = tokio::task::spawn_blocking(move || digest(&root, &name))
        .await
        .map_err(|e| failed(e.to_string()))?
        .map_err(|e| failed(format!("failed to read it: {e}")))?;
    let mut pause = Duration::from_millis(200);
    for tried in 1.. {
        let mut again = file.try_clone().map_err(|e| failed(e.to_string()))?;
        again.rewind().map_err(|e| failed(e.to_string()))?;
        let body = reqwest_body(again);
        match server.put_artifact(attempt, path, &sha256, body, size).await {
            Ok(()) => break,
            Err(CallError::Away(cause)) if tried < TRIES => {
                tracing::warn!(%cause, path, "an artifact waits for the server");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Err(error) => return Err(Problem::own("artifact_refused", format!("{path}: {error}"))),
        }
    }
    Ok(format!("kept {path} ({size} bytes, sha256 {sha256})"))
}

fn reqwest_body(file: File) -> reqwest::Body {
    let file = tokio::fs::File::from_std(file);
    reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::with_capacity(file, 256 * 1024))
}

/// Opens a file that is really below the workspace, and hashes it.
fn digest(workspace: &Path, path: &str) -> std::io::Result<(File, String, u64)> {
    let file = workspace::open(workspace, path)?;
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut block = vec![0; 256 * 1024];
    let mut reader = &file;
    loop {
        match reader.read(&mut block)? {
            0 => break,
            n => {
                hash.update(&block[..n]);
                size += n as u64;
            }
        }
    }
    Ok((file, hex::encode(hash.finalize()), size))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn workspace() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("dist/deep")).unwrap();
        fs::create_dir_all(dir.path().join(".git")).unwrap();
        for name in ["a.txt", "dist/b.bin", "dist/deep/c.bin", ".git/d.txt"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link.txt")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("etc")).unwrap();
        dir
    }

    #[test]
    fn patterns_find_files_and_folders_but_no_links() {
        let dir = workspace();
        let found = |patterns: &[&str]| {
            find(dir.path(), &patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(found(&["*.txt"]).unwrap(), ["a.txt"]);
        assert_eq!(found(&["dist"]).unwrap(), ["dist/b.bin", "dist/deep/c.bin"]);
        assert_eq!(found(&["dist/*.bin", "a.txt"]).unwrap(), ["a.txt", "dist/b.bin"]);
        assert_eq!(found(&["**/*.bin"]).unwrap(), ["dist/b.bin", "dist/deep/c.bin"]);
        for bad in ["link.txt", "etc/passwd", "nothing"] {
            assert_eq!(found(&[bad]).unwrap_err().code, "artifact_missing", "{bad}");
        }
    }

    #[test]
    fn a_link_is_never_followed() {
        let dir = workspace();
        assert!(digest(dir.path(), "a.txt").is_ok());
        for bad in ["link.txt", "etc/passwd", "../x", "/etc/passwd", "dist"] {
            assert!(digest(dir.path(), bad).is_err(), "{bad}");
        }
    }
}
