//! The rules of environments, what they are asked about, and the rules of those that are older than
//! rules.

use pipeyard_api::views::Event;
use pipeyard_model::{
    Actor, EnvironmentName, Role, RunId, Timestamp,
    environment::{
        Accept, Author, Came, Identity, Person, Policy, RunEvent, Source, rules_of_history,
    },
};
use pipeyard_store::{StoreError, StoreResult};
use serde_json::json;
use sqlx::{Connection as _, SqliteConnection};

use crate::{
    audit::{self, Detail},
    column::{self, failed},
    intake::event_of,
    people,
};

/// Deployments that are looked at for an environment's first rules, the newest.
const HISTORY: i64 = 20_000;

/// The rules in a row; none of an environment that is older than rules.
pub(crate) fn read(environment: &str, policy: Option<&str>) -> StoreResult<Policy> {
    policy.map_or_else(
        || Ok(Policy::default()),
        |text| column::json("environments", "policy", environment, text),
    )
}

pub(crate) async fn policy(
    c: &mut SqliteConnection,
    environment: &EnvironmentName,
) -> StoreResult<Option<Policy>> {
    let environment = environment.as_str();
    let row = sqlx::query!(
        "SELECT policy FROM environments WHERE name = ? AND retired_at IS NULL",
        environment
    )
    .fetch_optional(c)
    .await
    .map_err(failed)?;
    row.map(|row| read(environment, row.policy.as_deref())).transpose()
}

pub(crate) async fn change(
    c: &mut SqliteConnection,
    environment: &EnvironmentName,
    from: &Policy,
    to: &Policy,
    what: &str,
    by: Actor,
    now: Timestamp,
) -> StoreResult<()> {
    let known = policy(c, environment)
        .await?
        .ok_or_else(|| StoreError::not_found(format!("environment {environment}")))?;
    if known != *from {
        return Err(StoreError::conflict(
            "stale_policy",
            format!(
                "the rules of {environment} were changed by somebody else meanwhile; try again"
            ),
        ));
    }
    write(c, environment.as_str(), to).await?;
    let target = format!("environment {environment}: {what}");
    let detail = Detail::changed(json!(from), json!(to));
    audit::record_change(c, by, "environment.allow", &target, detail, now).await
}

async fn write(c: &mut SqliteConnection, environment: &str, policy: &Policy) -> StoreResult<()> {
    let text = column::to_json(policy)?;
    sqlx::query!("UPDATE environments SET policy = ? WHERE name = ?", text, environment)
        .execute(c)
        .await
        .map_err(failed)?;
    Ok(())
}

const fn run_event(event: Event) -> RunEvent {
    match event {
        Event::Push => RunEvent::Push,
        Event::PullRequest => RunEvent::PullRequest,
        Event::Manual => RunEvent::Manual,
    }
}

pub(crate) async fn source(c: &mut SqliteConnection, run: RunId) -> StoreResult<Option<Source>> {
    let row = sqlx::query!(
        "SELECT p.name, p.forge, p.default_branch, r.event, r.reference, r.repo, r.commit_sha,
                r.fork, r.forge_user, r.started_by
         FROM runs AS r JOIN repos AS p ON p.id = r.repo
         WHERE r.id = ? AND p.removed_at IS NULL",
        run.0
    )
    .fetch_optional(&mut *c)
    .await
    .map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let event = run_event(event_of("runs", run.0, &row.event)?);
    let mut pushed_by: Vec<String> = row.forge_user.into_iter().collect();
    if event == RunEvent::Manual {
        // A person named the commit; whose change it is was told when it was pushed.
        pushed_by = sqlx::query_scalar!(
            r#"SELECT DISTINCT forge_user AS "forge_user!: String" FROM run_requests
               WHERE repo = ? AND after_sha = ? AND event = 'push' AND forge_user IS NOT NULL
               ORDER BY 1 LIMIT 20"#,
            row.repo,
            row.commit_sha
        )
        .fetch_all(c)
        .await
        .map_err(failed)?;
    }
    let forge = pushed_by.into_iter().map(|login| Identity { forge: row.forge.clone(), login });
    let starter = row.started_by.as_deref();
    let starter = starter.map(|id| column::parse("runs", "started_by", run.0, id)).transpose()?;
    Ok(Some(Source {
        repo: column::parse("repos", "name", run.0, &row.name)?,
        default_branch: row.default_branch,
        event,
        reference: row.reference,
        fork: row.fork != 0,
        author: Author { forge: forge.collect(), starter },
    }))
}

pub(crate) async fn people(c: &mut SqliteConnection) -> StoreResult<Vec<Person>> {
    let accounts = people::list(c, None).await?;
    Ok(accounts
        .into_iter()
        .map(|account| Person {
            id: account.user.id,
            admin: account.user.role == Role::Admin,
            identities: account
                .identities
                .into_iter()
                .map(|one| Identity { forge: one.forge, login: one.login })
                .collect(),
            name: account.user.name,
        })
        .collect())
}

/// Gives rules to environments that are older than rules: what they took until now they go on to
/// take. Done once for each, in one transaction; said in the log.
pub(crate) async fn upgrade(c: &mut SqliteConnection, now: Timestamp) -> StoreResult<()> {
    let mut tx = c.begin().await.map_err(failed)?;
    let older = sqlx::query!("SELECT name, retired_at FROM environments WHERE policy IS NULL")
        .fetch_all(&mut *tx)
        .await
        .map_err(failed)?;
    let mut said = Vec::new();
    for row in older {
        let name = row.name.as_str();
        let (accepts, left_out) = match row.retired_at {
            None => rules_of_history(&history(&mut tx, name).await?),
            Some(_) => (vec![], vec![]),
        };
        let words: Vec<String> = accepts.iter().map(Accept::words).collect();
        write(&mut tx, name, &Policy { accepts, ..Policy::default() }).await?;
        if row.retired_at.is_none() {
            let target = format!("environment {name}: {}", words.join("; "));
            audit::record(&mut tx, Actor::pipeyard(), "environment.upgrade", &target, now).await?;
            said.push((row.name, words, left_out));
        }
    }
    tx.commit().await.map_err(failed)?;
    for (environment, words, left_out) in said {
        if words.is_empty() {
            tracing::warn!(
                %environment,
                "environments say now what they take, and nothing was deployed to this one before: it takes nothing until somebody runs `pipectl envs allow {environment} --repo REPO`"
            );
        }
        for rule in words {
            tracing::warn!(%environment, %rule, "environments say now what they take; this rule was made from what was deployed before");
        }
        for what in left_out {
            tracing::warn!(%environment, "{what}: `pipectl envs allow {environment}` takes them in");
        }
    }
    Ok(())
}

/// Where the deployments came from that succeeded or aren't over, the newest first.
async fn history(c: &mut SqliteConnection, environment: &str) -> StoreResult<Vec<Came>> {
    let rows = sqlx::query!(
        r#"SELECT p.name, p.default_branch, r.id, r.event, r.reference, d.finished = 0 AS "open!: bool"
           FROM deployments AS d JOIN runs AS r ON r.id = d.run JOIN repos AS p ON p.id = r.repo
           WHERE d.environment = ? AND (d.finished = 0 OR d.state = 'succeeded') AND d.job IS NOT NULL
             AND r.fork = 0 AND p.removed_at IS NULL
           ORDER BY d.finished, d.id DESC LIMIT ?"#,
        environment,
        HISTORY
    )
    .fetch_all(c)
    .await
    .map_err(failed)?;
    rows.into_iter()
        .map(|row| {
            Ok(Came {
                repo: column::parse("repos", "name", row.id, &row.name)?,
                default_branch: row.default_branch,
                event: run_event(event_of("runs", row.id, &row.event)?),
                reference: row.reference,
                open: row.open,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pipeyard_model::{Clock as _, ManualClock};
    use pipeyard_store::{
        accounts::Accounts as _,
        conformance::{deploy, new_deployment, places, plan, setup},
        deployments::Deployments as _,
        runs::Runs as _,
    };

    use super::*;
    use crate::SqliteStore;

    #[tokio::test]
    async fn an_environment_that_is_older_than_rules_goes_on_to_take_what_it_took() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipeyard.sqlite");
        let clock = ManualClock::at(Timestamp::from_seconds(1_772_366_400));
        let open = || SqliteStore::open(&path, Arc::new(clock.clone()));
        let production = "production".parse().unwrap();
        let store = open().await.unwrap();
        let made = setup(&store, &clock).await;
        places(&store, &clock, &["web"]).await;
        // One is open, from a branch; one was refused, from another.
        for (reference, over) in [("refs/heads/release/1", false), ("refs/heads/evil", true)] {
            let mut run = plan(made.repo, vec![deploy("web")], &clock);
            run.reference = reference.into();
            store.create_runs(vec![run], Actor::pipeyard(), clock.now()).await.unwrap();
            let ready = store.ready_deploys(1).await.unwrap().remove(0);
            let mut new = new_deployment("production", "web", "a");
            new.release.run = ready.run;
            new.job = Some((ready.job, ready.attempt));
            let d = store.create_deployment(new, clock.now()).await.unwrap();
            if over {
                let refused = pipeyard_model::deployment::Event::Refused(
                    pipeyard_model::deployment::Reason::new("x", "y"),
                );
                let change = d.apply(refused, clock.now()).unwrap();
                let change = pipeyard_store::deployments::Change::of(change);
                store.change_deployment(change, clock.now()).await.unwrap();
            }
        }
        let words = async |store: &SqliteStore| -> Vec<String> {
            let policy = store.policy(&production).await.unwrap().unwrap();
            policy.accepts.iter().map(Accept::words).collect()
        };
        assert_eq!(words(&store).await, [""; 0], "a new environment takes nothing");
        let forget = store.write(|c| {
            Box::pin(async move {
                sqlx::query("UPDATE environments SET policy = NULL")
                    .execute(c)
                    .await
                    .map_err(failed)?;
                Ok(())
            })
        });
        forget.await.unwrap();
        for _ in 0..2 {
            let store = open().await.unwrap();
            assert_eq!(words(&store).await, ["shop, branches main, release/1, by push"]);
            let audit = store.audit(None, 10).await.unwrap();
            let rows = audit.iter().filter(|row| row.action == "environment.upgrade");
            assert_eq!(rows.count(), 2, "once for each environment");
        }
    }
}
