//! Events: what happened, in order.

use async_trait::async_trait;
use pipeyard_api::views::EventView;
use pipeyard_model::{RunId, Timestamp};
use pipeyard_store::{StoreResult, events::Events};
use serde::Serialize;
use sqlx::SqliteConnection;
use tokio::sync::watch;

use crate::{SqliteStore, column};

/// Rows that one piece of a clean-up removes; others get their turn in between.
const PIECE: i64 = 2_000;

/// An event that isn't stored yet.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct NewEvent {
    /// `run.changed`, `job.changed`, ...
    pub(crate) kind: &'static str,
    /// The run it belongs to.
    pub(crate) run: Option<i64>,
    /// The job's name.
    pub(crate) job: Option<String>,
    /// The deployment it belongs to.
    pub(crate) deployment: Option<i64>,
}

/// Appends events inside the caller's transaction.
pub(crate) async fn append(
    connection: &mut SqliteConnection,
    events: &[NewEvent],
    now: Timestamp,
) -> StoreResult<()> {
    if events.is_empty() {
        return Ok(());
    }
    let events = column::to_json(events)?;
    sqlx::query!(
        "INSERT INTO events (at, kind, run, job, deployment)
         SELECT ?, e.value ->> 'kind', e.value ->> 'run', e.value ->> 'job', e.value ->> 'deployment'
         FROM json_each(?) AS e ORDER BY e.key",
        now.0,
        events
    )
    .execute(connection)
    .await
    .map_err(column::failed)?;
    Ok(())
}

#[async_trait]
impl Events for SqliteStore {
    async fn events(
        &self,
        after: i64,
        run: Option<RunId>,
        limit: u32,
    ) -> StoreResult<Vec<EventView>> {
        struct Row {
            seq: i64,
            at: i64,
            kind: String,
            run: Option<i64>,
            job: Option<String>,
            deployment: Option<i64>,
        }
        let rows = match run {
            Some(run) => {
                sqlx::query_as!(
                    Row,
                    "SELECT seq, at, kind, run, job, deployment FROM events
                     WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?",
                    run.0,
                    after,
                    limit
                )
                .fetch_all(&self.read)
                .await
            }
            None => {
                sqlx::query_as!(
                    Row,
                    "SELECT seq, at, kind, run, job, deployment FROM events
                     WHERE seq > ? ORDER BY seq LIMIT ?",
                    after,
                    limit
                )
                .fetch_all(&self.read)
                .await
            }
        }
        .map_err(column::failed)?;
        rows.into_iter()
            .map(|row| {
                Ok(EventView {
                    seq: row.seq,
                    at: Timestamp(row.at),
                    run: row.run.map(RunId),
                    job: column::parse_opt("events", "job", row.seq, row.job.as_deref())?,
                    deployment: row.deployment,
                    kind: row.kind,
                })
            })
            .collect()
    }

    async fn last_event(&self) -> StoreResult<i64> {
        sqlx::query_scalar!(r#"SELECT coalesce(max(seq), 0) AS "seq!: i64" FROM events"#)
            .fetch_one(&self.read)
            .await
            .map_err(column::failed)
    }

    fn wake(&self) -> watch::Receiver<u64> {
        self.writer.committed()
    }

    async fn trim_events(&self, before: Timestamp) -> StoreResult<u64> {
        let mut removed = 0;
        loop {
            let piece = self
                .writer
                .write_bulk(move |c| {
                    Box::pin(async move {
                        sqlx::query!(
                            "DELETE FROM events WHERE seq IN
                             (SELECT seq FROM events WHERE at < ? ORDER BY seq LIMIT ?)",
                            before.0,
                            PIECE
                        )
                        .execute(c)
                        .await
                        .map_err(column::failed)
                    })
                })
                .await?
                .rows_affected();
            removed += piece;
            if piece < PIECE.unsigned_abs() {
                return Ok(removed);
            }
        }
    }
}
