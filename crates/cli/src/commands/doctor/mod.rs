//! `doctor`: what is in place, what isn't, and how to fix it: this machine, the server, and the
//! pipeline file of this folder.

mod machine;
mod server;

use serde::Serialize;

use super::lint;
use crate::{
    context::Context,
    exit::{Exit, Outcome},
    output::{Column, cell},
    table, term,
};

/// Check that everything is in place, and say how to fix what isn't. Ends with 1 if something that is
/// needed isn't; a warning alone doesn't.
#[derive(Debug, clap::Args)]
pub struct Doctor {}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    /// Worth a look; nothing stands still for it.
    Warning,
    /// Something won't work.
    Failed,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    check: &'static str,
    result: Level,
    found: String,
    /// Empty if there is nothing to fix.
    fix: String,
}

impl Check {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, result: Level::Ok, found: found.into(), fix: String::new() }
    }

    fn warning(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, result: Level::Warning, found: found.into(), fix: fix.into() }
    }

    fn failed(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, result: Level::Failed, found: found.into(), fix: fix.into() }
    }

    /// A failure where it matters, a warning where it doesn't.
    fn missing(
        needed: bool,
        check: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let result = if needed { Level::Failed } else { Level::Warning };
        Self { check, result, found: found.into(), fix: fix.into() }
    }
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

impl Check {
    /// For people: what was found is never cut, and the fix stands below it.
    fn lines(&self, colour: bool) -> String {
        let word = table::in_tone(self.result.word(), 8, colour);
        let mut lines = format!("{word} {:<9} {}\n", self.check, self.found);
        if !self.fix.is_empty() {
            lines.push_str(&format!("{:<8} {:<9} fix: {}\n", "", "", self.fix));
        }
        lines
    }
}

const COLUMNS: &[Column] = &[
    Column("CHECK", |r| cell(&r["check"])),
    Column("RESULT", |r| cell(&r["result"])),
    Column("FOUND", |r| cell(&r["found"])),
    Column("FIX", |r| cell(&r["fix"])),
];

impl Doctor {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client();
        // A machine that only asks a server elsewhere runs no jobs.
        let runs_jobs = client.as_ref().map_or(true, |client| machine::is_here(client.base()));
        let mut checks = machine::checks(runs_jobs);
        match client {
            Ok(client) => checks.extend(server::checks(context, &client).await),
            Err(failure) => {
                let fix = failure.hint.unwrap_or_else(|| "pipectl login URL".into());
                checks.push(Check::failed("profile", failure.message, fix));
            }
        }
        checks.extend(pipelines());
        let bad = checks.iter().any(|check| check.result == Level::Failed);
        if context.for_people() {
            term::print(
                &checks.iter().map(|check| check.lines(term::colour())).collect::<String>(),
            );
        } else {
            context.print(&checks, COLUMNS)?;
        }
        Ok(if bad { Exit::Failed } else { Exit::Ok })
    }
}

/// The pipeline files of this folder, if it has any.
fn pipelines() -> Option<Check> {
    let files = lint::default_files();
    let first = files.first()?;
    let mut errors = 0;
    let mut warnings = 0;
    for file in &files {
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) => {
                let found = format!("failed to read {}: {error}", file.display());
                return Some(Check::failed("pipeline", found, "let your user read it"));
            }
        };
        for finding in lint::findings(&file.display().to_string(), &bytes) {
            match finding.severity {
                pipeyard_pipelines::Severity::Error => errors += 1,
                pipeyard_pipelines::Severity::Warning => warnings += 1,
            }
        }
    }
    let what = match files.len() {
        1 => first.display().to_string(),
        several => format!("{several} pipeline files"),
    };
    Some(match (errors, warnings) {
        (0, 0) => Check::ok("pipeline", format!("{what}: nothing found")),
        (0, warnings) => {
            Check::warning("pipeline", format!("{what}: {warnings} warnings"), "pipectl lint")
        }
        (errors, _) => {
            Check::failed("pipeline", format!("{what}: {errors} errors"), "pipectl lint")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fix_stands_below_what_was_found() {
        assert_eq!(
            Check::ok("git", "git version 2").lines(false),
            "ok       git       git version 2\n"
        );
        assert_eq!(
            Check::failed("docker", "not installed", "install it").lines(false),
            "failed   docker    not installed\n                   fix: install it\n"
        );
        assert!(
            Check::failed("git", "x", "")
                .lines(true)
                .starts_with("\u{1b}[31mfailed\u{1b}[0m   git")
        );
    }
}
