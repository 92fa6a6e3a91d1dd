//! `lint`: local; somebody who is signed in is also told what would come of the deploys.

use std::{fs, path::PathBuf};

use pipeyard_model::RepoName;
use pipeyard_pipelines::{Context as Pushed, Diagnostic, Event, Severity, Source, compile, render};

use serde_json::Value;

use super::lint_deploys::Asked;
use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
    output::{Column, cell},
    term,
};

/// Check pipeline files. Without files: `.pipeyard.yml` and `.pipeyard/*.yml` here.
#[derive(Debug, clap::Args)]
pub struct Lint {
    /// The files.
    files: Vec<PathBuf>,
    /// Warnings are errors too.
    #[arg(long)]
    strict: bool,
    /// The repository, to ask whether its deploys would be taken; that of this folder if absent.
    #[arg(long)]
    repo: Option<RepoName>,
    /// The branch to ask about; the default branch if absent.
    #[arg(long)]
    branch: Option<String>,
}

pub(super) fn default_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let single = PathBuf::from(".pipeyard.yml");
    if single.is_file() {
        files.push(single);
    }
    let mut several: Vec<_> = fs::read_dir(".pipeyard")
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "yml" || e == "yaml"))
        .collect();
    several.sort();
    files.extend(several);
    files
}

impl Lint {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let Self { files, strict, repo, branch } = self;
        let files = if files.is_empty() { default_files() } else { files };
        let asked = Asked::of(context, repo, branch).await?;
        if files.is_empty() {
            return Err(Failure::usage("there is no .pipeyard.yml and no .pipeyard/*.yml here")
                .hint("the shortest one has four lines:\njobs:\n  test:\n    image: rust:1.95\n    run: cargo test"));
        }
        let mut all: Vec<Value> = Vec::new();
        let mut bad = false;
        for file in &files {
            let bytes = fs::read(file)
                .map_err(|e| Failure::usage(format!("failed to read {}: {e}", file.display())))?;
            let text = String::from_utf8_lossy(&bytes);
            for finding in findings(&file.display().to_string(), &bytes) {
                bad |= finding.severity == Severity::Error || strict;
                if context.for_people() {
                    let rendered = render(&finding, &text, term::colour());
                    term::print(&format!("{}\n", rendered.trim_end()));
                }
                all.push(serde_json::to_value(finding).unwrap_or_default());
            }
            if let Some(asked) = &asked {
                for told in asked.about(&file.display().to_string(), &bytes).await {
                    bad |= strict && !told.accepted;
                    if context.for_people() {
                        term::print(&format!("{}\n", told.words));
                    }
                    all.extend((!told.accepted).then(|| told.finding()));
                }
            }
        }
        if context.for_people() {
            let word = if bad { "not good" } else { "good" };
            let files =
                if files.len() == 1 { "1 file".into() } else { format!("{} files", files.len()) };
            term::say(&format!("{files} checked: {word}"));
        } else {
            context.print(
                &all,
                &[
                    Column("PATH", |r| cell(&r["path"])),
                    Column("LINE", |r| cell(&r["line"])),
                    Column("COLUMN", |r| cell(&r["column"])),
                    Column("CODE", |r| cell(&r["code"])),
                    Column("MESSAGE", |r| cell(&r["message"])),
                ],
            )?;
        }
        Ok(if bad { Exit::Usage } else { Exit::Ok })
    }
}

/// A push to the default branch.
pub(super) fn pushed() -> Pushed {
    Pushed {
        event: Event::Push,
        sha: "0".repeat(40),
        branch: "main".into(),
        author: "nobody".into(),
        default_branch: "main".into(),
    }
}

/// Findings as for a push to the default branch, which keeps every deploy in.
pub(super) fn findings(path: &str, bytes: &[u8]) -> Vec<Diagnostic> {
    let pushed = pushed();
    match Source::from_bytes(path, bytes) {
        Ok(source) => compile(&source, &pushed).diagnostics,
        Err(finding) => vec![*finding],
    }
}
