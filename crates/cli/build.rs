//! Builds the program of Git's hook as a static binary and hands it over to be embedded.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let hook = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../hook");
    pipeyard_embed::program(&hook, "pipeyard-hook", "hook", &["src", "Cargo.toml"])?;
    Ok(())
}
