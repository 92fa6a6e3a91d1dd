//! Each file in `tests/cases` against the plan or the messages that it must give.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{fmt::Write, fs, path::Path};

use pipeyard_pipelines::{Context, Source, compile, render};

/// What a person sees for this file: its findings, then its plan.
fn outcome(path: &str, text: &str) -> String {
    let compiled = compile(&Source::new(path, text), &Context::example());
    let mut out = String::new();
    for diagnostic in &compiled.diagnostics {
        writeln!(out, "{}", render(diagnostic, text, false)).unwrap();
    }
    if let Some(plan) = &compiled.plan {
        writeln!(out, "{}", serde_json::to_string_pretty(plan).unwrap()).unwrap();
    }
    for left in &compiled.left_out {
        writeln!(out, "left out: {}: {}", left.name, left.reason).unwrap();
    }
    out
}

#[test]
fn every_case_gives_its_reviewed_outcome() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yml"));
    files.sort();
    assert!(files.len() >= 2);
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        insta::with_settings!({ snapshot_suffix => name, omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!("case", outcome(".pipeyard.yml", &text));
        });
    }
}
