//! Files that want to break the reader: none may panic, hang or eat the memory, and each finding has
//! its place.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{fmt::Write, time::Instant};

use pipeyard_pipelines::{Code, Compiled, Context, MAX_BYTES, Source, compile, render};
use proptest::prelude::*;

fn check(text: &str) -> Compiled {
    let compiled = compile(&Source::new(".pipeyard.yml", text), &Context::example());
    let errors = compiled.errors().count();
    assert_eq!(compiled.plan.is_some(), errors == 0, "a plan if and only if there is no error");
    assert!(compiled.diagnostics.len() <= 201);
    let lines = u32::try_from(text.matches('\n').count() + 1).unwrap();
    for found in &compiled.diagnostics {
        assert!(found.line >= 1 && found.column >= 1 && found.end_column > found.column, "{found}");
        assert!(found.line <= lines, "{found}");
        assert!(found.start <= found.end && found.end <= text.len().max(found.start), "{found}");
        assert!(!found.message.chars().any(char::is_control), "{:?}", found.message);
        let shown = render(found, text, false);
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        assert!(shown.contains(found.code.as_str()));
    }
    compiled
}

fn first(text: &str) -> Code {
    check(text).diagnostics.first().unwrap().code
}

#[test]
fn an_alias_bomb_is_refused_before_it_is_written_out() {
    let mut bomb = String::from("x-0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..30 {
        let items = vec![format!("*a{}", n - 1); 10].join(", ");
        writeln!(bomb, "x-{n}: &a{n} [{items}]").unwrap();
    }
    let start = Instant::now();
    assert_eq!(first(&bomb), Code::P006);
    assert!(start.elapsed().as_secs() < 2);
}

#[test]
fn a_merge_bomb_is_refused() {
    let mut bomb = String::from("x-0: &a\n");
    for n in 0..5_000 {
        writeln!(bomb, "  k{n}: v").unwrap();
    }
    for n in 0..5_000 {
        writeln!(bomb, "x-m{n}: {{<<: *a}}").unwrap();
    }
    assert_eq!(first(&bomb), Code::P006);
}

#[test]
fn a_chain_of_aliases_is_refused_before_it_is_too_deep_for_the_stack() {
    let mut chain = String::from("x-0: &a0 [x]\n");
    for n in 1..20_000 {
        writeln!(chain, "x-{n}: &a{n} [*a{}]", n - 1).unwrap();
    }
    assert_eq!(first(&chain), Code::P005);
}

#[test]
fn brackets_and_indentation_without_end_are_refused() {
    assert_eq!(first(&"[".repeat(20_000)), Code::P005);
    assert_eq!(first(&"{a: ".repeat(20_000)), Code::P005);
    assert_eq!(first(&"- ".repeat(20_000)), Code::P005);
    let steps: String = (0..200).map(|n| " ".repeat(n) + "a:\n").collect();
    assert_eq!(first(&steps), Code::P005);
}

#[test]
fn an_alias_of_itself_is_refused() {
    assert_eq!(first("jobs: &a\n  x: *a\n"), Code::P011);
    assert_eq!(first("jobs: &a [*a]\n"), Code::P011);
    assert_eq!(first("jobs: &a\n  <<: *a\n"), Code::P011);
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    assert_eq!(first(&"#".repeat(MAX_BYTES + 1)), Code::P004);
    assert_eq!(first(&"#".repeat(MAX_BYTES)), Code::P001);
}

#[test]
fn too_many_jobs_are_counted_and_refused() {
    let mut text = String::from("jobs:\n");
    for n in 0..10_001 {
        writeln!(text, "  j{n}: {{image: a, run: b}}").unwrap();
    }
    let compiled = check(&text);
    assert_eq!(compiled.diagnostics.len(), 1);
    assert_eq!(compiled.diagnostics[0].code, Code::P106);
}

#[test]
fn a_thousand_mistakes_give_two_hundred_and_a_count() {
    let mut text = String::from("jobs:\n");
    for n in 0..1_000 {
        writeln!(text, "  j{n}: {{image: A, run: b, needs: j{}x}}", n + 1).unwrap();
    }
    let compiled = check(&text);
    assert_eq!(compiled.diagnostics.len(), 201);
    let last = compiled.diagnostics.last().unwrap();
    assert_eq!(
        (last.code, last.message.as_str()),
        (Code::P015, "1800 further problems are not shown")
    );
}

#[test]
fn a_cycle_of_ten_thousand_jobs_is_named_in_one_message() {
    let mut text = String::from("jobs:\n");
    for n in 0..10_000 {
        writeln!(text, "  j{n}: {{image: a, run: b, needs: j{}}}", (n + 1) % 10_000).unwrap();
    }
    let compiled = check(&text);
    assert_eq!(compiled.diagnostics.len(), 1);
    let message = &compiled.diagnostics[0].message;
    assert!(message.starts_with("these need each other: `j0` -> `j1` ->"), "{message}");
    assert!(message.len() < 300, "{message}");
}

#[test]
fn text_from_strangers_reaches_neither_scripts_nor_the_terminal() {
    let context = Context {
        author: "$(reboot)\u{1b}[2J".into(),
        branch: "x;rm -rf /".into(),
        ..Context::example()
    };
    let text =
        "jobs:\n  a:\n    image: a\n    env: {WHO: '${commit.author}'}\n    run: echo $WHO\n";
    let compiled = compile(&Source::new(".pipeyard.yml", text), &context);
    let plan = serde_json::to_string(&compiled.plan.unwrap()).unwrap();
    assert!(plan.contains("\"run\":\"echo $WHO\"") && plan.contains("\"WHO\":\"$(reboot)"));
    let branch = "jobs:\n  a:\n    image: a:${commit.branch}\n    run: b\n";
    let compiled = compile(&Source::new(".pipeyard.yml", branch), &context);
    assert_eq!(compiled.diagnostics[0].code, Code::P208);
    check(
        "jobs:\n  \"(\\tpackage\": {image: a, run: b}\n  b: {image: a, run: b, needs: package}\n",
    );
    check("jobs:\n  \"a\\e[2J\\u202e\": {image: \"\\e]0;x\\a\", run: x}\n");
    check("jobs:\n  a\u{1b}[2J: {image: b\u{202e}, run: x}\n");
}

#[test]
fn nothing_is_filled_into_what_is_executed_whatever_the_key() {
    for (what, job) in [
        ("run", "run: 'echo ${commit.branch}'"),
        ("a step", "run: [{name: a, run: 'echo ${commit.branch}'}]"),
        (
            "command",
            "run: x\n    services: [{image: b, command: [sh, -c, 'echo ${commit.branch}']}]",
        ),
        ("a word", "run: x\n    services: [{image: b, command: ['${commit.author}']}]"),
        ("the escape", "run: x\n    services: [{image: b, command: [sh, -c, 'echo $${HOME}']}]"),
        ("BASH_ENV", "run: x\n    env: {BASH_ENV: '${commit.branch}'}"),
        ("a step's variable", "run: [{run: x, env: {GIT_SSH_COMMAND: 'ssh ${commit.branch}'}}]"),
        (
            "a service's",
            "run: x\n    services: [{image: b, env: {LD_PRELOAD: '${commit.branch}'}}]",
        ),
    ] {
        let compiled = check(&format!("jobs:\n  a:\n    image: a\n    {job}\n"));
        let found = &compiled.diagnostics[0];
        assert_eq!((found.code, compiled.plan.is_none()), (Code::P216, true), "{what}");
        assert!(found.line >= 4 && found.help.is_some(), "{what}: {found:?}");
    }
    // What a shell itself fills in stays as it is.
    let text = "jobs:\n  a:\n    image: a\n    run: x\n    services: [{image: b, command: [sh, -c, 'echo ${HOME}']}]\n";
    let plan = serde_json::to_string(&check(text).plan.unwrap()).unwrap();
    assert!(plan.contains("echo ${HOME}"), "{plan}");
}

#[test]
fn the_table_of_keys_tells_the_truth_about_what_is_filled_in() {
    // A text for each key of a job, a step, a service and a deploy that may hold one.
    let places = [
        ("jobs.<name>", "image", "jobs: {a: {image: 'x:X', run: r}}"),
        ("jobs.<name>", "run", "jobs: {a: {image: x, run: 'X'}}"),
        ("jobs.<name>", "env", "jobs: {a: {image: x, run: r, env: {V: 'X'}}}"),
        ("jobs.<name>", "artifacts", "jobs: {a: {image: x, run: r, artifacts: 'X'}}"),
        ("jobs.<name>", "tests", "jobs: {a: {image: x, run: r, tests: 'X'}}"),
        ("jobs.<name>.run[]", "name", "jobs: {a: {image: x, run: [{run: r, name: 'X'}]}}"),
        ("jobs.<name>.run[]", "run", "jobs: {a: {image: x, run: [{run: 'X'}]}}"),
        ("jobs.<name>.run[]", "image", "jobs: {a: {image: x, run: [{run: r, image: 'x:X'}]}}"),
        ("jobs.<name>.run[]", "env", "jobs: {a: {image: x, run: [{run: r, env: {V: 'X'}}]}}"),
        ("jobs.<name>.services[]", "image", "jobs: {a: {image: x, run: r, services: ['x:X']}}"),
        (
            "jobs.<name>.services[]",
            "env",
            "jobs: {a: {image: x, run: r, services: [{image: x, env: {V: 'X'}}]}}",
        ),
        (
            "jobs.<name>.services[]",
            "command",
            "jobs: {a: {image: x, run: r, services: [{image: x, command: ['X']}]}}",
        ),
        (
            "deploys.<name>",
            "release",
            "jobs: {a: {image: x, run: r, artifacts: 'X'}}\ndeploys: {d: {release: 'X', to: p/w, needs: a}}",
        ),
    ];
    let sha = Context::example().sha;
    for section in pipeyard_pipelines::keys::SECTIONS {
        for key in section.keys {
            let place =
                places.iter().find(|(path, name, _)| *path == section.path && *name == key.name);
            let Some((_, _, text)) = place else {
                assert!(!key.filled, "{} {} has no example here", section.path, key.name);
                continue;
            };
            let compiled = check(&text.replace('X', "${commit.sha}"));
            let plan = compiled.plan.map(|plan| serde_json::to_string(&plan.nodes).unwrap());
            let filled = plan.is_some_and(|plan| {
                // The commit stands in a variable of every job by itself.
                plan.replace(&format!("\"PIPEYARD_COMMIT\":\"{sha}\""), "").contains(&sha)
            });
            assert_eq!(filled, key.filled, "{} {}", section.path, key.name);
        }
    }
}

#[test]
fn values_of_other_yaml_readers_do_not_change_their_meaning() {
    let text = "jobs:\n  no:\n    image: a\n    run: 'yes'\n    env: {COUNTRY: no, VERSION: 1.20, MODE: 010, BIG: 1e3, ON: on, T: true}\n";
    let compiled = check(text);
    let plan = compiled.plan.unwrap();
    assert_eq!(plan.nodes[0].name.as_str(), "no");
    let pipeyard_model::plan::NodeKind::Job(job) = &plan.nodes[0].kind else { panic!("a job") };
    for (name, value) in [
        ("COUNTRY", "no"),
        ("VERSION", "1.20"),
        ("MODE", "010"),
        ("BIG", "1e3"),
        ("ON", "on"),
        ("T", "true"),
    ] {
        assert_eq!(job.env[name], value);
    }
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_read() {
    let text = "\u{feff}jobs:\r\n  a:\r\n    image: a\r\n    runn: b\r\n";
    let compiled = check(text);
    let found = &compiled.diagnostics[0];
    assert_eq!((found.code, found.line, found.column), (Code::P101, 4, 5));
}

#[test]
fn columns_count_characters_and_not_bytes() {
    let compiled = check("jobs:\n  a: {image: b, env: {이름: x}, run: c}\n");
    let found = &compiled.diagnostics[0];
    assert_eq!((found.code, found.line, found.column, found.end_column), (Code::P207, 2, 23, 25));
}

/// Lines that, in any order, come near to a pipeline.
fn lines() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "jobs:",
        "deploys:",
        "when:",
        "  push: main",
        "  a:",
        "  b: &b",
        "    image: rust:1.95",
        "    run: x",
        "    run: |",
        "      echo ${commit.sha}",
        "    needs: [a, b, c]",
        "    <<: *b",
        "    env: {A: 1}",
        "    services:",
        "      - image: redis",
        "        port: 1",
        "    release: x",
        "    to: p/w",
        "    canary: 5% for 1s",
        "    timeout: 1h",
        "\t",
        "- x",
        "---",
        "'",
        "\"",
        "[",
        "}",
        "# c",
        "",
        "  <<: [*b, *b]",
        "    artifacts: ['*', x]",
        "    needs: a",
        "? x",
        ": y",
        "  !!str a: b",
        "é: 한글",
        "\u{0}",
    ]);
    prop::collection::vec(line, 0..40).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        check(&text);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(source) = Source::from_bytes(".pipeyard.yml", &bytes) {
            check(&source.text);
        }
    }

    #[test]
    fn no_order_of_plausible_lines_makes_it_panic(text in lines()) {
        check(&text);
    }

    #[test]
    fn no_damage_to_a_good_file_makes_it_panic(at in 0_usize..700, with in "[\\PC\t\n]{0,3}", cut in 0_usize..12) {
        let base = include_str!("cases/full.yml");
        let chars: Vec<char> = base.chars().collect();
        let at = at.min(chars.len());
        let end = (at + cut).min(chars.len());
        let damaged: String = chars[..at].iter().chain(with.chars().collect::<Vec<_>>().iter()).chain(&chars[end..]).collect();
        check(&damaged);
    }
}
