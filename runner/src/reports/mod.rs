//! Test reports of a job: found by pattern, read, summed up, told to the server. They say what
//! happened and never decide how the job ended: a job is green or not by its steps alone, and a
//! report that is missing or can't be read is a note in its log.

mod find;
mod junit;
mod summary;

use std::{io::Read as _, path::Path, time::Duration};

use pipeyard_api::test_report::{ReportProblem, TestReport};
use pipeyard_mask::Masker;
use pipeyard_model::{AttemptId, Conclusion};
use tokio_util::sync::CancellationToken;

use self::summary::Summary;
use crate::{
    protocol::{CallError, Server},
    workspace,
};

/// The largest report, in bytes.
const MAX_REPORT: u64 = 32 << 20;
/// All reports of an attempt together, in bytes.
const MAX_TOTAL: u64 = 256 << 20;
/// How long the call that tells the server may take.
const CALL: Duration = Duration::from_secs(30);
/// The pause after a failed call; it doubles up to the second value.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Problems that the log names one by one.
const NOTED: usize = 20;

/// Whether an attempt that ended so has reports that mean something: its steps ran, to whatever end.
pub(crate) fn wanted(conclusion: Conclusion, patterns: &[String]) -> bool {
    !patterns.is_empty()
        && matches!(conclusion, Conclusion::Success | Conclusion::Failure | Conclusion::TimedOut)
}

/// Reads the reports and tells the server; answers lines for the job's log.
pub(crate) async fn keep(
    server: &Server,
    attempt: AttemptId,
    workspace: &Path,
    patterns: &[String],
    masker: &Masker,
    stop: &CancellationToken,
) -> Vec<String> {
    let (root, wanted, masker) = (workspace.to_path_buf(), patterns.to_vec(), masker.fresh());
    let read = tokio::task::spawn_blocking(move || read(&root, &wanted, masker));
    let report = match read.await {
        Ok(report) => report,
        Err(error) => return vec![format!("report_unreadable: reading the tests failed: {error}")],
    };
    let mut lines = notes(&report);
    let path = format!("/api/runner/jobs/{}/{}/tests", attempt.job, attempt.epoch);
    let mut pause = PAUSE.0;
    loop {
        match server.post::<_, serde_json::Value>(&path, &report, CALL).await {
            Ok(_) => return lines,
            Err(CallError::Refused { code, message, .. }) => {
                tracing::warn!(attempt = %attempt, %code, %message, "the test report was refused");
                lines.push(format!("tests_refused: the server didn't take the tests: {message}"));
                return lines;
            }
            Err(CallError::Away(cause)) => {
                tracing::warn!(attempt = %attempt, %cause, "the test report waits for the server");
                tokio::select! {
                    () = stop.cancelled() => return lines,
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE.1),
                }
            }
        }
    }
}

/// Every report that the patterns name, summed up.
fn read(workspace: &Path, patterns: &[String], masker: Masker) -> TestReport {
    let (paths, problems) = find::find(workspace, patterns);
    let mut summary = Summary::new(masker);
    let mut left = MAX_TOTAL;
    for path in paths {
        match load(workspace, &path, &mut left) {
            Ok(bytes) => {
                let read = junit::read(&bytes, |case| summary.add(&path, case));
                summary.file(&path, read.err());
            }
            Err((code, message)) => summary.problem(problem(code, &path, message)),
        }
    }
    for problem in problems {
        summary.problem(problem);
    }
    summary.finish()
}

fn problem(code: &str, path: &str, message: impl Into<String>) -> ReportProblem {
    ReportProblem { code: code.into(), path: path.into(), line: None, message: message.into() }
}

fn load(workspace: &Path, path: &str, left: &mut u64) -> Result<Vec<u8>, (&'static str, String)> {
    let unreadable =
        |error: std::io::Error| ("report_unreadable", format!("failed to read it: {error}"));
    let file = workspace::open(workspace, path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    let most = MAX_REPORT.min(*left);
    file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let size = bytes.len() as u64;
    if size > most {
        let message = if most == MAX_REPORT {
            format!("it has more than {} MiB; write a report for each suite", MAX_REPORT >> 20)
        } else {
            format!("the reports have more than {} MiB together", MAX_TOTAL >> 20)
        };
        return Err(("report_too_large", message));
    }
    *left -= size;
    Ok(bytes)
}

/// What the job's log says of its tests.
fn notes(report: &TestReport) -> Vec<String> {
    let mut lines = Vec::new();
    if report.files > 0 {
        let files =
            if report.files == 1 { "1 report".into() } else { format!("{} reports", report.files) };
        lines.push(format!("tests: {} in {files}", report.counts.words()));
    }
    for problem in report.problems.iter().take(NOTED) {
        let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
        lines.push(format!("{}: {}{line}: {}", problem.code, problem.path, problem.message));
    }
    let more = report.problems.len().saturating_sub(NOTED);
    if more > 0 {
        lines.push(format!("{more} more reports have problems"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    fn workspace(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn collect(dir: &tempfile::TempDir, patterns: &[&str], secrets: &[&str]) -> TestReport {
        let patterns: Vec<_> = patterns.iter().map(|p| (*p).to_owned()).collect();
        read(dir.path(), &patterns, Masker::new(secrets.iter().copied()))
    }

    #[test]
    fn reports_of_several_files_are_added_up() {
        let dir = workspace(&[
            ("target/one.xml", include_str!("junit/dialects/nextest.xml")),
            ("target/deep/two.xml", include_str!("junit/dialects/surefire.xml")),
            ("target/other.txt", "no report"),
        ]);
        let report = collect(&dir, &["target/**/*.xml"], &[]);
        assert_eq!(report.problems, []);
        assert_eq!(report.counts.words(), "4 passed, 2 failed, 1 errored, 1 flaky");
        let suites: Vec<_> =
            report.suites.iter().map(|s| (s.name.as_str(), s.counts.total())).collect();
        assert_eq!(suites, [("shop.CartTest", 3), ("shop::cart", 4)]);
        assert_eq!(notes(&report), ["tests: 4 passed, 2 failed, 1 errored, 1 flaky in 2 reports"]);
    }

    #[test]
    fn a_bad_report_is_told_with_file_and_line_and_the_good_ones_count() {
        let dir = workspace(&[
            ("a.xml", "<testsuite>\n<testcase name='x'/>\n<oops>\n"),
            ("b.xml", include_str!("junit/dialects/gradle.xml")),
        ]);
        let report = collect(&dir, &["*.xml", "none.xml"], &[]);
        assert_eq!(report.counts.words(), "2 passed, 1 skipped");
        let told: Vec<_> =
            report.problems.iter().map(|p| (p.code.as_str(), p.path.as_str(), p.line)).collect();
        let expected = [("report_invalid", "a.xml", Some(4)), ("report_missing", "none.xml", None)];
        assert_eq!(told, expected);
        let notes = notes(&report);
        assert!(notes[1].starts_with("report_invalid: a.xml:4: "), "{notes:?}");
    }

    #[test]
    fn a_secret_is_masked_wherever_it_stands() {
        let secret = "hunter2-hunter2";
        let xml = format!(
            "<testsuite name='of {secret}'><testcase name='{secret}' classname='c {secret}'>\
             <failure message='m {secret}'>d hunter2&#27;[1m-hunter2</failure><system-out>o {secret}\
             </system-out></testcase></testsuite>"
        );
        let dir = workspace(&[("a.xml", &xml)]);
        let report = collect(&dir, &["a.xml"], &[secret]);
        let text = serde_json::to_string(&report).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(report.failures[0].details, "d ***");
    }

    #[test]
    fn a_link_out_of_the_workspace_is_refused() {
        let outside = workspace(&[("secret.xml", "<testsuite><testcase name='x'/></testsuite>")]);
        let dir = workspace(&[]);
        let link = |from: PathBuf, to: &str| {
            std::os::unix::fs::symlink(from, dir.path().join(to)).unwrap();
        };
        link(outside.path().join("secret.xml"), "a.xml");
        link(outside.path().to_path_buf(), "folder");
        for pattern in ["a.xml", "*.xml", "folder/secret.xml", "folder/*.xml"] {
            let report = collect(&dir, &[pattern], &[]);
            assert_eq!(report.counts.total(), 0, "{pattern}");
            assert_eq!(report.problems[0].code, "report_unreadable", "{pattern}");
            assert!(report.problems[0].message.contains("link"), "{pattern}: {report:?}");
        }
    }

    #[test]
    fn a_report_that_is_too_large_is_not_read() {
        let dir = workspace(&[("b.xml", "<testsuite><testcase name='x'/></testsuite>")]);
        fs::File::create(dir.path().join("a.xml")).unwrap().set_len(MAX_REPORT + 1).unwrap();
        let report = collect(&dir, &["*.xml"], &[]);
        assert_eq!(report.problems[0].code, "report_too_large");
        assert_eq!(report.counts.passed, 1);
        let mut left = 10;
        assert_eq!(load(dir.path(), "b.xml", &mut left).unwrap_err().0, "report_too_large");
    }
}
