//! A database that was restored from a backup.

use pipeyard_model::Timestamp;
use pipeyard_store::StoreResult;

use crate::{SqliteStore, column::failed};

/// What was open when the backup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adopted {
    /// All runs.
    pub runs: i64,
    /// Jobs that were on a runner: they end as lost and are offered again, if they may be.
    pub jobs: i64,
    /// Deployments that weren't over.
    pub deployments: i64,
    /// Messages that waited and are not sent any more.
    pub messages: i64,
}

impl SqliteStore {
    /// Gives up the messages that waited to be sent: the installation that the backup was made of has
    /// sent them, or will. Answers what was open.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn adopt(&self, now: Timestamp) -> StoreResult<Adopted> {
        self.write(move |c| {
            Box::pin(async move {
                let row = sqlx::query!(
                    r#"SELECT (SELECT count(*) FROM runs) AS "runs!: i64",
                              (SELECT count(*) FROM jobs WHERE state = 'running') AS "jobs!: i64",
                              (SELECT count(*) FROM deployments WHERE finished_at IS NULL) AS "deployments!: i64",
                              (SELECT count(*) FROM outbox WHERE state = 'waiting') AS "messages!: i64""#
                )
                .fetch_one(&mut *c)
                .await
                .map_err(failed)?;
                sqlx::query!(
                    "UPDATE outbox SET state = 'dead', done_at = ?,
                            problem = 'it waited in a backup; the installation that was backed up sends it'
                     WHERE state = 'waiting'",
                    now.0
                )
                .execute(&mut *c)
                .await
                .map_err(failed)?;
                Ok(Adopted {
                    runs: row.runs,
                    jobs: row.jobs,
                    deployments: row.deployments,
                    messages: row.messages,
                })
            })
        })
        .await
    }
}
