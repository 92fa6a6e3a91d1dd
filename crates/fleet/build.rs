//! Makes an empty database from the migrations, so that every query is checked on every build and
//! no prepared state has to be kept.

use std::{env, error::Error, path::PathBuf};

use sqlx::{
    ConnectOptions, Connection,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};

fn main() -> Result<(), Box<dyn Error>> {
    let migrations = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../migrations/fleet");
    let database = PathBuf::from(env::var("OUT_DIR")?).join("fleet.db");
    println!("cargo:rerun-if-changed={}", migrations.display());
    if database.exists() {
        std::fs::remove_file(&database)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let options = SqliteConnectOptions::new()
            .filename(&database)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Delete);
        let mut connection = options.connect().await?;
        Migrator::new(migrations).await?.run(&mut connection).await?;
        connection.close().await?;
        Ok::<_, Box<dyn Error>>(())
    })?;
    println!("cargo:rustc-env=DATABASE_URL=sqlite://{}", database.display());
    Ok(())
}
