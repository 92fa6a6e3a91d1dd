//! What the tests of a run's jobs say, below the run.

use pipeyard_api::{
    client::{Client, escape},
    test_report::{Failing, TestReport, TestReportView},
    views::RunDetail,
};

use crate::{exit::Failure, term};

/// Failed tests of one job that a person is shown; the page has the rest.
const SHOWN_FAILURES: usize = 20;

/// What each job's tests say, the failed ones by name.
pub(super) async fn print(client: &Client, detail: &RunDetail) -> Result<(), Failure> {
    for job in &detail.jobs {
        let Some(tests) = &job.tests else { continue };
        term::print(&format!("\n{}: tests {}\n", job.name, tests.counts.words()));
        if tests.counts.bad() == 0 && tests.problems == 0 {
            continue;
        }
        let path = format!("/api/runs/{}/jobs/{}/tests", detail.run.id, escape(job.name.as_str()));
        let report = client.get::<TestReportView>(&path).await?.report;
        term::print(&failed_tests(&report));
    }
    Ok(())
}

fn failed_tests(report: &TestReport) -> String {
    let mut text = String::new();
    for test in report.failures.iter().take(SHOWN_FAILURES) {
        let place = match (&test.file, test.line) {
            (Some(file), Some(line)) => format!(" ({file}:{line})"),
            (Some(file), None) => format!(" ({file})"),
            (None, _) => String::new(),
        };
        let word = match test.how {
            Failing::Failed => "failed ",
            Failing::Errored => "errored",
        };
        text.push_str(&format!("  {word} {} > {}{place}\n", test.suite, test.name));
        if let Some(line) = test.message.lines().find(|line| !line.trim().is_empty()) {
            text.push_str(&format!("          {}\n", line.trim()));
        }
    }
    let hidden =
        report.failures.len().saturating_sub(SHOWN_FAILURES) + report.failures_left_out as usize;
    if hidden > 0 {
        text.push_str(&format!("  and {hidden} more\n"));
    }
    for problem in &report.problems {
        let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
        text.push_str(&format!(
            "  {}: {}{line}: {}\n",
            problem.code, problem.path, problem.message
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use pipeyard_api::test_report::{FailedTest, ReportProblem};

    use super::*;

    #[test]
    fn a_failed_test_takes_two_lines_and_many_are_counted() {
        let test = FailedTest {
            suite: "cart".into(),
            name: "takes a discount once".into(),
            class: None,
            file: Some("src/cart.rs".into()),
            line: Some(41),
            how: Failing::Failed,
            message: "\nassertion failed: 80 is not 90\nleft: 80".into(),
            details: String::new(),
            output: String::new(),
            cut: false,
            duration_ms: 4,
        };
        let problem = ReportProblem {
            code: "report_invalid".into(),
            path: "target/b.xml".into(),
            line: Some(3),
            message: "it is cut off".into(),
        };
        let mut report = TestReport {
            failures: vec![test.clone()],
            problems: vec![problem],
            ..TestReport::default()
        };
        assert_eq!(
            failed_tests(&report),
            "  failed  cart > takes a discount once (src/cart.rs:41)\n          assertion failed: 80 is not 90\n  report_invalid: target/b.xml:3: it is cut off\n"
        );
        report.failures = vec![test; SHOWN_FAILURES + 2];
        report.failures_left_out = 5;
        assert!(failed_tests(&report).contains("  and 7 more\n"));
    }
}
