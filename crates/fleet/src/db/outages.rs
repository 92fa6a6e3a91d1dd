//! Times in which a service answered nobody.

use pipeyard_model::{Timestamp, fleet::Outage};

use super::{Db, Result};

/// So many are kept of a group.
const KEEP: i64 = 100;

impl Db {
    /// Writes down that an outage began; one that is open goes on.
    pub(crate) async fn begin_outage(
        &self,
        application: &str,
        group: &str,
        began: Timestamp,
        reason: &str,
    ) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query!(
            "INSERT INTO outage (application, grp, began, reason)
             SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS (
                 SELECT 1 FROM outage WHERE application = ?1 AND grp = ?2 AND ended IS NULL)",
            application,
            group,
            began.0,
            reason
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "DELETE FROM outage WHERE application = ?1 AND grp = ?2 AND id <= (
                 SELECT id FROM outage WHERE application = ?1 AND grp = ?2
                 ORDER BY id DESC LIMIT 1 OFFSET ?3)",
            application,
            group,
            KEEP
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Ends the open outage of a group, if there is one.
    pub(crate) async fn end_outage(
        &self,
        application: &str,
        group: &str,
        ended: Timestamp,
    ) -> Result<()> {
        sqlx::query!(
            "UPDATE outage SET ended = max(began, ?) WHERE application = ? AND grp = ? AND ended IS NULL",
            ended.0,
            application,
            group
        )
        .execute(&self.write)
        .await?;
        Ok(())
    }

    /// The last outages of a group, newest first.
    pub(crate) async fn outages(&self, application: &str, group: &str) -> Result<Vec<Outage>> {
        let rows = sqlx::query!(
            "SELECT id, began, ended, reason FROM outage WHERE application = ? AND grp = ?
             ORDER BY id DESC LIMIT 20",
            application,
            group
        )
        .fetch_all(&self.read)
        .await?;
        let each = rows.into_iter().map(|row| Outage {
            id: row.id,
            began: Timestamp(row.began),
            ended: row.ended.map(Timestamp),
            reason: row.reason,
        });
        Ok(each.collect())
    }
}
