//! Builds the shim as a static binary and hands it over to be embedded.

use std::{env, error::Error, fs, path::PathBuf};

use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let shim = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../shim");
    let inputs = ["src", "Cargo.toml", "Cargo.lock"];
    let program = pipeyard_embed::program(&shim, "pipeyard-shim", "release", &inputs)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("pipeyard-shim.sha256"), hex::encode(Sha256::digest(&program)))?;
    Ok(())
}
