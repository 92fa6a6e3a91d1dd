//! Every route that the proxy is to serve, before it is told.

use pipeyard_model::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Db, Result, from_doc, to_doc};
use crate::proxy::RouteArm;

/// A route without its epoch, which is the row's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrafficDoc {
    pub(crate) listen: u16,
    pub(crate) arms: Vec<RouteArm>,
    /// Why.
    pub(crate) reason: String,
}

/// Old rows of a group are history; so many are kept.
const KEEP: i64 = 1_000;

impl Db {
    /// Writes down a route and returns its version, which is above `after` and all before.
    pub(crate) async fn write_traffic(
        &self,
        application: &str,
        group: &str,
        doc: &TrafficDoc,
        after: i64,
        now: Timestamp,
    ) -> Result<i64> {
        let mut tx = self.begin().await?;
        let doc = to_doc(doc)?;
        let last =
            sqlx::query_scalar!("SELECT max(version) FROM traffic").fetch_one(&mut *tx).await?;
        let version = (after >= last.unwrap_or(0)).then(|| after.saturating_add(1));
        let done = sqlx::query!(
            "INSERT INTO traffic (version, application, grp, doc, written) VALUES (?, ?, ?, ?, ?)",
            version,
            application,
            group,
            doc,
            now.0
        )
        .execute(&mut *tx)
        .await?;
        let version = done.last_insert_rowid();
        sqlx::query!(
            "DELETE FROM traffic WHERE application = ?1 AND grp = ?2 AND version <= (
                 SELECT version FROM traffic WHERE application = ?1 AND grp = ?2
                 ORDER BY version DESC LIMIT 1 OFFSET ?3)",
            application,
            group,
            KEEP
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(version)
    }

    pub(crate) async fn traffic_applied(&self, version: i64, now: Timestamp) -> Result<()> {
        sqlx::query!("UPDATE traffic SET applied = ? WHERE version = ?", now.0, version)
            .execute(&self.write)
            .await?;
        Ok(())
    }

    /// The last route of a group and its version.
    pub(crate) async fn traffic(
        &self,
        application: &str,
        group: &str,
    ) -> Result<Option<(i64, TrafficDoc)>> {
        let row = sqlx::query!(
            "SELECT version, doc FROM traffic WHERE application = ? AND grp = ?
             ORDER BY version DESC LIMIT 1",
            application,
            group
        )
        .fetch_optional(&self.read)
        .await?;
        row.map(|row| Ok((row.version, from_doc(&row.doc)?))).transpose()
    }
}
