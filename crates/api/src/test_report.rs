//! What the test reports of an attempt say: written by its runner, read by people.
//!
//! A report is bounded however many tests there are: every test is counted, and only those that
//! failed are told of, up to [`MAX_FAILURES`] with texts of at most [`MAX_MESSAGE`] and [`MAX_TEXT`]
//! bytes. The job's log has the rest.

use pipeyard_model::Epoch;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most failed tests that are kept of an attempt; further ones are counted.
pub const MAX_FAILURES: usize = 200;
/// The most suites that are kept of an attempt; tests of further ones are counted.
pub const MAX_SUITES: usize = 200;
/// The most problems with report files that are kept of an attempt.
pub const MAX_PROBLEMS: usize = 50;
/// The longest message of a failed test, in bytes.
pub const MAX_MESSAGE: usize = 2 << 10;
/// The longest details and the longest output of a failed test, in bytes each.
pub const MAX_TEXT: usize = 8 << 10;
/// All details and outputs of an attempt together, in bytes; failed tests beyond it come without.
pub const MAX_TEXTS: usize = 512 << 10;
/// The longest name of a suite, a test, a class or a file, in bytes.
pub const MAX_NAME: usize = 500;

/// Codes of problems with reports, with what they mean and what to do, sorted.
pub const CODES: &[(&str, &str)] = &[
    (
        "report_invalid",
        "A file that the job names under `tests` is no JUnit report, or breaks off. The tests before the \
         line that is named are counted. Often the test runner was killed while it wrote, or the \
         pattern matches other XML files too.",
    ),
    (
        "report_missing",
        "Nothing is where the job's `tests` says that a report is. Either the steps ended before they \
         wrote it, or they write it elsewhere: paths are relative to the workspace's root. The job's \
         result doesn't depend on it.",
    ),
    (
        "report_too_large",
        "A test report has more than 32 MiB, or all of a job's have more than 256 MiB. Write a report \
         for each suite, and keep what tests print out of them.",
    ),
    (
        "report_unreadable",
        "A test report can't be read: it is a symbolic link or lies behind one, which is never \
         followed, or a folder, or the runner may not read it. Write the report itself into the workspace.",
    ),
    (
        "tests_refused",
        "The server didn't take what the runner read from the test reports; its words are in the \
         message. Run the same version of Pipeyard on both sides.",
    ),
    (
        "too_many_reports",
        "More than 1,000 files match the job's `tests`. The first 1,000 are read. Write fewer, larger \
         reports.",
    ),
];

/// What a code of a report means and what to do; `None` if it is none.
#[must_use]
pub fn explain(code: &str) -> Option<&'static str> {
    CODES.iter().find(|(known, _)| *known == code).map(|(_, text)| *text)
}

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestCounts {
    /// Passed, those that passed only when they were tried again included.
    pub passed: u32,
    /// A check of theirs failed.
    pub failed: u32,
    /// They broke before they could check anything (JUnit's `error`).
    pub errored: u32,
    /// Not run.
    pub skipped: u32,
    /// Of those that passed: failed first, and passed when they were tried again.
    pub flaky: u32,
    /// The times of all tests added, in milliseconds; tests that run beside each other each count.
    pub duration_ms: u64,
}

impl TestCounts {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        [self.passed, self.failed, self.errored, self.skipped].into_iter().map(u64::from).sum()
    }

    /// Those that should make a person look.
    #[must_use]
    pub fn bad(&self) -> u64 {
        u64::from(self.failed) + u64::from(self.errored)
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        let more = |a: &mut u32, b: u32| *a = a.saturating_add(b);
        more(&mut self.passed, other.passed);
        more(&mut self.failed, other.failed);
        more(&mut self.errored, other.errored);
        more(&mut self.skipped, other.skipped);
        more(&mut self.flaky, other.flaky);
        self.duration_ms = self.duration_ms.saturating_add(other.duration_ms);
    }

    /// `120 passed, 2 failed, 1 skipped`: what there is of it, `no tests` if there is none.
    #[must_use]
    pub fn words(&self) -> String {
        let words = [
            (self.passed, "passed"),
            (self.failed, "failed"),
            (self.errored, "errored"),
            (self.skipped, "skipped"),
            (self.flaky, "flaky"),
        ];
        let words: Vec<_> = words
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        if words.is_empty() { "no tests".into() } else { words.join(", ") }
    }
}

/// The short form, beside an attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestSummary {
    /// How many ended how.
    #[serde(flatten)]
    pub counts: TestCounts,
    /// So many reports are missing or could not be read.
    pub problems: u32,
}

/// What the reports of one attempt say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestReport {
    /// How many ended how.
    #[serde(flatten)]
    pub counts: TestCounts,
    /// So many report files were read.
    pub files: u32,
    /// Suites, those with failed tests first.
    pub suites: Vec<TestSuite>,
    /// So many further suites are counted above and not listed.
    pub suites_left_out: u32,
    /// Tests that failed or broke, in the order of the reports.
    pub failures: Vec<FailedTest>,
    /// So many further ones are counted above and not listed.
    pub failures_left_out: u32,
    /// Reports that are missing or could not be read.
    pub problems: Vec<ReportProblem>,
}

/// One suite: a `<testsuite>`, tests of the same name in several reports together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestSuite {
    /// Its name; the report's path if it has none.
    pub name: String,
    /// How many of its own tests ended how.
    #[serde(flatten)]
    pub counts: TestCounts,
}

/// How a test failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Failing {
    /// A check failed.
    Failed,
    /// It broke before it could check anything.
    Errored,
}

/// A test that failed. Its texts are masked; escape codes are taken out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailedTest {
    /// Its suite's name.
    pub suite: String,
    /// Its name.
    pub name: String,
    /// Its class, module or package, if the report says.
    pub class: Option<String>,
    /// Its source file, if the report says.
    pub file: Option<String>,
    /// The line there, from 1, if the report says.
    pub line: Option<u32>,
    /// How it failed.
    pub how: Failing,
    /// One or a few lines of why.
    pub message: String,
    /// The beginning of the failure's text, often a stack trace.
    pub details: String,
    /// The end of what the test wrote.
    pub output: String,
    /// Something of `details` or `output` was left out.
    pub cut: bool,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// A report that is missing or could not be read, or only in part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportProblem {
    /// `report_missing`, `report_invalid`, `report_too_large`, `report_unreadable`,
    /// `too_many_reports`.
    pub code: String,
    /// The report's path in the workspace, or the pattern that nothing matched.
    pub path: String,
    /// The line in it, from 1, where reading ended.
    pub line: Option<u32>,
    /// What is wrong, and the fix.
    pub message: String,
}

/// The answer to `GET /api/runs/{run}/jobs/{name}/tests`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TestReportView {
    /// `test_report`, so that saved JSON tells what it is.
    pub kind: String,
    /// The attempt that it is of.
    pub attempt: Epoch,
    /// What its reports say.
    #[serde(flatten)]
    pub report: TestReport,
}
