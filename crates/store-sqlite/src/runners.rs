//! Runners and their registration.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use async_trait::async_trait;
use pipeyard_api::views::RunnerView;
use pipeyard_model::{Actor, RunnerId, Timestamp, Who, job::JobEvent};
use pipeyard_store::{
    StoreError, StoreResult,
    runners::{NewRunner, Runners},
};
use serde_json::json;

use crate::{
    SqliteStore,
    audit::{self, Detail},
    column::{self, failed},
    events::{self, NewEvent},
    jobs::{Change, load_nodes},
};

/// That a runner spoke is noted at most this often.
const NOTE: Duration = Duration::from_secs(5);
/// A runner that was silent for longer is shown as offline.
pub(crate) const ONLINE: Duration = Duration::from_secs(30);

#[async_trait]
impl Runners for SqliteStore {
    async fn add_registration_token(
        &self,
        hash: [u8; 32],
        expires_at: Timestamp,
        by: Actor,
        now: Timestamp,
    ) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                sqlx::query!("DELETE FROM registration_tokens WHERE expires_at < ?", now.0)
                    .execute(&mut *c)
                    .await
                    .map_err(failed)?;
                let hash = hash.as_slice();
                sqlx::query!(
                    "INSERT INTO registration_tokens (hash, created_at, expires_at) VALUES (?, ?, ?)
                     ON CONFLICT (hash) DO UPDATE SET expires_at = excluded.expires_at",
                    hash,
                    now.0,
                    expires_at.0
                )
                .execute(&mut *c)
                .await
                .map_err(failed)?;
                audit::record(c, by, "runner.token", "registration token", now).await
            })
        })
        .await
    }

    async fn register_runner(
        &self,
        token_hash: [u8; 32],
        runner: NewRunner,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                let token = token_hash.as_slice();
                let known = sqlx::query_scalar!(
                    "SELECT created_at FROM registration_tokens WHERE hash = ? AND expires_at >= ?",
                    token,
                    now.0
                )
                .fetch_optional(&mut *c)
                .await
                .map_err(failed)?;
                if known.is_none() {
                    return Err(StoreError::conflict(
                        "bad_token",
                        "the registration token is unknown or has expired; make a new one",
                    ));
                }
                let id = runner.id.to_string();
                let labels = column::to_json(&runner.labels)?;
                let key = runner.key_hash.as_slice();
                sqlx::query!(
                    "INSERT INTO runners (id, name, labels, version, key_hash, created_at, seen_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
                    id,
                    runner.name,
                    labels,
                    runner.version,
                    key,
                    now.0
                )
                .execute(&mut *c)
                .await
                .map_err(failed)?;
                let by = Actor::of(Who::Runner(runner.id)).from(from);
                let after = Detail::new(json!({ "name": runner.name, "labels": runner.labels }));
                let target = format!("runner {}", runner.name);
                audit::record_change(c, by, "runner.register", &target, after, now).await?;
                events::append(
                    c,
                    &[NewEvent { kind: "runner.changed", ..NewEvent::default() }],
                    now,
                )
                .await
            })
        })
        .await
    }

    async fn runner_by_key(
        &self,
        key_hash: [u8; 32],
        now: Timestamp,
    ) -> StoreResult<Option<RunnerId>> {
        let key = key_hash.as_slice();
        let row = sqlx::query!(
            "SELECT id, seen_at FROM runners WHERE key_hash = ? AND removed_at IS NULL",
            key
        )
        .fetch_optional(&self.read)
        .await
        .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let id = column::parse("runners", "id", &row.id, &row.id)?;
        let silent = row.seen_at.is_none_or(|seen| now.since(Timestamp(seen)) >= NOTE);
        if silent {
            let came_back = row.seen_at.is_none_or(|seen| now.since(Timestamp(seen)) >= ONLINE);
            self.write(move |c| {
                Box::pin(async move {
                    sqlx::query!("UPDATE runners SET seen_at = ? WHERE id = ?", now.0, row.id)
                        .execute(&mut *c)
                        .await
                        .map_err(failed)?;
                    if came_back {
                        events::append(
                            c,
                            &[NewEvent { kind: "runner.changed", ..NewEvent::default() }],
                            now,
                        )
                        .await?;
                    }
                    Ok(())
                })
            })
            .await?;
        }
        Ok(Some(id))
    }

    async fn note_trouble(
        &self,
        id: RunnerId,
        trouble: Option<String>,
        now: Timestamp,
    ) -> StoreResult<()> {
        let id = id.to_string();
        let known = sqlx::query_scalar!("SELECT trouble FROM runners WHERE id = ?", id)
            .fetch_optional(&self.read)
            .await
            .map_err(failed)?;
        if known.is_none_or(|known| known == trouble) {
            return Ok(());
        }
        self.write(move |c| {
            Box::pin(async move {
                sqlx::query!("UPDATE runners SET trouble = ? WHERE id = ?", trouble, id)
                    .execute(&mut *c)
                    .await
                    .map_err(failed)?;
                events::append(
                    c,
                    &[NewEvent { kind: "runner.changed", ..NewEvent::default() }],
                    now,
                )
                .await
            })
        })
        .await
    }

    async fn runners(&self, now: Timestamp) -> StoreResult<Vec<RunnerView>> {
        let mut tx = self.snapshot().await?;
        let rows = sqlx::query!(
            "SELECT id, name, labels, version, seen_at, trouble FROM runners WHERE removed_at IS NULL ORDER BY name, id"
        )
        .fetch_all(&mut *tx)
        .await
        .map_err(failed)?;
        let busy = sqlx::query!(
            r#"SELECT runner AS "runner!", run, name FROM jobs WHERE state = 'running' ORDER BY run, position"#
        )
        .fetch_all(&mut *tx)
        .await
        .map_err(failed)?;
        let mut jobs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in busy {
            jobs.entry(row.runner).or_default().push(format!("run {} / {}", row.run, row.name));
        }
        rows.into_iter()
            .map(|row| {
                let online = row.seen_at.is_some_and(|seen| now.since(Timestamp(seen)) < ONLINE);
                Ok(RunnerView {
                    id: column::parse("runners", "id", &row.id, &row.id)?,
                    name: row.name,
                    labels: column::json("runners", "labels", &row.id, &row.labels)?,
                    state: match (online, &row.trouble) {
                        (true, None) => "online",
                        (true, Some(_)) => "unable",
                        (false, _) => "offline",
                    }
                    .into(),
                    trouble: row.trouble,
                    version: row.version,
                    seen_at: column::time(row.seen_at),
                    jobs: jobs.remove(&row.id).unwrap_or_default(),
                })
            })
            .collect()
    }

    async fn remove_runner(&self, id: RunnerId, by: Actor, now: Timestamp) -> StoreResult<()> {
        self.write(move |c| {
            Box::pin(async move {
                let text = id.to_string();
                let done = sqlx::query!(
                    "UPDATE runners SET removed_at = ? WHERE id = ? AND removed_at IS NULL",
                    now.0,
                    text
                )
                .execute(&mut *c)
                .await
                .map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(StoreError::not_found(format!("runner {id}")));
                }
                audit::record(c, by, "runner.remove", &text, now).await?;
                let nodes =
                    load_nodes!(c, "runner = ? AND state = 'running' ORDER BY run, position", text);
                let moves = nodes.into_iter().map(|node| (node, JobEvent::RunnerLost)).collect();
                Change::new(c, now).apply(moves).await?;
                events::append(
                    c,
                    &[NewEvent { kind: "runner.changed", ..NewEvent::default() }],
                    now,
                )
                .await
            })
        })
        .await
    }
}
