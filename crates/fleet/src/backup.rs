//! What of a fleet goes into a backup, and what makes a restored one another fleet.
//!
//! The fleet may run meanwhile: bundles come first, then the database as it is at one moment, then
//! the bundles that came in between. Its credentials and its proxy's routes and token stay behind: a
//! restored fleet makes its own, so it can't act as the one that it came from.

use std::path::Path;

use anyhow::{Context as _, ensure};
use pipeyard_backup::Writer;

use crate::db::{self, Db};

/// The part's name, and its folder in a backup.
pub const PART: &str = "fleet";
const DATABASE: &str = "fleet.db";

/// Whether this is a fleet's data folder.
#[must_use]
pub fn is_data(data: &Path) -> bool {
    data.join(DATABASE).is_file()
}

/// Copies a fleet's data.
///
/// # Errors
/// When something can't be read or written, or the database is damaged.
pub async fn back_up(data: &Path, out: &mut Writer) -> anyhow::Result<()> {
    let database = data.join(DATABASE);
    ensure!(!db::is_empty(&database), "{} is empty: there is nothing to keep", database.display());
    bundles(data, out)?;
    let name = format!("{PART}/{DATABASE}");
    db::copy(&database, &out.place(&name)?)
        .await
        .with_context(|| format!("failed to copy {}", database.display()))?;
    out.added(&name)?;
    bundles(data, out)?;
    out.part(PART);
    Ok(())
}

fn bundles(data: &Path, out: &mut Writer) -> anyhow::Result<()> {
    let whole = |name: &str| !name.starts_with("incoming-");
    out.tree(&data.join("bundles"), &format!("{PART}/bundles"), &whole)
}

/// Makes a restored fleet another one: everything in Docker carries the fleet's id, so this one never
/// touches what the other made.
///
/// # Errors
/// When the database can't be opened.
pub async fn adopt(data: &Path) -> anyhow::Result<()> {
    let (db, _) = Db::open(&data.join(DATABASE)).await?;
    db.renew_identity().await?;
    db.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_restored_fleet_is_another_one_with_the_same_bundles() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("fleet");
        std::fs::create_dir_all(data.join("bundles")).unwrap();
        std::fs::write(data.join("bundles/abc"), "bundle").unwrap();
        std::fs::write(data.join("bundles/incoming-1"), "half").unwrap();
        std::fs::write(data.join("credentials.json"), "secret").unwrap();
        // Open, as while the fleet runs.
        let (db, id) = Db::open(&data.join(DATABASE)).await.unwrap();
        db.probe().await.unwrap();
        let mut out = Writer::create(&dir.path().join("backup")).unwrap();
        back_up(&data, &mut out).await.unwrap();
        let names: Vec<_> = out.names().map(str::to_owned).collect();
        assert_eq!(names, ["fleet/bundles/abc", "fleet/fleet.db"]);
        out.finish("1", "today".into()).unwrap();
        let reader = pipeyard_backup::Reader::open(&dir.path().join("backup")).unwrap();
        reader.copy_to(&dir.path().join("new")).unwrap();
        let restored = dir.path().join("new/fleet");
        adopt(&restored).await.unwrap();
        let (_, other) = Db::open(&restored.join(DATABASE)).await.unwrap();
        assert_ne!(id, other);
        let (_, same) = Db::open(&data.join(DATABASE)).await.unwrap();
        assert_eq!(id, same, "the original is as it was");
    }

    #[tokio::test]
    async fn a_damaged_database_is_not_copied() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("fleet");
        std::fs::create_dir(&data).unwrap();
        let path = data.join(DATABASE);
        let (db, _) = Db::open(&path).await.unwrap();
        db.renew_identity().await.unwrap();
        db.close().await;
        let mut bytes = std::fs::read(&path).unwrap();
        let page = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        bytes[page * 3] ^= 0x04;
        std::fs::write(&path, bytes).unwrap();
        let mut out = Writer::create(&dir.path().join("backup")).unwrap();
        assert!(back_up(&data, &mut out).await.is_err());
        assert!(Db::open(&path).await.is_err(), "and it isn't used");
    }
}
