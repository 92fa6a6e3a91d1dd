//! Chores of the project: `cargo xtask arrows` checks the crate boundaries, `cargo xtask docs` writes
//! the reference pages that are generated from the code. Both are also tests.

mod arrows;
mod docs;
#[cfg(test)]
mod left_out;
mod licences;
mod metadata;

use std::{io::Write, path::Path, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Chores of the project")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Check which crate may depend on which, and the licences of all of them.
    Arrows,
    /// Write docs/reference/ from the code.
    Docs {
        /// Write nothing; fail if a page is out of date.
        #[arg(long)]
        check: bool,
    },
}

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn main() -> anyhow::Result<ExitCode> {
    let (wrong, done) = match Args::parse().chore {
        Chore::Arrows => {
            let metadata = metadata::read()?;
            let mut wrong = arrows::broken(&metadata);
            wrong.extend(licences::refused(&metadata)?);
            (wrong, "every arrow holds, and every licence is allowed".to_owned())
        }
        Chore::Docs { check: true } => {
            (docs::out_of_date()?, "every page is up to date".to_owned())
        }
        Chore::Docs { check: false } => (Vec::new(), format!("{} pages written", docs::write()?)),
    };
    let mut out = std::io::stderr().lock();
    if wrong.is_empty() {
        writeln!(out, "{done}")?;
        return Ok(ExitCode::SUCCESS);
    }
    for line in &wrong {
        writeln!(out, "error: {line}")?;
    }
    Ok(ExitCode::FAILURE)
}
