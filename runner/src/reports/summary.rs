//! From any number of cases to a report that is bounded, masked and fit to be shown.

use std::collections::{BTreeMap, btree_map::Entry};

use pipeyard_api::test_report::{
    FailedTest, Failing, MAX_FAILURES, MAX_MESSAGE, MAX_NAME, MAX_PROBLEMS, MAX_SUITES, MAX_TEXT,
    MAX_TEXTS, ReportProblem, TestCounts, TestReport, TestSuite,
};
use pipeyard_mask::Masker;

use super::junit::{Bad, Case, End, Invalid};

/// Stands where a text was cut.
const CUT: &str = "…";

/// Adds up cases.
pub(super) struct Summary {
    masker: Masker,
    report: TestReport,
    /// Where in the report a suite is; `None` for one that is only counted.
    suites: BTreeMap<String, Option<usize>>,
    /// Bytes of details and output that may still be kept.
    texts: usize,
}

impl Summary {
    pub(super) fn new(masker: Masker) -> Self {
        let (report, suites) = (TestReport::default(), BTreeMap::new());
        Self { masker, report, suites, texts: MAX_TEXTS }
    }

    /// Counts a case of the report at `path`, and keeps it if it failed.
    pub(super) fn add(&mut self, path: &str, case: Case) {
        let mut counts = TestCounts { duration_ms: case.duration_ms, ..TestCounts::default() };
        match &case.end {
            End::Passed => counts.passed = 1,
            End::Flaky => (counts.passed, counts.flaky) = (1, 1),
            End::Skipped => counts.skipped = 1,
            End::Bad(Bad { how: Failing::Failed, .. }) => counts.failed = 1,
            End::Bad(Bad { how: Failing::Errored, .. }) => counts.errored = 1,
        }
        self.report.counts.add(&counts);
        let suite = if case.suite.trim().is_empty() { path } else { &case.suite };
        let suite = self.name(suite);
        self.count(&suite, &counts);
        if let End::Bad(bad) = case.end {
            if self.report.failures.len() == MAX_FAILURES {
                self.report.failures_left_out += 1;
                return;
            }
            let name = match self.name(&case.name) {
                name if name.is_empty() => "(a test without a name)".into(),
                name => name,
            };
            let class = case.class.map(|class| self.name(&class));
            let file = case.file.map(|file| self.name(&file));
            let details = self.clean(&bad.details);
            let message = match self.clean(&bad.message) {
                message if message.is_empty() => details.lines().next().unwrap_or("").to_owned(),
                message => message,
            };
            let (message, _) = head(&message, MAX_MESSAGE);
            let (details, cut_details) = head(&details, MAX_TEXT.min(self.texts));
            self.texts -= details.len().min(self.texts);
            let (output, cut_output) = tail(&self.clean(&bad.output), MAX_TEXT.min(self.texts));
            self.texts -= output.len().min(self.texts);
            self.report.failures.push(FailedTest {
                suite,
                name,
                class,
                file,
                line: case.line,
                how: bad.how,
                message,
                details,
                output,
                cut: cut_details || cut_output,
                duration_ms: case.duration_ms,
            });
        }
    }

    fn count(&mut self, suite: &str, counts: &TestCounts) {
        let place = match self.suites.entry(suite.to_owned()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let place = self.report.suites.len();
                if place == MAX_SUITES {
                    self.report.suites_left_out += 1;
                    *new.insert(None)
                } else {
                    self.report
                        .suites
                        .push(TestSuite { name: suite.into(), ..TestSuite::default() });
                    *new.insert(Some(place))
                }
            }
        };
        if let Some(place) = place {
            self.report.suites[place].counts.add(counts);
        }
    }

    /// A report was read, to its end or to a mistake.
    pub(super) fn file(&mut self, path: &str, mistake: Option<Invalid>) {
        self.report.files += 1;
        if let Some(Invalid { line, why }) = mistake {
            let message = format!("{why}; only the tests before it are counted");
            let line = Some(line);
            self.problem(ReportProblem {
                code: "report_invalid".into(),
                path: path.into(),
                line,
                message,
            });
        }
    }

    /// Notes a problem.
    pub(super) fn problem(&mut self, problem: ReportProblem) {
        if self.report.problems.len() < MAX_PROBLEMS {
            let (message, _) = head(&self.clean(&problem.message), MAX_MESSAGE);
            let path = self.name(&problem.path);
            self.report.problems.push(ReportProblem { path, message, ..problem });
        }
    }

    /// The report; what a person looks for first comes first.
    pub(super) fn finish(mut self) -> TestReport {
        self.report.suites.sort_by_key(|suite| suite.counts.bad() == 0);
        self.report
    }

    fn name(&self, text: &str) -> String {
        head(&self.clean(text).replace(['\n', '\t'], " "), MAX_NAME).0
    }

    /// Masked, without escape codes and control characters. Masked twice: a secret may hold what is
    /// taken out, and may come together only when it is.
    fn clean(&self, text: &str) -> String {
        self.mask(plain(&self.mask(text)).trim())
    }

    fn mask(&self, text: &str) -> String {
        let mut masked = Vec::with_capacity(text.len());
        let mut masker = self.masker.fresh();
        masker.push(text.as_bytes(), &mut masked);
        masker.flush(&mut masked);
        String::from_utf8_lossy(&masked).into_owned()
    }
}

/// Text without escape sequences, control characters, and characters that turn its direction.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' if letters.next_if_eq(&'[').is_some() => {
                // Parameters, then one final letter.
                for letter in letters.by_ref() {
                    if !matches!(letter, '\u{20}'..='\u{3f}') {
                        break;
                    }
                }
            }
            '\n' | '\t' => out.push(letter),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            letter if letter.is_control() => {}
            letter => out.push(letter),
        }
    }
    out
}

/// The beginning of a text, at most `most` bytes; whether something is missing.
fn head(text: &str, most: usize) -> (String, bool) {
    if text.len() <= most {
        return (text.to_owned(), false);
    }
    let end = text.floor_char_boundary(most.saturating_sub(CUT.len()));
    let mut cut = text[..end].to_owned();
    if most >= CUT.len() {
        cut.push_str(CUT);
    }
    (cut, true)
}

/// The end of a text, at most `most` bytes; whether something is missing.
fn tail(text: &str, most: usize) -> (String, bool) {
    if text.len() <= most {
        return (text.to_owned(), false);
    }
    let room = most.saturating_sub(CUT.len());
    let start = text.ceil_char_boundary(text.len() - room);
    let cut = if most >= CUT.len() { format!("{CUT}{}", &text[start..]) } else { String::new() };
    (cut, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(n: usize, output: &str) -> Case {
        Case {
            suite: format!("suite {n}"),
            name: format!("test {n}"),
            end: End::Bad(Bad {
                how: Failing::Failed,
                message: String::new(),
                details: "first line\nsecond".into(),
                output: output.to_owned(),
            }),
            ..Case::default()
        }
    }

    fn summary() -> Summary {
        Summary::new(Masker::new(std::iter::empty()))
    }

    #[test]
    fn a_report_is_bounded_and_still_counts_everything() {
        let mut summary = summary();
        let output = "한".repeat(MAX_TEXT);
        let many = MAX_FAILURES * 3;
        for n in 0..many {
            summary.add("a.xml", failing(n, &output));
        }
        for n in 0..2 * MAX_PROBLEMS {
            summary.file(&format!("{n}.xml"), Some(Invalid { line: 1, why: "x".repeat(10_000) }));
        }
        let report = summary.finish();
        assert_eq!(report.counts.failed as usize, many);
        assert_eq!(report.failures.len() + report.failures_left_out as usize, many);
        assert_eq!(report.suites.len() + report.suites_left_out as usize, many);
        assert_eq!(report.problems.len(), MAX_PROBLEMS);
        assert_eq!(
            report.failures[0].message, "first line",
            "the details name what the report doesn't"
        );
        assert!(report.failures[0].cut && report.failures[0].output.starts_with("…한"));
        let size = serde_json::to_string(&report).unwrap().len();
        assert!(size < 2 << 20, "{size}");
    }

    #[test]
    fn suites_with_failed_tests_come_first() {
        let mut summary = summary();
        summary.add("a.xml", Case { suite: "good".into(), ..Case::default() });
        summary.add("a.xml", failing(1, ""));
        summary.add("a.xml", Case { suite: " ".into(), ..Case::default() });
        let names: Vec<_> = summary.finish().suites.into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["suite 1", "good", "a.xml"]);
    }

    #[test]
    fn colours_and_control_characters_are_taken_out() {
        let text = "a\u{1b}[31;1mred\u{1b}[0m\tb\nc\u{7}\u{202e}d\u{1b}";
        assert_eq!(plain(text), "ared\tb\ncd");
    }

    #[test]
    fn texts_are_cut_between_letters() {
        assert_eq!(head("한글이다", 10), ("한글…".into(), true));
        assert_eq!(tail("한글이다", 10), ("…이다".into(), true));
        assert_eq!(head("한글", 6), ("한글".into(), false));
        assert_eq!(head("한글", 0), (String::new(), true));
        assert_eq!(tail("한글", 0), (String::new(), true));
    }
}
