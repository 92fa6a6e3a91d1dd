//! Ten thousand jobs in one file.

use std::{fmt::Write, time::Instant};

use pipeyard_pipelines::{Context, MAX_NODES, Source, compile};

#[test]
fn ten_thousand_jobs_compile_while_one_waits() {
    let mut text = String::from("jobs:\n");
    for n in 0..MAX_NODES {
        writeln!(text, "  job-{n}:\n    image: rust:1.95\n    run: cargo test -p crate-{n}")
            .unwrap();
        if n > 0 {
            writeln!(text, "    needs: job-{}", n - 1).unwrap();
        }
    }
    let source = Source::new(".pipeyard.yml", text);
    let start = Instant::now();
    let compiled = compile(&source, &Context::example());
    let took = start.elapsed();
    println!("{} jobs, {} bytes: {} ms", MAX_NODES, source.text.len(), took.as_millis());
    assert_eq!(compiled.plan.unwrap().nodes.len(), MAX_NODES);
    // The target is 100 ms in an optimised build; this one isn't, and its machine may be busy.
    assert!(took.as_secs() < 5, "{took:?}");
}
