//! Makes a database from `migrations/sqlite` at build time, so that every `query!` is checked
//! against the real schema on every build, with no prepared state that could be stale.

use std::{env, error::Error, path::PathBuf};

use sqlx::{Connection as _, Executor as _, sqlite::SqliteConnectOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let migrations = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../migrations/sqlite");
    println!("cargo:rerun-if-changed={}", migrations.display());
    let mut files = std::fs::read_dir(&migrations)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "sql"));
    files.sort();
    // Two branches may have taken the same number; a database would refuse to open.
    let number = |path: &PathBuf| -> Option<String> {
        Some(path.file_name()?.to_str()?.split('_').next()?.to_owned())
    };
    if let Some(pair) = files.windows(2).find(|pair| number(&pair[0]) == number(&pair[1])) {
        let [a, b] = [pair[0].display(), pair[1].display()];
        return Err(format!("{a} and {b} have the same number: give the later one the next").into());
    }
    // A name by content: the macros must not read a database of an older schema.
    let mut sql = String::new();
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
        sql.push_str(&std::fs::read_to_string(file)?);
        sql.push('\n');
    }
    let database = PathBuf::from(env::var("OUT_DIR")?).join("schema.sqlite");
    let _ = std::fs::remove_file(&database);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(&database).create_if_missing(true);
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await?;
        connection.execute(sqlx::AssertSqlSafe(sql)).await?;
        connection.close().await
    })?;
    println!("cargo:rustc-env=DATABASE_URL=sqlite://{}", database.display());
    Ok(())
}
