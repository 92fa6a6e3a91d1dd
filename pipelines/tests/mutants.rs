//! One mistake at a time in a good file. The line and the code that must be shown are written by hand.

use pipeyard_pipelines::{Code, Context, Source, compile};

use Code::{
    P002, P003, P007, P008, P009, P010, P011, P012, P016, P101, P102, P103, P104, P105, P201, P202,
    P203, P204, P205, P206, P207, P208, P209, P210, P211, P212, P213, P214, P215, P216, P217, P218,
    P219, P301, P302, P304, P305, P306, P307, P308, P309, P310,
};

const BASE: &str = include_str!("cases/full.yml");

/// Line to replace, its new text (may be several lines), the line to blame, the code.
const MUTANTS: &[(usize, &str, u32, Code)] = &[
    // The text as YAML.
    (2, "when", 2, P002),
    (3, "\tpush: main", 3, P003),
    (3, "  push main", 3, P002),
    (7, "  test", 7, P002),
    (7, " test:\n   image: a\n  run: b", 9, P002),
    (8, "    image rust", 8, P002),
    (8, "\timage: rust:1.95", 8, P003),
    (9, "    services: [postgres:17", 9, P002),
    (10, "    secrets: {DATABASE_PASSWORD]", 10, P002),
    (12, "      - \"cargo test", 12, P002),
    (12, "      - cargo test: --locked: now", 12, P002),
    (13, "    tests: @target", 13, P002),
    (15, "  test:", 15, P007),
    (16, "    needs: test\n    needs: test", 17, P007),
    (16, "    needs: *test", 16, P011),
    (17, "    image: !env RUST", 17, P010),
    (18, "    <<: env\n    env:", 18, P016),
    (20, "    run: `make`", 20, P002),
    (20, "    run: |\n    make bundle", 21, P002),
    (20, "    run: >\n    make\n    bundle", 21, P002),
    (22, "---\njobs:", 22, P012),
    (24, "  {web}:", 24, P009),
    // Keys and kinds of value.
    (2, "on:", 2, P101),
    (3, "  pushes: main", 3, P101),
    (3, "  push:\n    branches: [main]", 4, P102),
    (5, "test:\n  image: a\n  run: b", 5, P101),
    (15, "  package:\n  run: b\n  other:", 15, P104),
    (19, "      - VERSION=1", 19, P102),
    (4, "  tag: v1", 4, P101),
    (6, "job:", 6, P101),
    (6, "version: 1\njobs:", 6, P101),
    (8, "    imagee: rust:1.95", 8, P101),
    (8, "    runs-on: big\n    image: rust:1.95", 8, P101),
    (8, "    privileged: true\n    image: rust:1.95", 8, P101),
    (8, "    image: [rust:1.95]", 8, P102),
    (8, "    # none", 7, P103),
    (9, "    services: []", 9, P104),
    (10, "    secrets:", 10, P104),
    (11, "    commands:", 11, P101),
    (12, "      - name: all", 12, P103),
    (12, "      - echo: hello", 12, P101),
    (12, "      - run: cargo test\n        timeot: 5m", 13, P101),
    (12, "      -", 12, P104),
    (16, "    needs: {test: success}", 16, P102),
    (16, "    needs:\n      - [test]", 17, P102),
    (19, "      VERSION:", 19, P104),
    (19, "      VERSION: [a]", 19, P102),
    (20, "    run: ''", 20, P104),
    (24, "  web: 1", 24, P002),
    (34, "  worker:\n  other:", 34, P104),
    (38, "    canary: 10% for 5m\n    rolling: 25% at a time", 39, P105),
    (39, "    approve: yes", 39, P102),
    (39, "    aprove: true", 39, P101),
    (39, "    approve: \"true\"", 39, P102),
    // Values of jobs and the graph.
    (3, "  push: \"!main\"", 3, P217),
    (3, "  push: [main, \"rel{\"]", 3, P217),
    (8, "    image: Rust:1.95", 8, P208),
    (8, "    image: --privileged", 8, P208),
    (8, "    image: rust:1.95\n    timeout: 10", 9, P209),
    (8, "    image: rust:1.95\n    timeout: 25h", 9, P209),
    (8, "    image: rust:1.95\n    retry: -1", 9, P210),
    (8, "    image: rust:1.95\n    labels: [ok, \"not ok\"]", 9, P214),
    (9, "    services: [postgres:17, postgres:16]", 9, P212),
    (9, "    services:\n      - image: a\n        port: 99999", 11, P210),
    (9, "    services:\n      - image: a\n        command: x | y", 11, P213),
    (10, "    secrets: [DATABASE-PASSWORD]", 10, P206),
    (10, "    secrets: [A, A]", 10, P219),
    (10, "    secrets: [A]\n    env: {A: b}", 10, P218),
    (12, "      - |\n        echo one\n        echo ${commit.branch}", 14, P216),
    (13, "    tests: /etc/passwd", 13, P211),
    (15, "  \"pack age\":\n    image: a\n    run: b\n  package:", 15, P201),
    (16, "    needs: tst", 16, P203),
    (16, "    needs: [test, package]", 16, P204),
    (16, "    needs:\n      - test\n      - Test", 18, P203),
    (19, "      VERSION-X: 1", 19, P207),
    (19, "      PIPEYARD_RUN: 1", 19, P207),
    (19, "      VERSION: ${commit.tag}", 19, P215),
    (19, "      VERSION: ${commit.sha", 19, P215),
    (21, "    artifacts:\n      - shop.tar.gz\n      - ../x", 23, P211),
    (25, "    needs: [package, worker]", 35, P205),
    // Deploys.
    (24, "  package:", 24, P202),
    (26, "    release: shop.tgz", 26, P302),
    (27, "    to: production", 27, P301),
    (27, "    to: production/web/x", 27, P301),
    (28, "    canary: [10% for 5m, 50%]", 28, P304),
    (28, "    canary:\n      - 10% for 5m\n      - 10% for 10m", 30, P305),
    (28, "    canary: 100% for 5m", 28, P304),
    (30, "      - error_rat < 1%", 30, P307),
    (31, "      - p95_ms < 300ms", 31, P307),
    (31, "      - p95_ms > 300", 31, P307),
    (32, "    otherwise: abort", 32, P308),
    (37, "    to: production/web", 37, P309),
    (38, "    rolling: 25%", 38, P306),
    (38, "    rolling: 0 at a time", 38, P306),
    (39, "    when:\n      pull_request:", 40, P310),
];

fn mutate(line: usize, text: &str) -> String {
    let mut lines: Vec<&str> = BASE.lines().collect();
    lines[line - 1] = text;
    lines.join("\n") + "\n"
}

#[test]
fn every_mistake_is_shown_on_its_line_with_its_code() {
    assert!(MUTANTS.len() >= 50);
    let mut wrong = Vec::new();
    for (line, text, blamed, code) in MUTANTS {
        let compiled =
            compile(&Source::new(".pipeyard.yml", mutate(*line, text)), &Context::example());
        let shown: Vec<_> = compiled.diagnostics.iter().map(|d| (d.line, d.code)).collect();
        if shown.first() != Some(&(*blamed, *code)) {
            let all: Vec<_> = compiled.diagnostics.iter().map(ToString::to_string).collect();
            wrong.push(format!(
                "line {line} as {text:?}: expected {code} in line {blamed}, got {all:#?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), MUTANTS.len(), wrong.join("\n"));
}

#[test]
fn a_list_as_the_whole_file_is_told() {
    let compiled = compile(&Source::new(".pipeyard.yml", "- a\n"), &Context::example());
    assert_eq!(compiled.diagnostics[0].code, P008);
}
