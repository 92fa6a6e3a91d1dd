//! Messages that must leave, in the order of their changes within a key.

use async_trait::async_trait;
use pipeyard_model::{Conclusion, OutboxId, RepoId, RunId, Status, Timestamp};
use pipeyard_store::{
    StoreError, StoreResult,
    outbox::{CommitState, Message, Notice, Outbox, OutboxCounts},
};
use sqlx::SqliteConnection;

mod deployments;

pub(crate) use deployments::{deployment_told, incident_told};

use crate::{
    SqliteStore,
    column::{self, failed, json, number, parse, parse_opt, to_json},
    run_view::failed_reason,
};

/// Puts a message into the outbox, in the transaction of the change that it tells of.
pub(crate) async fn enqueue(
    tx: &mut SqliteConnection,
    key: &str,
    notice: &Notice,
    now: Timestamp,
) -> StoreResult<()> {
    let id = OutboxId::new().to_string();
    let text = to_json(notice)?;
    sqlx::query!(
        "INSERT INTO outbox (id, key, notice, created_at, next_at) VALUES (?, ?, ?, ?, ?)",
        id,
        key,
        text,
        now.0,
        now.0
    )
    .execute(tx)
    .await
    .map_err(failed)?;
    Ok(())
}

/// Whether a run that ended so is told to people.
pub(crate) const fn is_bad(conclusion: Option<Conclusion>) -> bool {
    match conclusion {
        Some(Conclusion::Failure | Conclusion::Error | Conclusion::TimedOut) => true,
        Some(Conclusion::Success | Conclusion::Cancelled | Conclusion::Skipped) | None => false,
    }
}

/// Called in the transaction in which a run was created or got another status or conclusion: the
/// commit's status at the forge follows, and a failure is told to whoever listens. The call may be
/// left out for a run that isn't bad and whose repository has no forge token.
pub(crate) async fn run_changed(
    tx: &mut SqliteConnection,
    run: RunId,
    now: Timestamp,
) -> StoreResult<()> {
    let row = sqlx::query!(
        r#"SELECT r.repo, r.pipeline, r.branch, r.commit_sha, r.title, r.author, r.status,
                  r.conclusion, r.held, r.reason_code, r.reason_message,
                  p.name AS repo_name,
                  (SELECT json_object('kind', j.kind, 'name', j.name, 'code', j.reason_code,
                       'message', j.reason_message)
                   FROM jobs AS j WHERE j.run = r.id AND j.state = 'finished'
                     AND j.conclusion IN ('failure', 'error', 'timed_out')
                   ORDER BY j.finished_at, j.position LIMIT 1) AS "failed: String",
                  (p.forge = 'github' AND f.repo IS NOT NULL) AS "status_wanted!: bool"
           FROM runs r JOIN repos p ON p.id = r.repo LEFT JOIN forge_tokens f ON f.repo = r.repo
           WHERE r.id = ?"#,
        run.0
    )
    .fetch_optional(&mut *tx)
    .await
    .map_err(failed)?
    .ok_or_else(|| StoreError::not_found(format_args!("run {run}")))?;
    let status: Status = parse("runs", "status", run, &row.status)?;
    let conclusion: Option<Conclusion> =
        parse_opt("runs", "conclusion", run, row.conclusion.as_deref())?;
    let reason = match column::reason_view(row.reason_code, row.reason_message) {
        Some(own) => Some(own),
        None if is_bad(conclusion) => failed_reason(run.0, row.failed.as_deref())?,
        None => None,
    };
    if row.status_wanted {
        let repo: RepoId = parse("runs", "repo", run, &row.repo)?;
        let (state, words) = commit_state(status, conclusion, row.held != 0);
        let description: String = match (&reason, state) {
            (Some(why), CommitState::Failure | CommitState::Error) => {
                format!("{words}: {}", why.message).chars().take(140).collect()
            }
            _ => words.to_owned(),
        };
        let key = format!("status {repo} {} {}", row.commit_sha, row.pipeline);
        // What was not told yet is out of date.
        sqlx::query!("DELETE FROM outbox WHERE key = ? AND state = 'waiting'", key)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        let notice = Notice::CommitStatus {
            repo,
            run,
            commit: row.commit_sha.clone(),
            pipeline: row.pipeline.clone(),
            state,
            description,
        };
        enqueue(tx, &key, &notice, now).await?;
    }
    let bad = status == Status::Finished && is_bad(conclusion);
    if bad {
        let notice = Notice::Notification {
            event: "run.failed".to_owned(),
            data: serde_json::json!({
                "run": run,
                "repo": row.repo_name,
                "pipeline": row.pipeline,
                "branch": row.branch,
                "commit": row.commit_sha,
                "title": row.title,
                "author": row.author,
                "conclusion": row.conclusion,
                "reason": reason,
            }),
        };
        enqueue(tx, &format!("run {run}"), &notice, now).await?;
    }
    Ok(())
}

fn commit_state(
    status: Status,
    conclusion: Option<Conclusion>,
    held: bool,
) -> (CommitState, &'static str) {
    match (status, conclusion) {
        (Status::Queued, _) if held => (CommitState::Pending, "waiting for approval"),
        (Status::Queued, _) => (CommitState::Pending, "queued"),
        (Status::Running, _) => (CommitState::Pending, "running"),
        (Status::Finished, None | Some(Conclusion::Success)) => (CommitState::Success, "passed"),
        (Status::Finished, Some(Conclusion::Skipped)) => (CommitState::Success, "skipped"),
        (Status::Finished, Some(Conclusion::Failure)) => (CommitState::Failure, "failed"),
        (Status::Finished, Some(Conclusion::TimedOut)) => (CommitState::Failure, "timed out"),
        (Status::Finished, Some(Conclusion::Cancelled)) => (CommitState::Error, "cancelled"),
        (Status::Finished, Some(Conclusion::Error)) => (CommitState::Error, "could not run"),
    }
}

#[async_trait]
impl Outbox for SqliteStore {
    async fn due_messages(&self, now: Timestamp, limit: u32) -> StoreResult<Vec<Message>> {
        // Only the head of each key may leave, and only when it is due itself.
        let rows = sqlx::query!(
            r#"SELECT o.id, o.key, o.notice, o.created_at, o.tries
               FROM outbox o
               JOIN (SELECT min(seq) AS seq FROM outbox WHERE state = 'waiting' GROUP BY key) head
                 ON head.seq = o.seq
               WHERE o.next_at <= ? ORDER BY o.seq LIMIT ?"#,
            now.0,
            limit
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        rows.into_iter()
            .map(|row| {
                Ok(Message {
                    notice: json("outbox", "notice", &row.id, &row.notice)?,
                    id: parse("outbox", "id", &row.id, &row.id)?,
                    tries: number("outbox", "tries", &row.id, row.tries)?,
                    key: row.key,
                    created_at: Timestamp(row.created_at),
                })
            })
            .collect()
    }

    async fn next_message_at(&self) -> StoreResult<Option<Timestamp>> {
        let row = sqlx::query!(
            r#"SELECT min(o.next_at) AS "at: i64"
               FROM outbox o
               JOIN (SELECT min(seq) AS seq FROM outbox WHERE state = 'waiting' GROUP BY key) head
                 ON head.seq = o.seq"#
        )
        .fetch_one(&self.read)
        .await
        .map_err(failed)?;
        Ok(row.at.map(Timestamp))
    }

    async fn message_sent(&self, id: OutboxId, now: Timestamp) -> StoreResult<()> {
        self.write(move |tx| {
            Box::pin(async move {
                let id = id.to_string();
                sqlx::query!(
                    "UPDATE outbox SET state = 'sent', done_at = ?, problem = NULL
                         WHERE id = ? AND state = 'waiting'",
                    now.0,
                    id
                )
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
                Ok(())
            })
        })
        .await
    }

    async fn message_failed(
        &self,
        id: OutboxId,
        problem: &str,
        next: Option<Timestamp>,
        now: Timestamp,
    ) -> StoreResult<()> {
        let problem: String = problem.chars().take(1000).collect();
        self.write(move |tx| {
            Box::pin(async move {
                let id = id.to_string();
                let (state, next_at, done_at) = match next {
                    Some(at) => ("waiting", at.0, None),
                    None => ("dead", now.0, Some(now.0)),
                };
                sqlx::query!(
                    "UPDATE outbox
                         SET state = ?, next_at = ?, done_at = ?, problem = ?, tries = tries + 1
                         WHERE id = ? AND state = 'waiting'",
                    state,
                    next_at,
                    done_at,
                    problem,
                    id
                )
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
                Ok(())
            })
        })
        .await
    }

    async fn outbox_counts(&self) -> StoreResult<OutboxCounts> {
        let row = sqlx::query!(
            r#"SELECT coalesce(sum(state = 'waiting'), 0) AS "waiting!: i64",
                      coalesce(sum(state = 'dead'), 0) AS "dead!: i64"
               FROM outbox"#
        )
        .fetch_one(&self.read)
        .await
        .map_err(failed)?;
        Ok(OutboxCounts {
            waiting: u64::try_from(row.waiting).unwrap_or(0),
            dead: u64::try_from(row.dead).unwrap_or(0),
        })
    }

    async fn trim_outbox(&self, before: Timestamp) -> StoreResult<u64> {
        self.writer
            .write_bulk(move |tx| {
                Box::pin(async move {
                    let done = sqlx::query!(
                        "DELETE FROM outbox WHERE seq IN (
                             SELECT seq FROM outbox
                             WHERE state <> 'waiting' AND done_at < ? LIMIT 1000)",
                        before.0
                    )
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
                    Ok(done.rows_affected())
                })
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use pipeyard_model::ManualClock;

    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_772_366_400);

    async fn fresh() -> (tempfile::TempDir, SqliteStore) {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        let store = SqliteStore::open(&folder.path().join("pipeyard.db"), clock).await.unwrap();
        (folder, store)
    }

    async fn put(store: &SqliteStore, key: &'static str, event: &'static str) {
        store
            .write(move |tx| {
                Box::pin(async move {
                    let data = serde_json::json!({});
                    let notice = Notice::Notification { event: event.to_owned(), data };
                    enqueue(tx, key, &notice, NOW).await
                })
            })
            .await
            .unwrap();
    }

    async fn due(store: &SqliteStore, now: Timestamp) -> Vec<(OutboxId, String)> {
        let messages = store.due_messages(now, 10).await.unwrap();
        messages
            .into_iter()
            .map(|message| match message.notice {
                Notice::Notification { event, .. } => (message.id, event),
                Notice::CommitStatus { .. } | Notice::DeploymentStatus { .. } => {
                    panic!("no status was put in")
                }
            })
            .collect()
    }

    #[tokio::test]
    async fn a_key_keeps_its_order_and_holds_up_no_other() {
        let (_folder, store) = fresh().await;
        for (key, event) in [("a", "a1"), ("b", "b1"), ("a", "a2")] {
            put(&store, key, event).await;
        }
        let first = due(&store, NOW).await;
        assert_eq!([&*first[0].1, &*first[1].1], ["a1", "b1"]);
        assert_eq!(first.len(), 2);
        let later = NOW + Duration::from_secs(5);
        store.message_failed(first[0].0, "away", Some(later), NOW).await.unwrap();
        store.message_sent(first[1].0, NOW).await.unwrap();
        assert_eq!(due(&store, NOW).await, []);
        assert_eq!(store.next_message_at().await.unwrap(), Some(later));
        let again = store.due_messages(later, 10).await.unwrap();
        assert_eq!((again.len(), again[0].id, again[0].tries), (1, first[0].0, 1));
        store.message_sent(first[0].0, later).await.unwrap();
        let next = due(&store, later).await;
        assert_eq!(next[0].1, "a2");
    }

    #[tokio::test]
    async fn what_is_given_up_is_counted_and_lets_the_next_go() {
        let (_folder, store) = fresh().await;
        put(&store, "a", "a1").await;
        put(&store, "a", "a2").await;
        let first = due(&store, NOW).await[0].0;
        store.message_failed(first, "never", None, NOW).await.unwrap();
        // The outcome of a message that is over doesn't change.
        store.message_sent(first, NOW).await.unwrap();
        assert_eq!(store.outbox_counts().await.unwrap(), OutboxCounts { waiting: 1, dead: 1 });
        assert_eq!(due(&store, NOW).await[0].1, "a2");
        assert_eq!(store.trim_outbox(NOW).await.unwrap(), 0);
        assert_eq!(store.trim_outbox(NOW + Duration::from_secs(1)).await.unwrap(), 1);
        assert_eq!(store.outbox_counts().await.unwrap(), OutboxCounts { waiting: 1, dead: 0 });
    }
}
