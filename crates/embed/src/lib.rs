//! For build scripts: builds a static program with a cargo of its own, so that it can be embedded.
//!
//! The outer cargo's flags and wrappers must not reach the inner one: clippy's wrapper would check
//! instead of build, and another target directory or `RUSTFLAGS` would build something else.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Builds the program `name` of the crate in `folder` with `profile`, puts it as `name` into the
/// build script's output folder and answers its bytes. The script runs again when one of `inputs`,
/// below the crate's folder, changes.
///
/// # Errors
/// When it isn't for Linux, or doesn't build.
pub fn program(
    folder: &Path,
    name: &str,
    profile: &str,
    inputs: &[&str],
) -> Result<Vec<u8>, Box<dyn Error>> {
    let folder = folder.canonicalize()?;
    let mut say = std::io::stdout().lock();
    for input in inputs {
        use std::io::Write as _;
        writeln!(say, "cargo::rerun-if-changed={}", folder.join(input).display())?;
    }
    let target = env::var("TARGET")?;
    if !target.contains("-linux-") {
        return Err(format!("{name} runs on Linux only: there is none for {target}").into());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let inner = out.join(format!("{name}-target"));
    let mut cargo = Command::new(env::var("CARGO")?);
    for (variable, _) in env::vars_os() {
        if variable.to_str().is_some_and(is_the_outer_builds) {
            cargo.env_remove(&variable);
        }
    }
    cargo
        .current_dir(&folder)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .args(["build", "--quiet", "--locked", "--profile", profile, "--bin", name])
        .args(["--target", &target, "--target-dir"])
        .arg(&inner);
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("{name} in {} doesn't build: {status}", folder.display()).into());
    }
    let program = fs::read(inner.join(&target).join(profile).join(name))?;
    fs::write(out.join(name), &program)?;
    Ok(program)
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

#[cfg(test)]
mod tests {
    use super::is_the_outer_builds;

    #[test]
    fn what_describes_the_outer_build_stays_outside() {
        for outer in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "CLIPPY_ARGS"] {
            assert!(is_the_outer_builds(outer), "{outer}");
        }
        for kept in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_REGISTRIES_X_TOKEN", "PATH"] {
            assert!(!is_the_outer_builds(kept), "{kept}");
        }
    }
}
