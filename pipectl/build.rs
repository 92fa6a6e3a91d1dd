//! Embeds the sample shop, so that `pipectl demo` works wherever the executable is.

use std::{
    error::Error,
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    let shop = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?)
        .join("../pipelines/examples/shop")
        .canonicalize()?;
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", shop.display());
    let mut list = String::from("&[\n");
    embed(&shop, &shop, &mut list)?;
    list.push(']');
    fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("shop.rs"), list)?;
    Ok(())
}

/// A line for each file: its path in the shop, whether it is executable, its content.
fn embed(shop: &Path, folder: &Path, list: &mut String) -> Result<(), Box<dyn Error>> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            embed(shop, &path, list)?;
            continue;
        }
        let executable = entry.metadata()?.permissions().mode() & 0o111 != 0;
        let name = path.strip_prefix(shop)?;
        writeln!(list, "({name:?}, {executable}, include_bytes!({path:?})),")?;
    }
    Ok(())
}
