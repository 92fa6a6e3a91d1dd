//! `lint`: local, no server.

use std::{fs, path::PathBuf};

use pipeyard_pipelines::{Context as Pushed, Diagnostic, Event, Severity, Source, compile, render};

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
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let files = if self.files.is_empty() { default_files() } else { self.files };
        if files.is_empty() {
            return Err(Failure::usage("there is no .pipeyard.yml and no .pipeyard/*.yml here")
                .hint("the shortest one has four lines:\njobs:\n  test:\n    image: rust:1.95\n    run: cargo test"));
        }
        let mut all = Vec::new();
        let mut bad = false;
        for file in &files {
            let bytes = fs::read(file)
                .map_err(|e| Failure::usage(format!("failed to read {}: {e}", file.display())))?;
            let text = String::from_utf8_lossy(&bytes);
            for finding in findings(&file.display().to_string(), &bytes) {
                bad |= finding.severity == Severity::Error || self.strict;
                if context.for_people() {
                    let rendered = render(&finding, &text, term::colour());
                    term::print(&format!("{}\n", rendered.trim_end()));
                }
                all.push(finding);
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

/// Findings as for a push to the default branch, which keeps every deploy in.
pub(super) fn findings(path: &str, bytes: &[u8]) -> Vec<Diagnostic> {
    let pushed = Pushed {
        event: Event::Push,
        sha: "0".repeat(40),
        branch: "main".into(),
        author: "nobody".into(),
        default_branch: "main".into(),
    };
    match Source::from_bytes(path, bytes) {
        Ok(source) => compile(&source, &pushed).diagnostics,
        Err(finding) => vec![*finding],
    }
}
