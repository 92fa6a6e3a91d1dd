//! Which bundle is where in the store.

use pipeyard_model::Timestamp;

use super::{Db, Result};

/// A bundle in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bundle {
    pub(crate) sha256: String,
    pub(crate) size: i64,
}

impl Db {
    pub(crate) async fn put_bundle(
        &self,
        bucket: &str,
        key: &str,
        bundle: &Bundle,
        now: Timestamp,
    ) -> Result<()> {
        sqlx::query!(
            "INSERT INTO bundle (bucket, key, sha256, size, stored) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (bucket, key) DO UPDATE
             SET sha256 = excluded.sha256, size = excluded.size, stored = excluded.stored",
            bucket,
            key,
            bundle.sha256,
            bundle.size,
            now.0
        )
        .execute(&self.write)
        .await?;
        Ok(())
    }

    pub(crate) async fn bundle(&self, bucket: &str, key: &str) -> Result<Option<Bundle>> {
        let row = sqlx::query!(
            "SELECT sha256, size FROM bundle WHERE bucket = ? AND key = ?",
            bucket,
            key
        )
        .fetch_optional(&self.read)
        .await?;
        Ok(row.map(|row| Bundle { sha256: row.sha256, size: row.size }))
    }
}
