//! Builds the shim as a static binary with a cargo of its own and hands it over to be embedded.
//!
//! The outer cargo's flags and wrappers must not reach the inner one: clippy's wrapper would check
//! instead of build, and another target directory or `RUSTFLAGS` would build something else.

use std::{env, error::Error, fs, path::PathBuf, process::Command};

use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let shim = here.join("../shim").canonicalize()?;
    for input in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", shim.join(input).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    let target = env::var("TARGET")?;
    if !target.contains("-linux-") {
        return Err(format!("jobs run on Linux only: there is no shim for {target}").into());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut cargo = Command::new(env::var("CARGO")?);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_the_outer_builds) {
            cargo.env_remove(&name);
        }
    }
    cargo
        .current_dir(&shim)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .args(["build", "--quiet", "--release", "--locked", "--target", &target, "--target-dir"])
        .arg(out.join("shim-target"));
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("the shim in {} doesn't build: {status}", shim.display()).into());
    }
    let built = out.join("shim-target").join(&target).join("release/pipeyard-shim");
    let program = fs::read(built)?;
    fs::write(out.join("pipeyard-shim.sha256"), hex::encode(Sha256::digest(&program)))?;
    fs::write(out.join("pipeyard-shim"), program)?;
    Ok(())
}

/// Variables that describe the outer build. What says where crates come from (`CARGO_HOME`,
/// registries, proxies, offline) stays.
fn is_the_outer_builds(name: &str) -> bool {
    const KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_NET_",
        "CARGO_HTTP_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
    ];
    const DROPPED: [&str; 9] = [
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "RUSTC",
        "RUSTDOC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_LINKER",
        "TARGET",
        "LLVM_PROFILE_FILE",
    ];
    let is_cargos = name.starts_with("CARGO") && !KEPT.iter().any(|kept| name.starts_with(kept));
    is_cargos || DROPPED.contains(&name) || name.starts_with("CLIPPY")
}
