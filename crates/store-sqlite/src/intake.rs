//! Deliveries and run requests.

use std::time::Duration;

use async_trait::async_trait;
use pipeyard_api::views::Event;
use pipeyard_model::{RepoId, Timestamp};
use pipeyard_store::{
    StoreResult,
    intake::{
        Accepted, COMPARISON, Disposition, Intake, NewDelivery, NewRunRequest, PutOff, RunRequest,
    },
};
use serde::Serialize;
use sqlx::SqliteConnection;

use crate::{
    SqliteStore,
    column::{self, failed},
};

/// The same push, told twice within this time, is one push.
const SAME_PUSH: Duration = Duration::from_secs(600);

/// What started a run, from its word.
pub(crate) fn event_of(table: &'static str, row: i64, word: &str) -> StoreResult<Event> {
    column::parse(table, "event", row, word)
}

/// A run request as it is inserted.
#[derive(Serialize)]
struct Fresh<'r> {
    event: &'static str,
    reference: &'r str,
    before: Option<&'r str>,
    after: &'r str,
    /// JSON of the pull request.
    pull_request: Option<String>,
    forge_user: Option<&'r str>,
}

impl<'r> Fresh<'r> {
    fn of(request: &'r NewRunRequest) -> StoreResult<Self> {
        Ok(Self {
            event: request.event.as_str(),
            reference: &request.reference,
            before: request.before.as_deref(),
            after: &request.after,
            pull_request: request.pull_request.as_ref().map(column::to_json).transpose()?,
            forge_user: request.forge_user.as_deref(),
        })
    }
}

/// A run request as it is stored.
struct Row {
    id: i64,
    repo: String,
    event: String,
    reference: String,
    before_sha: Option<String>,
    after_sha: String,
    pull_request: Option<String>,
    forge_user: Option<String>,
    seen_sha: Option<String>,
    received_at: i64,
    tries: i64,
}

impl Row {
    fn request(self) -> StoreResult<RunRequest> {
        let pull_request = self
            .pull_request
            .map(|text| column::json("run_requests", "pull_request", self.id, &text))
            .transpose()?;
        Ok(RunRequest {
            id: self.id,
            repo: column::parse("run_requests", "repo", self.id, &self.repo)?,
            request: NewRunRequest {
                event: event_of("run_requests", self.id, &self.event)?,
                reference: self.reference,
                before: self.before_sha,
                after: self.after_sha,
                pull_request,
                forge_user: self.forge_user,
            },
            seen: self.seen_sha,
            received_at: Timestamp(self.received_at),
            tries: column::number("run_requests", "tries", self.id, self.tries)?,
        })
    }
}

async fn accept(c: &mut SqliteConnection, delivery: NewDelivery) -> StoreResult<Accepted> {
    let repo = delivery.repo.to_string();
    // A delivery's id isn't signed, and whoever repeats a body can choose another one.
    let body_hash = delivery.body_hash.as_ref().map(|hash| hash.to_vec());
    let known = sqlx::query_scalar!(
        "SELECT id FROM deliveries WHERE repo = ?1 AND delivery = ?2
         UNION ALL SELECT id FROM deliveries WHERE repo = ?1 AND body_hash = ?3 LIMIT 1",
        repo,
        delivery.delivery,
        body_hash
    )
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?;
    if known.is_some() {
        return Ok(Accepted::Duplicate);
    }
    let (disposition, detail, fresh) = match &delivery.disposition {
        Disposition::Ignored(reason) => ("ignored", reason.as_str(), vec![]),
        Disposition::Requests(requests) => {
            let mut fresh = Vec::with_capacity(requests.len());
            for request in requests {
                let compared = delivery.event == COMPARISON;
                if is_known(c, &repo, request, compared, delivery.received_at).await? {
                    // The ref is where this delivery says, or the next comparison would find it.
                    see(c, &repo, request).await?;
                } else {
                    fresh.push(request);
                }
            }
            let disposition = if fresh.is_empty() { "duplicate" } else { "requested" };
            (disposition, "", fresh)
        }
    };
    let fresh: Vec<_> = fresh.into_iter().map(Fresh::of).collect::<StoreResult<_>>()?;
    let fresh = column::to_json(&fresh)?;
    // Three statements in one trip to the database: a webhook's sender waits for this.
    sqlx::query!(
        "INSERT INTO deliveries (repo, delivery, event, body, received_at, disposition, detail, body_hash)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?);
         INSERT INTO run_requests (repo, delivery, event, reference, before_sha, after_sha, pull_request,
                                   forge_user, received_at, due_at, seen_sha)
         SELECT d.repo, d.id, n.value ->> 'event', n.value ->> 'reference', n.value ->> 'before',
                n.value ->> 'after', n.value ->> 'pull_request', n.value ->> 'forge_user',
                d.received_at, d.received_at,
                coalesce((SELECT s.sha FROM seen_refs AS s
                          WHERE s.repo = d.repo AND s.name = n.value ->> 'reference'), '')
         FROM deliveries AS d JOIN json_each(?) AS n
         WHERE d.repo = ? AND d.delivery = ? ORDER BY n.key;
         INSERT INTO seen_refs (repo, name, sha)
         SELECT ?, n.value ->> 'reference', n.value ->> 'after' FROM json_each(?) AS n
         WHERE n.value ->> 'event' = 'push' ORDER BY n.key
         ON CONFLICT (repo, name) DO UPDATE SET sha = excluded.sha",
        repo,
        delivery.delivery,
        delivery.event,
        delivery.body,
        delivery.received_at.0,
        disposition,
        detail,
        body_hash,
        fresh,
        repo,
        delivery.delivery,
        repo,
        fresh
    )
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    Ok(if disposition == "duplicate" { Accepted::Duplicate } else { Accepted::New })
}

/// A push or pull request that was told before; a person may ask for the same twice.
async fn is_known(
    c: &mut SqliteConnection,
    repo: &str,
    request: &NewRunRequest,
    compared: bool,
    now: Timestamp,
) -> StoreResult<bool> {
    if request.event == Event::Manual {
        return Ok(false);
    }
    let since = (now - SAME_PUSH).0;
    // Two pull requests may have one head and one target; one of them may be a fork's.
    let (number, head_repo) = request
        .pull_request
        .as_ref()
        .map(|pull| (column::to_i64(pull.number), pull.head_repo))
        .unzip();
    let head_repo = head_repo.flatten();
    let event = request.event.as_str();
    let known = sqlx::query_scalar!(
        "SELECT r.id FROM run_requests AS r JOIN deliveries AS d ON d.id = r.delivery
         WHERE r.repo = ? AND r.after_sha = ? AND r.received_at >= ? AND r.event = ?
         AND r.reference = ? AND (r.before_sha IS ? OR ? OR d.event = ?)
         AND r.pull_request ->> 'number' IS ? AND r.pull_request ->> 'head_repo' IS ?
         ORDER BY r.id DESC LIMIT 1",
        repo,
        request.after,
        since,
        event,
        request.reference,
        request.before,
        compared,
        COMPARISON,
        number,
        head_repo
    )
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?;
    match known {
        Some(known) => {
            Ok(request.event != Event::Push || !came_back(c, repo, request, known).await?)
        }
        None => Ok(false),
    }
}

/// Whether the branch has left the commit of the request `known` since, and this push takes it there
/// again from where it stands: back by force and forward again is no repetition.
async fn came_back(
    c: &mut SqliteConnection,
    repo: &str,
    request: &NewRunRequest,
    known: i64,
) -> StoreResult<bool> {
    let left = sqlx::query_scalar!(
        "SELECT l.id FROM run_requests AS l
         JOIN seen_refs AS s ON s.repo = l.repo AND s.name = l.reference
         WHERE l.id > ? AND l.repo = ? AND l.event = 'push' AND l.reference = ? AND l.before_sha = ?
         AND s.sha = ? LIMIT 1",
        known,
        repo,
        request.reference,
        request.after,
        request.before
    )
    .fetch_optional(c)
    .await
    .map_err(failed)?;
    Ok(left.is_some())
}

/// Remembers where a push left its ref.
async fn see(c: &mut SqliteConnection, repo: &str, request: &NewRunRequest) -> StoreResult<()> {
    if request.event != Event::Push {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO seen_refs (repo, name, sha) VALUES (?, ?, ?)
         ON CONFLICT (repo, name) DO UPDATE SET sha = excluded.sha",
        repo,
        request.reference,
        request.after
    )
    .execute(c)
    .await
    .map_err(failed)?;
    Ok(())
}

#[async_trait]
impl Intake for SqliteStore {
    async fn accept_delivery(&self, delivery: NewDelivery) -> StoreResult<Accepted> {
        self.write(move |c| Box::pin(accept(c, delivery))).await
    }

    async fn due_run_requests(&self, now: Timestamp, limit: u32) -> StoreResult<Vec<RunRequest>> {
        // The walk goes from repository to repository in the index of open requests: a flood of one
        // of them costs no more than what is due of it.
        let rows = sqlx::query_as!(
            Row,
            r#"WITH RECURSIVE busy (repo) AS (
                 SELECT min(repo) FROM run_requests WHERE closed_at IS NULL
                 UNION ALL
                 SELECT (SELECT min(repo) FROM run_requests WHERE closed_at IS NULL AND repo > busy.repo)
                 FROM busy WHERE busy.repo IS NOT NULL)
               SELECT r.id, r.repo, r.event, r.reference, r.before_sha, r.after_sha, r.pull_request,
                      r.forge_user, r.seen_sha, r.received_at, r.tries
               FROM busy CROSS JOIN run_requests AS r
                 ON r.id = (SELECT min(id) FROM run_requests
                            WHERE closed_at IS NULL AND repo = busy.repo AND due_at <= ?)
               ORDER BY r.id LIMIT ?"#,
            now.0,
            limit
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        rows.into_iter().map(Row::request).collect()
    }

    async fn due_run_requests_of(
        &self,
        repo: RepoId,
        now: Timestamp,
        after: i64,
        limit: u32,
    ) -> StoreResult<Vec<RunRequest>> {
        let repo = repo.to_string();
        let rows = sqlx::query_as!(
            Row,
            "SELECT id, repo, event, reference, before_sha, after_sha, pull_request, forge_user, seen_sha,
                    received_at, tries
             FROM run_requests WHERE closed_at IS NULL AND repo = ? AND due_at <= ? AND id > ?
             ORDER BY id LIMIT ?",
            repo,
            now.0,
            after,
            limit
        )
        .fetch_all(&self.read)
        .await
        .map_err(failed)?;
        rows.into_iter().map(Row::request).collect()
    }

    async fn postpone_run_requests(&self, requests: Vec<PutOff>, problem: &str) -> StoreResult<()> {
        if requests.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = requests.iter().map(|r| (r.id, r.next.0, i64::from(r.tried))).collect();
        let (requests, problem) = (column::to_json(&rows)?, problem.to_owned());
        self.write(move |c| {
            Box::pin(async move {
                sqlx::query!(
                    "UPDATE run_requests
                     SET due_at = p.value ->> 1, tries = tries + (p.value ->> 2), problem = ?
                     FROM json_each(?) AS p
                     WHERE run_requests.id = p.value ->> 0 AND closed_at IS NULL",
                    problem,
                    requests
                )
                .execute(c)
                .await
                .map_err(failed)?;
                Ok(())
            })
        })
        .await
    }

    async fn close_run_request(&self, id: i64, reason: &str, now: Timestamp) -> StoreResult<()> {
        let reason = reason.to_owned();
        self.write(move |c| {
            Box::pin(async move {
                sqlx::query!(
                    "UPDATE run_requests SET closed_at = ?, outcome = ? WHERE id = ? AND closed_at IS NULL",
                    now.0,
                    reason,
                    id
                )
                .execute(c)
                .await
                .map_err(failed)?;
                Ok(())
            })
        })
        .await
    }

    async fn record_seen_refs(&self, repo: RepoId, refs: &[(String, String)]) -> StoreResult<()> {
        let refs = column::to_json(refs)?;
        self.write(move |c| {
            Box::pin(async move {
                let repo = repo.to_string();
                // `WHERE true` keeps the parser from reading ON as a join's.
                sqlx::query!(
                    "INSERT INTO seen_refs (repo, name, sha)
                     SELECT ?, r.value ->> 0, r.value ->> 1 FROM json_each(?) AS r WHERE true
                     ON CONFLICT (repo, name) DO UPDATE SET sha = excluded.sha",
                    repo,
                    refs
                )
                .execute(c)
                .await
                .map_err(failed)?;
                Ok(())
            })
        })
        .await
    }

    async fn trim_deliveries(&self, before: Timestamp) -> StoreResult<u64> {
        let done = self
            .writer
            .write_bulk(move |c| {
                Box::pin(async move {
                    sqlx::query!(
                        "UPDATE deliveries SET body = x'' WHERE id IN
                         (SELECT id FROM deliveries WHERE received_at < ? AND length(body) > 0 LIMIT 200)",
                        before.0
                    )
                    .execute(c)
                    .await
                    .map_err(failed)
                })
            })
            .await?;
        Ok(done.rows_affected())
    }
}
