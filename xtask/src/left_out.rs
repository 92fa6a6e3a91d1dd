//! Tests that can't run: `tests/needs` alone decides what follows. A test that looks for itself and
//! returns passes in silence.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What only `tests/needs` may say in a test.
const SAID: [&str; 4] = ["SKIPPED", "println!(\"skip", "var_os(\"CI\")", "var(\"CI\")"];

/// Every line in a test that leaves it out by a rule of its own.
fn by_themselves(root: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for place in ["crates", "server", "runner", "pipectl", "tests", "bench"] {
        rust_files(&root.join(place), &mut files);
    }
    files.retain(|file| {
        let file = file.strip_prefix(root).unwrap_or(file).to_string_lossy();
        file.contains("tests/") && !file.starts_with("tests/needs/")
    });
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        for (n, line) in text.lines().enumerate() {
            if SAID.iter().any(|said| line.contains(said)) {
                found.push(format!("{}:{}: {}", file.display(), n + 1, line.trim()));
            }
        }
    }
    found
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != "node_modules" {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn no_test_is_left_out_by_a_rule_of_its_own() {
    let found = by_themselves(crate::root());
    assert!(found.is_empty(), "use pipeyard_needs (tests/needs):\n{}", found.join("\n"));
}

#[test]
fn one_that_does_is_found() {
    let root = std::env::temp_dir().join(format!("pipeyard-left-out-{}", std::process::id()));
    let tests = root.join("crates/x/tests");
    fs::create_dir_all(&tests).unwrap();
    fs::write(tests.join("y.rs"), "fn t() {\n    eprintln!(\"SKIPPED t\");\n}\n").unwrap();
    let found = by_themselves(&root);
    fs::remove_dir_all(&root).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("y.rs:2:"), "{found:?}");
}
