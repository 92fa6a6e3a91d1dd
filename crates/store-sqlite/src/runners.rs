//! Runners and their registration.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use async_trait::async_trait;
use pipeyard_api::views::RunnerView;
use pipeyard_model::{
    Actor, RunnerId, Timestamp,
    job::JobEvent,
    runner::{Admission, Holder, admit},
};
use pipeyard_store::{
    StoreError, StoreResult,
    runners::{NewEnrolment, NewRunner, Process, Runners, Standing},
};
use sqlx::SqliteConnection;

use crate::{
    SqliteStore, audit,
    column::{self, failed},
    enrolments,
    events::{self, NewEvent},
    jobs::{Change, load_nodes},
};

/// That a runner spoke is noted at most this often.
const NOTE: Duration = Duration::from_secs(5);
/// A runner that was silent for longer is shown as offline.
pub(crate) const ONLINE: Duration = Duration::from_secs(30);

/// A runner and who speaks for it.
struct Speaker {
    id: String,
    seen_at: Option<i64>,
    process: Option<String>,
    process_at: Option<i64>,
}

impl Speaker {
    fn holder(&self) -> Option<Holder> {
        let (process, at) = self.process.clone().zip(self.process_at)?;
        Some(Holder { process, seen_at: Timestamp(at) })
    }

    fn admit(&self, process: Process<'_>, now: Timestamp) -> Admission {
        admit(self.holder().as_ref(), process.nonce, process.previous, now)
    }

    fn speaks(&self) -> StoreResult<Standing> {
        Ok(Standing::Speaks(column::parse("runners", "id", &self.id, &self.id)?))
    }

    fn taken(&self) -> StoreResult<Standing> {
        let id = column::parse("runners", "id", &self.id, &self.id)?;
        Ok(self.holder().map_or(Standing::Unknown, |holder| Standing::Taken(id, holder)))
    }
}

/// Notes that the process spoke. Two that come at once are told apart here.
async fn note(
    c: &mut SqliteConnection,
    seen: Speaker,
    process: Process<'_>,
    now: Timestamp,
) -> StoreResult<Standing> {
    let row = sqlx::query_as!(
        Speaker,
        "SELECT id, seen_at, process, process_at FROM runners WHERE id = ? AND removed_at IS NULL",
        seen.id
    )
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?;
    let Some(row) = row else { return Ok(Standing::Unknown) };
    if row.admit(process, now) == Admission::Refused {
        return row.taken();
    }
    sqlx::query!(
        "UPDATE runners SET seen_at = ?1, process = ?2, process_at = ?1 WHERE id = ?3",
        now.0,
        process.nonce,
        row.id
    )
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    let came_back = row.seen_at.is_none_or(|seen| now.since(Timestamp(seen)) >= ONLINE);
    if came_back {
        let event = NewEvent { kind: "runner.changed", ..NewEvent::default() };
        events::append(c, &[event], now).await?;
    }
    row.speaks()
}

#[async_trait]
impl Runners for SqliteStore {
    async fn add_enrolment(&self, new: NewEnrolment, by: Actor, now: Timestamp) -> StoreResult<()> {
        self.write(move |c| Box::pin(enrolments::add(c, new, by, now))).await
    }

    async fn register_runner(
        &self,
        token_hash: [u8; 32],
        runner: NewRunner,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> StoreResult<RunnerId> {
        self.write(move |c| Box::pin(enrolments::register(c, token_hash, runner, from, now))).await
    }

    async fn runner_by_key(
        &self,
        key_hash: [u8; 32],
        process: Process<'_>,
        now: Timestamp,
    ) -> StoreResult<Standing> {
        let key = key_hash.as_slice();
        let row = sqlx::query_as!(
            Speaker,
            "SELECT id, seen_at, process, process_at FROM runners
             WHERE key_hash = ? AND removed_at IS NULL",
            key
        )
        .fetch_optional(&self.read)
        .await
        .map_err(failed)?;
        let Some(row) = row else { return Ok(Standing::Unknown) };
        let silent = row.seen_at.is_none_or(|seen| now.since(Timestamp(seen)) >= NOTE);
        match row.admit(process, now) {
            Admission::Refused => return row.taken(),
            Admission::Holds if !silent => return row.speaks(),
            Admission::Holds | Admission::Takes => {}
        }
        let (nonce, previous) = (process.nonce.to_owned(), process.previous.map(str::to_owned));
        self.write(move |c| {
            Box::pin(async move {
                let process = Process { nonce: &nonce, previous: previous.as_deref() };
                note(c, row, process, now).await
            })
        })
        .await
    }

    async fn runner_leaves(&self, id: RunnerId, process: &str) -> StoreResult<()> {
        let (id, process) = (id.to_string(), process.to_owned());
        self.write(move |c| {
            Box::pin(async move {
                sqlx::query!(
                    "UPDATE runners SET process = NULL, process_at = NULL
                     WHERE id = ? AND process = ?",
                    id,
                    process
                )
                .execute(c)
                .await
                .map_err(failed)?;
                Ok(())
            })
        })
        .await
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
            r#"SELECT id, name, labels, version, seen_at, trouble, forks,
                 (SELECT json_group_array(coalesce(r.name, l.value)) FROM json_each(runners.repos) AS l
                  LEFT JOIN repos AS r ON r.id = l.value WHERE runners.repos IS NOT NULL) AS "names!: String",
                 repos
               FROM runners WHERE removed_at IS NULL ORDER BY name, id"#
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
                    repos: row
                        .repos
                        .is_some()
                        .then(|| column::json("runners", "repos", &row.id, &row.names))
                        .transpose()?,
                    forks: row.forks != 0,
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
                let name = sqlx::query_scalar!(
                    "UPDATE runners SET removed_at = ? WHERE id = ? AND removed_at IS NULL
                     RETURNING name",
                    now.0,
                    text
                )
                .fetch_optional(&mut *c)
                .await
                .map_err(failed)?
                .ok_or_else(|| StoreError::not_found(format!("runner {id}")))?;
                audit::record(c, by, "runner.remove", &format!("runner {name} {id}"), now).await?;
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
