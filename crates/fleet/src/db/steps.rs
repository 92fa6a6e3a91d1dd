//! What the engine is about to do, and how it ended.

use pipeyard_model::Timestamp;

use super::{Db, Result};

impl Db {
    /// Writes down a step before its effect. Steps of the same deployment, target and name that
    /// never ended were cut off by a restart; they are ended as such.
    pub(crate) async fn begin_step(
        &self,
        deployment: &str,
        target: Option<&str>,
        name: &str,
        detail: &str,
        now: Timestamp,
    ) -> Result<i64> {
        let mut tx = self.begin().await?;
        sqlx::query!(
            "UPDATE step SET ended = ?, outcome = 'interrupted'
             WHERE deployment = ? AND target IS ? AND name = ? AND ended IS NULL",
            now.0,
            deployment,
            target,
            name
        )
        .execute(&mut *tx)
        .await?;
        let done = sqlx::query!(
            "INSERT INTO step (deployment, target, name, detail, started) VALUES (?, ?, ?, ?, ?)",
            deployment,
            target,
            name,
            detail,
            now.0
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.last_insert_rowid())
    }

    pub(crate) async fn end_step(&self, id: i64, outcome: &str, now: Timestamp) -> Result<()> {
        sqlx::query!(
            "UPDATE step SET ended = ?, outcome = ? WHERE id = ? AND ended IS NULL",
            now.0,
            outcome,
            id
        )
        .execute(&self.write)
        .await?;
        Ok(())
    }
}
