//! What of a server goes into a backup, in which order, and what a restored one has to be told.
//!
//! The server may run and work meanwhile. Files come first, then the database as it is at one moment,
//! then the files that came in between: so whatever a row names was copied, before or after. Only age
//! removes files, and what it removes meanwhile was copied by then. Mirrors aren't copied: they are
//! fetched again.

use std::path::Path;

use anyhow::{Context as _, ensure};
use pipeyard_backup::{Key, Writer};
use pipeyard_model::{Clock as _, SystemClock};
use pipeyard_store_sqlite::{Adopted, SqliteStore, health};
use sha2::{Digest as _, Sha256};

/// The part's name, and its folder in a backup.
pub const PART: &str = "server";
const DATABASE: &str = "pipeyard.sqlite";
const KEY: &str = "key";

/// Whether this is a server's data folder.
#[must_use]
pub fn is_data(data: &Path) -> bool {
    data.join(DATABASE).is_file()
}

/// Copies a server's data. With `key_apart` the key that opens its secrets goes there instead.
///
/// # Errors
/// When something can't be read or written, or the database is damaged.
pub async fn back_up(
    data: &Path,
    out: &mut Writer,
    key_apart: Option<&Path>,
) -> anyhow::Result<()> {
    let database = data.join(DATABASE);
    ensure!(
        !health::is_empty(&database),
        "{} is empty: there is nothing to keep",
        database.display()
    );
    files(data, out)?;
    let name = format!("{PART}/{DATABASE}");
    health::copy(&database, &out.place(&name)?)
        .await
        .with_context(|| format!("failed to copy {}", database.display()))?;
    out.added(&name)?;
    files(data, out)?;
    drop_sealed(data, out)?;
    key(data, out, key_apart)?;
    out.part(PART);
    Ok(())
}

fn files(data: &Path, out: &mut Writer) -> anyhow::Result<()> {
    // A log that is being sealed has names that end so.
    let whole = |name: &str| !name.ends_with(".new");
    out.tree(&data.join("logs"), &format!("{PART}/logs"), &whole)?;
    out.tree(&data.join("blobs/sha256"), &format!("{PART}/blobs/sha256"), &whole)
}

/// A log that was sealed meanwhile was copied in both forms: the sealed one is the whole. Its index is
/// there before it is, and may have been missed by the look at the folder.
fn drop_sealed(data: &Path, out: &mut Writer) -> anyhow::Result<()> {
    let stem = |name: &str| name.strip_suffix(".zst").map(str::to_owned);
    let sealed: Vec<_> = out.names().filter_map(stem).collect();
    for stem in sealed {
        let index = format!("{stem}.idx");
        if !out.has(&index)
            && let Some(path) = index.strip_prefix(PART)
        {
            out.add(&data.join(path.trim_start_matches('/')), &index)?;
        }
        out.remove(&format!("{stem}.log"))?;
    }
    Ok(())
}

fn key(data: &Path, out: &mut Writer, apart: Option<&Path>) -> anyhow::Result<()> {
    let path = data.join(KEY);
    let Some(apart) = apart else {
        if out.add(&path, &format!("{PART}/{KEY}"))? {
            out.key(Key::Included);
        }
        return Ok(());
    };
    let bytes =
        std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
    ensure!(!apart.exists(), "{} is there already: nothing is overwritten", apart.display());
    pipeyard_private::write(apart, &bytes)?;
    out.key(Key::Apart { sha256: hex::encode(Sha256::digest(&bytes)) });
    Ok(())
}

/// Puts the key that was kept apart in its place.
///
/// # Errors
/// When it is another key.
pub fn bring_key(data: &Path, key: &Path, sha256: &str) -> anyhow::Result<()> {
    let bytes = std::fs::read(key).with_context(|| format!("failed to read {}", key.display()))?;
    ensure!(
        hex::encode(Sha256::digest(&bytes)) == sha256,
        "{} isn't the key of this backup: its secrets would stay closed",
        key.display()
    );
    pipeyard_private::write(&data.join(KEY), &bytes)?;
    Ok(())
}

/// Brings a restored database up to date and closes what belongs to the installation that it came
/// from: messages that waited were that one's to send.
///
/// # Errors
/// When the database can't be opened.
pub async fn adopt(data: &Path) -> anyhow::Result<Adopted> {
    let clock = SystemClock;
    let now = clock.now();
    let store = SqliteStore::open(&data.join(DATABASE), std::sync::Arc::new(clock)).await?;
    Ok(store.adopt(now).await?)
}
