//! The page of each code: its wrong example gives that code, its right example gives nothing.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use pipeyard_pipelines::{Code, Context, Source, compile, explain};

fn example<'p>(page: &'p str, heading: &str) -> Option<&'p str> {
    let after = page.split_once(heading)?.1;
    let start = after.split_once("```yaml\n")?.1;
    Some(start.split_once("```").unwrap().0)
}

fn codes(text: &str) -> Vec<Code> {
    let compiled = compile(&Source::new(".pipeyard.yml", text), &Context::example());
    compiled.diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

/// Codes whose example would be too long, too odd for a page, or is no text at all.
const WITHOUT_EXAMPLE: &[Code] = &[
    Code::P003,
    Code::P004,
    Code::P005,
    Code::P006,
    Code::P013,
    Code::P014,
    Code::P015,
    Code::P106,
];

#[test]
fn every_code_has_a_page_whose_examples_are_true() {
    let mut untrue = Vec::new();
    for &code in Code::ALL {
        let page = explain(code.as_str()).unwrap();
        assert!(page.starts_with(&format!("# {code}: {}\n", code.title())), "{code}");
        assert!(page.len() > 120, "{code} says too little");
        match example(page, "Wrong:") {
            Some(wrong) if codes(wrong) != [code] => {
                untrue.push(format!("{:?} for {wrong}", codes(wrong)));
            }
            Some(_) => {}
            None => assert!(WITHOUT_EXAMPLE.contains(&code), "{code} has no wrong example"),
        }
        if let Some(right) = example(page, "Right:").filter(|right| !codes(right).is_empty()) {
            untrue.push(format!("{:?} for {right}", codes(right)));
        }
    }
    assert!(untrue.is_empty(), "{}", untrue.join("\n"));
}

#[test]
fn a_code_is_explained_in_small_letters_too_and_an_unknown_one_is_not() {
    assert_eq!(explain("p203"), explain("P203"));
    assert_eq!(explain("P999"), None);
    assert_eq!(explain(""), None);
}
