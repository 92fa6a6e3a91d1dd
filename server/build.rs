//! Lists the built UI for embedding. Without a built UI the server still compiles, with one page
//! that says how to build it.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

const PLACEHOLDER: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
<title>Pipeyard</title></head><body><h1>Pipeyard</h1>\
<p>This server was built without its web pages. Build them with <code>npm ci &amp;&amp; npm run build</code> \
in <code>web/</code>, then build the server again. The API and <code>pipectl</code> work as they are.</p>\
</body></html>\n";

fn main() -> Result<(), Box<dyn Error>> {
    let dist = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../web/dist");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // A folder that doesn't exist would make every build run this again; its parent may be watched.
    let web = dist.parent().ok_or("web/dist has no parent")?;
    let watched = if dist.is_dir() { &dist } else { web };
    if watched.is_dir() {
        println!("cargo:rerun-if-changed={}", watched.display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    let mut files = Vec::new();
    if dist.join("index.html").is_file() {
        collect(&dist, &mut files)?;
        files.sort();
    }
    let mut code = String::from("pub(super) static ASSETS: &[(&str, &[u8])] = &[\n");
    for file in &files {
        let name = file.strip_prefix(&dist)?.to_str().ok_or("a file name isn't UTF-8")?;
        let path = file.canonicalize()?;
        writeln!(code, "    ({name:?}, include_bytes!({path:?})),")?;
    }
    if files.is_empty() {
        let page = out.join("placeholder.html");
        fs::write(&page, PLACEHOLDER)?;
        writeln!(code, "    (\"index.html\", include_bytes!({page:?})),")?;
    }
    code.push_str("];\n");
    fs::write(out.join("assets.rs"), code)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
