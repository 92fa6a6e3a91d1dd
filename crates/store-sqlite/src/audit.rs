//! The audit log's one writer. A row belongs to the transaction of the change that it tells of, and
//! is chained to the row before it; see [`pipeyard_store::audit`].

use pipeyard_model::{Actor, Timestamp, Who};
use pipeyard_store::{
    StoreResult,
    audit::{AuditEntry, Chain, Checked, Checker, Link, first_link},
};
use serde_json::Value;
use sqlx::{SqliteConnection, SqlitePool};

use crate::column::{corrupt, failed};

/// Rows that a walk over the log reads at once.
const PAGE: i64 = 1000;

/// A row as it is stored.
struct Row {
    seq: i64,
    at: i64,
    who: Option<String>,
    who_id: Option<String>,
    name: Option<String>,
    credential: Option<String>,
    address: Option<String>,
    action: String,
    target: String,
    before: Option<String>,
    after: Option<String>,
    hash: Option<Vec<u8>>,
}

impl Row {
    fn entry(self) -> StoreResult<AuditEntry> {
        let seq = self.seq;
        Ok(AuditEntry {
            seq,
            at: Timestamp(self.at),
            who: self.who.unwrap_or_default(),
            who_id: self.who_id,
            actor: self.name.unwrap_or_default(),
            credential: self.credential,
            address: self.address,
            action: self.action,
            target: self.target,
            before: self.before,
            after: self.after,
            hash: self.hash.map(|hash| link("audit", &hash, seq)).transpose()?,
        })
    }
}

fn link(table: &'static str, bytes: &[u8], row: i64) -> StoreResult<Link> {
    bytes.try_into().map_err(|_| corrupt(table, "hash", row, "it isn't 32 bytes long"))
}

macro_rules! select {
    ($rest:literal, $($argument:expr),*) => {
        sqlx::query_as!(
            Row,
            "SELECT seq, at, who, who_id, name, credential, address, action, target, before, after,
                 hash FROM audit " + $rest,
            $($argument),*
        )
    };
}

/// What is recorded of a change besides who did what to what.
#[derive(Debug, Default)]
pub(crate) struct Detail {
    /// What was there.
    pub(crate) before: Option<Value>,
    /// What is there now.
    pub(crate) after: Option<Value>,
}

impl Detail {
    /// Something new.
    pub(crate) fn new(after: Value) -> Self {
        Self { before: None, after: Some(after) }
    }

    /// Something that changed.
    pub(crate) fn changed(before: Value, after: Value) -> Self {
        Self { before: Some(before), after: Some(after) }
    }

    /// Something that is gone.
    pub(crate) fn gone(before: Value) -> Self {
        Self { before: Some(before), after: None }
    }
}

/// Records that `by` did `action` (`secret.set`, `run.cancel`, ...) to `target`.
pub(crate) async fn record(
    tx: &mut SqliteConnection,
    by: Actor,
    action: &str,
    target: &str,
    now: Timestamp,
) -> StoreResult<()> {
    record_change(tx, by, action, target, Detail::default(), now).await
}

/// The same with what was there before and is there now. Never a secret's value.
pub(crate) async fn record_change(
    tx: &mut SqliteConnection,
    by: Actor,
    action: &str,
    target: &str,
    detail: Detail,
    now: Timestamp,
) -> StoreResult<()> {
    let chain = sqlx::query!("SELECT seq, hash FROM audit_chain")
        .fetch_one(&mut *tx)
        .await
        .map_err(failed)?;
    let last = link("audit_chain", &chain.hash, 1)?;
    let row = AuditEntry {
        seq: chain.seq + 1,
        at: now,
        who: by.who.kind().to_owned(),
        who_id: by.who.id(),
        actor: name(tx, by.who).await?,
        credential: by.credential.map(|id| id.to_string()),
        address: by.address.map(|address| address.to_string()),
        action: action.to_owned(),
        target: target.to_owned(),
        before: detail.before.map(|value| value.to_string()),
        after: detail.after.map(|value| value.to_string()),
        hash: None,
    };
    let hash = row.link(&last);
    let bytes = hash.as_slice();
    sqlx::query!(
        "INSERT INTO audit (seq, at, who, who_id, name, credential, address, action, target,
             before, after, hash)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row.seq,
        row.at.0,
        row.who,
        row.who_id,
        row.actor,
        row.credential,
        row.address,
        row.action,
        row.target,
        row.before,
        row.after,
        bytes
    )
    .execute(&mut *tx)
    .await
    .map_err(failed)?;
    sqlx::query!("UPDATE audit_chain SET seq = ?, hash = ?", row.seq, bytes)
        .execute(tx)
        .await
        .map_err(failed)?;
    Ok(())
}

/// What it is called now.
async fn name(tx: &mut SqliteConnection, who: Who) -> StoreResult<String> {
    let id = who.id().unwrap_or_default();
    let found = match who {
        Who::Pipeyard | Who::Nobody => return Ok(who.kind().to_owned()),
        Who::User(_) => {
            sqlx::query_scalar!("SELECT name FROM users WHERE id = ?", id).fetch_optional(tx).await
        }
        Who::Runner(_) => {
            sqlx::query_scalar!("SELECT name FROM runners WHERE id = ?", id)
                .fetch_optional(tx)
                .await
        }
        Who::Forge(_) => {
            sqlx::query_scalar!("SELECT name FROM repos WHERE id = ?", id).fetch_optional(tx).await
        }
        Who::Attempt(attempt) => {
            let job = attempt.job.to_string();
            sqlx::query_scalar!(
                r#"SELECT 'run ' || run || ' / ' || name AS "name!: String" FROM jobs WHERE id = ?"#,
                job
            )
            .fetch_optional(tx)
            .await
        }
    };
    Ok(found.map_err(failed)?.unwrap_or_else(|| format!("{} {id}", who.kind())))
}

/// Begins the chain after the rows that there are; once in the life of a database.
pub(crate) async fn begin_chain(tx: &mut SqliteConnection) -> StoreResult<()> {
    let known = sqlx::query_scalar!("SELECT seq FROM audit_chain")
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed)?;
    if known.is_some() {
        return Ok(());
    }
    let (mut last, mut seq) = (first_link(), 0);
    loop {
        let rows = select!("WHERE seq > ? ORDER BY seq LIMIT ?", seq, PAGE)
            .fetch_all(&mut *tx)
            .await
            .map_err(failed)?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let entry = row.entry()?;
            last = entry.link(&last);
            seq = entry.seq;
        }
    }
    let bytes = last.as_slice();
    sqlx::query!(
        "INSERT INTO audit_chain (only_row, begins_after, genesis, seq, hash)
         VALUES (1, ?1, ?2, ?1, ?2)",
        seq,
        bytes
    )
    .execute(tx)
    .await
    .map_err(failed)?;
    Ok(())
}

/// The newest rows before `before`.
pub(crate) async fn list(
    pool: &SqlitePool,
    before: i64,
    limit: u32,
) -> StoreResult<Vec<AuditEntry>> {
    let rows = select!("WHERE seq < ? ORDER BY seq DESC LIMIT ?", before, limit)
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    rows.into_iter().map(Row::entry).collect()
}

/// Walks the log page by page, so that no read is held open for long. Rows that are written
/// meanwhile belong to the next check.
pub(crate) async fn check(pool: &SqlitePool) -> StoreResult<Checked> {
    // One view of both: what is written afterwards is in neither.
    let mut tx = pool.begin().await.map_err(failed)?;
    let row = sqlx::query!("SELECT begins_after, genesis, seq, hash FROM audit_chain")
        .fetch_one(&mut *tx)
        .await
        .map_err(failed)?;
    let newest = sqlx::query_scalar!(r#"SELECT max(seq) AS "seq: i64" FROM audit"#)
        .fetch_one(&mut *tx)
        .await
        .map_err(failed)?;
    drop(tx);
    let chain = Chain {
        begins_after: row.begins_after,
        genesis: link("audit_chain", &row.genesis, 1)?,
        seq: row.seq,
        hash: link("audit_chain", &row.hash, 1)?,
    };
    let end = newest.unwrap_or(0);
    let mut checker = Checker::new(chain);
    let mut seq = i64::MIN;
    loop {
        let rows = select!("WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?", seq, end, PAGE)
            .fetch_all(pool)
            .await
            .map_err(failed)?;
        let Some(last) = rows.last() else { return Ok(checker.end(None)) };
        seq = last.seq;
        for row in rows {
            let at = row.seq;
            let checked = match row.entry() {
                Ok(entry) => checker.row(&entry),
                Err(problem) => {
                    Err(pipeyard_store::audit::Broken { seq: at, problem: problem.to_string() })
                }
            };
            if let Err(broken) = checked {
                return Ok(checker.end(Some(broken)));
            }
        }
    }
}
