//! Tags of applications and groups, by ARN.

use super::{Db, Result};

impl Db {
    pub(crate) async fn tag(&self, arn: &str, tags: &[(String, String)]) -> Result<()> {
        let mut tx = self.begin().await?;
        for (key, value) in tags {
            sqlx::query!(
                "INSERT INTO resource_tag (arn, key, value) VALUES (?, ?, ?)
                 ON CONFLICT (arn, key) DO UPDATE SET value = excluded.value",
                arn,
                key,
                value
            )
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    pub(crate) async fn untag(&self, arn: &str, keys: &[String]) -> Result<()> {
        let mut tx = self.begin().await?;
        for key in keys {
            sqlx::query!("DELETE FROM resource_tag WHERE arn = ? AND key = ?", arn, key)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    pub(crate) async fn tags(&self, arn: &str) -> Result<Vec<(String, String)>> {
        let rows =
            sqlx::query!("SELECT key, value FROM resource_tag WHERE arn = ? ORDER BY key", arn)
                .fetch_all(&self.read)
                .await?;
        Ok(rows.into_iter().map(|row| (row.key, row.value)).collect())
    }
}
