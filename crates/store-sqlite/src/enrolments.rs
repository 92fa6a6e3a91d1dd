//! Enrolment: a token registers one runner, as what the administrator said.

use std::net::IpAddr;

use pipeyard_model::{Actor, RepoId, RunnerId, Timestamp, Who, runner::Grant};
use pipeyard_store::{
    StoreError, StoreResult,
    runners::{NewEnrolment, NewRunner},
};
use serde_json::json;
use sqlx::SqliteConnection;

use crate::{
    audit::{self, Detail},
    column::{self, failed},
    events::{self, NewEvent},
};

pub(crate) async fn add(
    c: &mut SqliteConnection,
    new: NewEnrolment,
    by: Actor,
    now: Timestamp,
) -> StoreResult<()> {
    // Used ones stay, so that they are known to be used.
    sqlx::query!("DELETE FROM enrolments WHERE expires_at < ? AND used_at IS NULL", now.0)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    let (hash, grant) = (new.hash.as_slice(), &new.grant);
    let labels = column::to_json(&grant.labels)?;
    let repos = grant.repos.as_ref().map(column::to_json).transpose()?;
    let done = sqlx::query!(
        "INSERT INTO enrolments (hash, created_at, expires_at, labels, any_label, repos, forks)
         VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (hash) DO UPDATE SET expires_at = excluded.expires_at WHERE used_at IS NULL",
        hash,
        now.0,
        new.expires_at.0,
        labels,
        grant.any_label,
        repos,
        grant.forks
    )
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    if done.rows_affected() == 0 {
        return Ok(());
    }
    let detail = Detail::new(json!({ "grant": grant, "expires_at": new.expires_at }));
    audit::record_change(c, by, "runner.token", "enrolment token", detail, now).await
}

pub(crate) async fn register(
    c: &mut SqliteConnection,
    token: [u8; 32],
    runner: NewRunner,
    from: Option<IpAddr>,
    now: Timestamp,
) -> StoreResult<RunnerId> {
    let (token, key) = (token.as_slice(), runner.key_hash.as_slice());
    let bad = |why: &str| {
        let message = format!("the enrolment token {why}; make a new one: pipectl runners token");
        StoreError::conflict("bad_token", message)
    };
    let row = sqlx::query!(
        r#"SELECT labels, any_label AS "any_label: bool", repos, forks AS "forks: bool", used_at,
             expires_at,
             (SELECT id FROM runners WHERE id = e.runner AND key_hash = ?2 AND removed_at IS NULL)
               AS "same?: String"
           FROM enrolments AS e WHERE hash = ?1"#,
        token,
        key
    )
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?
    .ok_or_else(|| bad("is unknown or has expired"))?;
    // The answer was lost on its way.
    if let Some(same) = row.same {
        return column::parse("runners", "id", &same, &same);
    }
    if row.used_at.is_some() {
        return Err(bad("has registered its one runner already"));
    }
    if row.expires_at < now.0 {
        return Err(bad("is unknown or has expired"));
    }
    let repos: Option<Vec<RepoId>> = row
        .repos
        .as_deref()
        .map(|text| column::json("enrolments", "repos", "", text))
        .transpose()?;
    let grant = Grant {
        labels: column::json("enrolments", "labels", "", &row.labels)?,
        any_label: row.any_label,
        repos,
        forks: row.forks,
    };
    let labels = grant.labels_of(runner.labels).map_err(|foreign| {
        let message = format!(
            "the enrolment token doesn't give the label {}; it gives: {}. Make one with --label, or start the runner without",
            foreign.join(", "),
            if grant.labels.is_empty() { "none".to_owned() } else { grant.labels.join(", ") }
        );
        StoreError::conflict("bad_label", message)
    })?;
    let id = runner.id.to_string();
    let text = column::to_json(&labels)?;
    sqlx::query!(
        "INSERT INTO runners (id, name, labels, version, key_hash, created_at, seen_at, repos, forks)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8)",
        id,
        runner.name,
        text,
        runner.version,
        key,
        now.0,
        row.repos,
        grant.forks
    )
    .execute(&mut *c)
    .await
    .map_err(failed)?;
    sqlx::query!("UPDATE enrolments SET used_at = ?, runner = ? WHERE hash = ?", now.0, id, token)
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    let by = Actor::of(Who::Runner(runner.id)).from(from);
    let after = Detail::new(json!({
        "id": runner.id,
        "labels": labels,
        "repos": grant.repos,
        "forks": grant.forks,
    }));
    let target = format!("runner {}", runner.name);
    audit::record_change(c, by, "runner.register", &target, after, now).await?;
    events::append(c, &[NewEvent { kind: "runner.changed", ..NewEvent::default() }], now).await?;
    Ok(runner.id)
}
