//! Which bundle is where in the store.

use pipeyard_model::Timestamp;

use super::{Db, Result, from_doc, to_doc};
use crate::bundles::Content;

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

    /// Forgets bundles that were stored before `before` and that no active deployment and none of
    /// the last twenty of a group names. Returns the
    /// digests that still have a name.
    pub(crate) async fn forget_bundles(&self, before: Timestamp) -> Result<Vec<String>> {
        let mut tx = self.begin().await?;
        sqlx::query!(
            "DELETE FROM bundle WHERE stored < ?1 AND NOT EXISTS (
                 SELECT 1 FROM (
                     SELECT doc, active, row_number() OVER (
                         PARTITION BY application, grp ORDER BY seq DESC) AS age
                     FROM deployment) AS d
                 WHERE (d.active = 1 OR d.age <= 20)
                   AND json_extract(d.doc, '$.revision.s3Location.bucket') = bundle.bucket
                   AND json_extract(d.doc, '$.revision.s3Location.key') = bundle.key)",
            before.0
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!("DELETE FROM bundle_content WHERE sha256 NOT IN (SELECT sha256 FROM bundle)")
            .execute(&mut *tx)
            .await?;
        let kept =
            sqlx::query_scalar!("SELECT DISTINCT sha256 FROM bundle").fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(kept)
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

    /// Keeps what a bundle holds.
    pub(crate) async fn put_bundle_content(&self, sha256: &str, content: &Content) -> Result<()> {
        let doc = to_doc(content)?;
        sqlx::query!(
            "INSERT INTO bundle_content (sha256, doc) VALUES (?1, ?2)
             ON CONFLICT (sha256) DO UPDATE SET doc = ?2",
            sha256,
            doc
        )
        .execute(&self.write)
        .await?;
        Ok(())
    }

    /// What a bundle holds, if somebody has looked.
    pub(crate) async fn bundle_content(&self, sha256: &str) -> Result<Option<Content>> {
        let doc = sqlx::query_scalar!("SELECT doc FROM bundle_content WHERE sha256 = ?", sha256)
            .fetch_optional(&self.read)
            .await?;
        doc.map(|doc| from_doc(&doc)).transpose()
    }
}
