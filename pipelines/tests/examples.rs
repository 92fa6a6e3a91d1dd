//! Every example of this repository compiles without a finding.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use pipeyard_pipelines::{Context, Event, Source, compile, pipeline_files, render};

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn every_example_compiles_without_a_finding() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found = Vec::new();
    files(&examples, &mut found);
    let is_pipeline = |path: &PathBuf| {
        let inside = path.strip_prefix(&examples).unwrap();
        let text = inside.to_str().unwrap();
        let at_top = inside.components().count() == 1 && text.ends_with(".yml");
        at_top || text.contains(".pipeyard")
    };
    found.retain(is_pipeline);
    assert!(found.len() >= 6, "{found:?}");
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        let compiled = compile(&Source::new(path.to_str().unwrap(), &text), &Context::example());
        let said: Vec<_> = compiled.diagnostics.iter().map(|d| render(d, &text, false)).collect();
        assert!(said.is_empty(), "{}", said.join("\n"));
        assert!(compiled.left_out.is_empty(), "{}: {:?}", path.display(), compiled.left_out);
    }
}

#[test]
fn the_shop_has_two_jobs_and_two_deploys_on_main_and_no_deploy_on_a_pull_request() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/shop/.pipeyard.yml");
    let source = Source::new(".pipeyard.yml", fs::read_to_string(path).unwrap());
    let names = |event| {
        let context = Context { event, ..Context::example() };
        let plan = compile(&source, &context).plan.unwrap();
        plan.nodes.iter().map(|node| node.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(Event::Push), ["test", "package", "web", "worker"]);
    assert_eq!(names(Event::PullRequest { base: "main".into() }), ["test", "package"]);
}

#[test]
fn a_repository_with_several_pipelines_has_one_for_each_file() {
    let paths = [".pipeyard/api.yml", ".pipeyard/site.yml", "README.md"];
    assert_eq!(pipeline_files(paths), [".pipeyard/api.yml", ".pipeyard/site.yml"]);
}
