use super::*;

fn cases(xml: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    read(xml.as_bytes(), |case| cases.push(case)).unwrap();
    cases
}

/// Passed, failed, errored, skipped, flaky, and all milliseconds.
fn tally(xml: &str) -> [u64; 6] {
    let mut tally = [0; 6];
    for case in cases(xml) {
        let at = match &case.end {
            End::Passed => 0,
            End::Bad(bad) if bad.how == Failing::Failed => 1,
            End::Bad(_) => 2,
            End::Skipped => 3,
            End::Flaky => 4,
        };
        tally[at] += 1;
        tally[5] += case.duration_ms;
    }
    tally
}

fn bad(case: &Case) -> &Bad {
    match &case.end {
        End::Bad(bad) => bad,
        other => panic!("{} ended as {other:?}", case.name),
    }
}

#[test]
fn every_dialect_is_counted_by_its_cases() {
    for (name, xml, expected) in [
        ("nextest", include_str!("dialects/nextest.xml"), [2, 1, 0, 0, 1, 125]),
        ("pytest", include_str!("dialects/pytest.xml"), [1, 1, 1, 1, 0, 53]),
        ("jest", include_str!("dialects/jest.xml"), [1, 1, 0, 1, 0, 9]),
        ("surefire", include_str!("dialects/surefire.xml"), [1, 1, 1, 0, 0, 1_200_512]),
        ("gradle", include_str!("dialects/gradle.xml"), [1, 0, 0, 1, 0, 20]),
        ("go", include_str!("dialects/go.xml"), [1, 1, 1, 1, 0, 10]),
    ] {
        assert_eq!(tally(xml), expected, "{name}");
    }
}

#[test]
fn a_failed_test_says_where_it_is_and_why() {
    let nextest = cases(include_str!("dialects/nextest.xml"));
    let failed = &nextest[1];
    assert_eq!(
        (failed.suite.as_str(), failed.class.as_deref()),
        ("shop::cart", Some("shop::cart"))
    );
    assert_eq!(
        bad(failed).message,
        "thread 'tests::a_discount_is_taken_once' panicked at src/cart.rs:41:9"
    );
    assert!(bad(failed).details.contains("left: 80"), "{:?}", bad(failed).details);
    assert!(!bad(failed).details.contains("again"), "a later try isn't the failure");
    assert!(bad(failed).output.contains("FAILED\n\nthread"), "{:?}", bad(failed).output);

    let pytest = cases(include_str!("dialects/pytest.xml"));
    assert_eq!((pytest[1].file.as_deref(), pytest[1].line), (Some("tests/test_cart.py"), Some(14)));
    assert!(bad(&pytest[1]).message.starts_with("AssertionError: assert 80 == 90\n"));
    assert!(bad(&pytest[1]).details.contains("<tests.test_cart.TestDiscount object"));
    assert_eq!(bad(&pytest[2]).message, "failed on setup with \"ConnectionError: no database\"");

    let surefire = cases(include_str!("dialects/surefire.xml"));
    assert_eq!(bad(&surefire[0]).output, "cart of 1 <item>\n\nwarning: no stock");
    assert_eq!(bad(&surefire[1]).message, "java.lang.NullPointerException", "its type stands in");
}

#[test]
fn suites_inside_of_suites_name_the_innermost() {
    let xml = "<testsuites><testsuite name='outer'><testsuite name='inner'><testcase name='a'/>\
               </testsuite><testsuite><testcase name='b'/></testsuite><testcase name='c'/></testsuite>\
               </testsuites>";
    let suites: Vec<_> = cases(xml).into_iter().map(|c| (c.name, c.suite)).collect();
    let expected = [("a", "inner"), ("b", "outer"), ("c", "outer")];
    assert_eq!(suites, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

fn invalid(xml: &str) -> (u32, String, usize) {
    let mut seen = 0;
    let error = read(xml.as_bytes(), |_| seen += 1).unwrap_err();
    (error.line, error.why, seen)
}

#[test]
fn a_mistake_has_its_line_and_what_precedes_it_counts() {
    let (line, why, seen) =
        invalid("<testsuite>\n<testcase name='a'/>\n<testcase name='b'>\n</testsuite>\n");
    assert_eq!((line, seen), (4, 1), "{why}");
    let (line, why, seen) = invalid("<testsuite>\n<testcase name='a'/>\n<testcase name='b'>\n");
    assert_eq!((line, seen), (4, 1), "{why}");
    assert!(why.contains("cut off: <testcase>"), "{why}");
    let (line, why, _) = invalid("<?xml version='1.0'?>\n\n<html><body/></html>");
    assert_eq!(line, 3, "{why}");
    assert!(why.contains("<html>"), "{why}");
    for empty in ["", "\n", "just text"] {
        assert!(invalid(empty).1.contains("empty"), "{empty:?}");
    }
    assert!(read(b"\xff\xfe<\0", |_| ()).unwrap_err().why.contains("UTF-8"));
}

#[test]
fn no_entity_of_a_document_is_expanded() {
    let bomb = "<!DOCTYPE t [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>\
                <!ENTITY file SYSTEM 'file:///etc/passwd'>]>\n";
    for (reference, at) in [("&b;", 3), ("&file;", 3)] {
        let text = format!(
            "{bomb}<testsuite><testcase name='a'><failure>\n{reference}</failure></testcase></testsuite>"
        );
        let (line, why, seen) = invalid(&text);
        assert_eq!((line, seen), (at, 0), "{why}");
        let attribute = format!("{bomb}<testsuite><testcase name='{reference}'/></testsuite>");
        assert_eq!(invalid(&attribute).2, 0);
    }
    assert_eq!(cases(&format!("{bomb}<testsuite><testcase name='a'/></testsuite>")).len(), 1);
}

#[test]
fn nesting_is_bounded() {
    let deep = format!("<testsuite>{}", "<x>".repeat(100_000));
    assert!(invalid(&deep).1.contains("inside of each other"));
}

#[test]
fn bytes_that_are_no_text_and_a_mark_at_the_start_are_no_mistake() {
    let xml = b"\xef\xbb\xbf<testsuite><testcase name='a \xff'/></testsuite>";
    let mut names = Vec::new();
    read(xml, |case| names.push(case.name)).unwrap();
    assert_eq!(names, ["a \u{fffd}"]);
}

#[test]
fn times_are_read_as_they_are_written() {
    for (text, expected) in [
        ("0.0015", 2),
        ("1,234.5", 1_234_500),
        ("0,5", 500),
        ("1e3", 1_000_000),
        ("-1", 0),
        ("NaN", 0),
        ("inf", u64::from(u32::MAX)),
        ("soon", 0),
        ("", 0),
    ] {
        assert_eq!(milliseconds(text), expected, "{text:?}");
    }
}
