//! Rows give up the bytes of old logs and artifacts, and note what is to be removed.

use std::collections::HashSet;

use async_trait::async_trait;
use pipeyard_model::{AttemptId, Epoch, Timestamp};
use pipeyard_store::{
    StoreResult,
    retention::{KEPT_RELEASES, Removal, Retention},
};
use sqlx::SqliteConnection;

use crate::{
    SqliteStore,
    column::{self, failed},
};

/// Digests of the bundles that an environment runs, may go back to, or is about to get.
async fn needed(c: &mut SqliteConnection) -> StoreResult<HashSet<String>> {
    let digests = sqlx::query_scalar!(
        r#"SELECT d.document ->> '$.release.sha256' AS "sha256!: String"
           FROM services AS s JOIN deployments AS d ON d.id IN (
               SELECT id FROM deployments
               WHERE environment = s.environment AND service = s.name AND state = 'succeeded'
               ORDER BY finished_at DESC, id DESC LIMIT ?)
           UNION
           SELECT document ->> '$.release.sha256' FROM deployments WHERE finished = 0"#,
        KEPT_RELEASES
    )
    .fetch_all(c)
    .await
    .map_err(failed)?;
    Ok(digests.into_iter().collect())
}

async fn give_up(
    c: &mut SqliteConnection,
    before: Timestamp,
    now: Timestamp,
    limit: u32,
) -> StoreResult<u32> {
    let runs = sqlx::query_scalar!(
        "SELECT id FROM runs
         WHERE finished_at IS NOT NULL AND (emptied_at IS NULL OR emptied_at <= finished_at)
           AND finished_at < ?
         ORDER BY finished_at LIMIT ?",
        before.0,
        limit
    )
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    let count = u32::try_from(runs.len()).unwrap_or(limit);
    let needed = needed(c).await?;
    let mut artifacts = held(c).await?;
    for run in runs {
        let logs = sqlx::query!(
            "UPDATE attempts SET log_removed_at = ?
             WHERE job IN (SELECT id FROM jobs WHERE run = ?) AND log_removed_at IS NULL
             RETURNING job, epoch",
            now.0,
            run
        )
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
        for log in logs {
            note(c, "log", &format!("{}/{}", log.job, log.epoch)).await?;
        }
        let of_run = sqlx::query!(
            "SELECT a.id, a.sha256 FROM jobs AS j JOIN artifacts AS a ON a.job = j.id
             WHERE j.run = ? AND a.removed_at IS NULL AND a.held = 0",
            run
        )
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
        artifacts.extend(of_run.into_iter().map(|row| (row.id, row.sha256)));
        // After its end, also should the clock have gone back.
        sqlx::query!(
            "UPDATE runs SET emptied_at = max(?, finished_at + 1) WHERE id = ?",
            now.0,
            run
        )
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    }
    for (id, sha256) in artifacts {
        let keep = needed.contains(&sha256);
        let removed_at = (!keep).then_some(now.0);
        sqlx::query!(
            "UPDATE artifacts SET held = ?, removed_at = ? WHERE id = ?",
            keep,
            removed_at,
            id
        )
        .execute(&mut *c)
        .await
        .map_err(failed)?;
        if !keep {
            note(c, "blob", &sha256).await?;
        }
    }
    Ok(count)
}

/// Artifacts of old runs that a release needed when they were last looked at.
async fn held(c: &mut SqliteConnection) -> StoreResult<Vec<(String, String)>> {
    let rows = sqlx::query!("SELECT id, sha256 FROM artifacts WHERE held = 1")
        .fetch_all(c)
        .await
        .map_err(failed)?;
    Ok(rows.into_iter().map(|row| (row.id, row.sha256)).collect())
}

async fn note(c: &mut SqliteConnection, kind: &str, key: &str) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO removals (kind, key) VALUES (?, ?) ON CONFLICT DO NOTHING",
        kind,
        key
    )
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

fn removal(kind: &str, key: String) -> StoreResult<Removal> {
    if kind == "blob" {
        return Ok(Removal::Blob(key));
    }
    let (job, epoch) = key.split_once('/').unwrap_or((&key, ""));
    Ok(Removal::Log(AttemptId {
        job: column::parse("removals", "key", &key, job)?,
        epoch: Epoch(column::parse("removals", "key", &key, epoch)?),
    }))
}

#[async_trait]
impl Retention for SqliteStore {
    async fn give_up(&self, before: Timestamp, now: Timestamp, limit: u32) -> StoreResult<u32> {
        self.writer.write_bulk(move |c| Box::pin(give_up(c, before, now, limit))).await
    }

    async fn removals(&self, limit: u32) -> StoreResult<Vec<Removal>> {
        let rows = sqlx::query!("SELECT kind, key FROM removals ORDER BY kind, key LIMIT ?", limit)
            .fetch_all(&self.read)
            .await
            .map_err(failed)?;
        rows.into_iter().map(|row| removal(&row.kind, row.key)).collect()
    }

    async fn blob_is_needed(&self, sha256: &str) -> StoreResult<bool> {
        let needed = sqlx::query_scalar!(
            "SELECT COUNT(*) FROM artifacts WHERE sha256 = ? AND removed_at IS NULL",
            sha256
        )
        .fetch_one(&self.read)
        .await
        .map_err(failed)?;
        Ok(needed > 0)
    }

    async fn removed(&self, removal: Removal) -> StoreResult<()> {
        let (kind, key) = match removal {
            Removal::Log(attempt) => ("log", format!("{}/{}", attempt.job, attempt.epoch)),
            Removal::Blob(sha256) => ("blob", sha256),
        };
        self.writer
            .write_bulk(move |c| {
                Box::pin(async move {
                    sqlx::query!("DELETE FROM removals WHERE kind = ? AND key = ?", kind, key)
                        .execute(c)
                        .await
                        .map_err(failed)?;
                    Ok(())
                })
            })
            .await
    }
}
