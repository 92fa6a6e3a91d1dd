//! Compares contributions with their facts and cells with their contributions, a piece at a time,
//! and corrects what differs. It also adds what older versions didn't keep.

use pipeyard_dora::{CellKey, Tier, cell_keys};
use pipeyard_model::{DeploymentId, IncidentId, ServiceName, Timestamp};
use pipeyard_store::{
    StoreResult,
    dora::{CheckFrom, Checked},
};
use sqlx::SqliteConnection;

use super::keep::{self, Found};
use crate::{column, column::failed};

/// Checks the next `limit` of a kind.
pub(super) async fn piece(
    c: &mut SqliteConnection,
    from: CheckFrom,
    limit: u32,
) -> StoreResult<Checked> {
    match from {
        CheckFrom::Deployments(after) => deployments(c, after.0, limit).await,
        CheckFrom::Incidents(after) => incidents(c, after.0, limit).await,
        CheckFrom::Cells(after) => cells(c, after, limit).await,
    }
}

#[derive(Default)]
struct Tally {
    added: u64,
    corrected: u64,
}

impl Tally {
    fn note(&mut self, found: Found) {
        match found {
            Found::Same => {}
            Found::Missing => self.added += 1,
            Found::Other => self.corrected += 1,
        }
    }

    fn end(self, next: Option<CheckFrom>) -> Checked {
        Checked { next, added: self.added, corrected: self.corrected }
    }
}

async fn deployments(c: &mut SqliteConnection, after: i64, limit: u32) -> StoreResult<Checked> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM deployments WHERE id > ? ORDER BY id LIMIT ?",
        after,
        limit
    )
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    let mut tally = Tally::default();
    for id in &ids {
        let (fact, found) = keep::keep_deployment(c, *id).await?;
        tally.note(found);
        if found == Found::Missing
            && let Some(of) = fact.rollback_of
        {
            keep::keep_deployment(c, of.0).await?;
        }
        let at = fact.finished_at.unwrap_or(fact.created_at);
        tally.corrected += add_missing(c, cell_keys(at, &fact.environment, &fact.service)).await?;
    }
    let next = ids.last().map_or(CheckFrom::Incidents(IncidentId(0)), |last| {
        CheckFrom::Deployments(DeploymentId(*last))
    });
    Ok(tally.end(Some(next)))
}

async fn incidents(c: &mut SqliteConnection, after: i64, limit: u32) -> StoreResult<Checked> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM incidents WHERE id > ? ORDER BY id LIMIT ?",
        after,
        limit
    )
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    let mut tally = Tally::default();
    for id in &ids {
        let (fact, _, found) = keep::keep_incident(c, *id).await?;
        tally.note(found);
        let keys = cell_keys(fact.impact_at, &fact.environment, &fact.service);
        tally.corrected += add_missing(c, keys).await?;
    }
    let next =
        ids.last().map_or(CheckFrom::Cells(None), |last| CheckFrom::Incidents(IncidentId(*last)));
    Ok(tally.end(Some(next)))
}

/// Builds the cells that should be there and aren't; answers how many.
async fn add_missing(
    c: &mut SqliteConnection,
    keys: impl Iterator<Item = CellKey>,
) -> StoreResult<u64> {
    let mut added = 0;
    let mut keys: Vec<CellKey> = keys.collect();
    // Months are built from days.
    keys.sort_by_key(|key| key.tier);
    for key in keys {
        if keep::cell(c, &key).await?.is_none() {
            let cell = keep::built(c, &key).await?;
            keep::write(c, &key, &cell).await?;
            added += 1;
        }
    }
    Ok(added)
}

/// In the order of their keys, `day` comes before `month`, so that a month is built from good days.
async fn cells(
    c: &mut SqliteConnection,
    after: Option<CellKey>,
    limit: u32,
) -> StoreResult<Checked> {
    let (environment, service, tier, start) = match &after {
        Some(key) => (
            key.environment.as_str(),
            key.service.as_ref().map_or("", ServiceName::as_str),
            key.tier.as_str(),
            key.start.0,
        ),
        None => ("", "", "", 0),
    };
    let rows = sqlx::query!(
        "SELECT environment, service, tier, start FROM dora_cells
         WHERE (environment, service, tier, start) > (?, ?, ?, ?)
         ORDER BY environment, service, tier, start LIMIT ?",
        environment,
        service,
        tier,
        start,
        limit
    )
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    let mut corrected = 0;
    let mut last = None;
    for row in rows {
        let start = row.start;
        let service = (!row.service.is_empty()).then_some(row.service.as_str());
        let key = CellKey {
            environment: column::parse("dora_cells", "environment", start, &row.environment)?,
            service: column::parse_opt("dora_cells", "service", start, service)?,
            tier: match row.tier.as_str() {
                "hour" => Tier::Hour,
                "day" => Tier::Day,
                _ => Tier::Month,
            },
            start: Timestamp(start),
        };
        let built = keep::built(c, &key).await?;
        if keep::cell(c, &key).await?.as_ref() != Some(&built) {
            keep::write(c, &key, &built).await?;
            corrected += 1;
        }
        last = Some(key);
    }
    let next = last.map(|key| CheckFrom::Cells(Some(key)));
    Ok(Checked { next, added: 0, corrected })
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use pipeyard_dora::Sums;
    use pipeyard_model::{
        Actor, ManualClock, ReleaseId, RepoId, RunId, UserId,
        deployment::{Event, Purpose, Release},
        plan::{Otherwise, Strategy},
    };
    use pipeyard_store::{
        deployments::{Change, Deployments as _, NewDeployment, NewIncident},
        dora::{Dora as _, Whose},
    };

    use super::*;
    use crate::SqliteStore;

    const NOW: Timestamp = Timestamp::from_seconds(1_772_366_400);

    /// A deployment that is over, one that isn't, and an incident.
    async fn story(store: &SqliteStore) {
        let file = serde_json::json!({ "environments": { "production": {
            "production": true,
            "provider": { "endpoint": "http://127.0.0.1:1" },
            "services": { "web": { "listen": 1, "container": { "image": "x", "port": 80 } } },
        }}});
        let file = serde_json::from_value(file).unwrap();
        store.apply_environments(file, false, Actor::user(UserId::new()), NOW).await.unwrap();
        let (environment, service) = ("production".parse().unwrap(), "web".parse().unwrap());
        let new = NewDeployment {
            environment,
            service,
            purpose: Purpose::Ship,
            release: Release {
                id: ReleaseId::new(),
                repo: RepoId::new(),
                repo_name: "shop".parse().unwrap(),
                commit: "a".repeat(40),
                run: RunId(1),
                job: "package".parse().unwrap(),
                artifact: "shop.tar.gz".into(),
                sha256: "a".repeat(64),
                size: 1,
            },
            strategy: Strategy::AllAtOnce,
            limits: vec![],
            otherwise: Otherwise::Rollback,
            job: None,
            requested_by: "ann".into(),
            needs_approval: false,
            asks_approval: false,
            waits: None,
            comment: None,
            by: Actor::pipeyard(),
        };
        let first = store.create_deployment(new.clone(), NOW).await.unwrap();
        let ended = first.apply(Event::Aborted { by: "ann".into(), comment: None }, NOW).unwrap();
        store.change_deployment(Change::of(ended), NOW).await.unwrap();
        store.create_deployment(new.clone(), NOW).await.unwrap();
        let incident = NewIncident {
            key: None,
            environment: new.environment,
            service: new.service,
            title: "checkout fails".into(),
            impact_at: NOW,
            detected_at: NOW,
            deployment: Some((first.id, "manual".into())),
            by: "ann".into(),
            actor: Actor::user(UserId::new()),
        };
        store.open_incident(incident, NOW).await.unwrap();
    }

    async fn sums(store: &SqliteStore) -> Sums {
        // A whole day, which is read from its cell, between two parts of others.
        let hours = |n: i64| Timestamp(NOW.0 + n * 3_600_000_000);
        store.dora_sums(&Whose::default(), hours(-100), &[hours(-20), hours(20)]).await.unwrap()
    }

    async fn check(store: &SqliteStore) -> (u64, u64) {
        let (mut added, mut corrected, mut from) = (0, 0, Some(CheckFrom::START));
        while let Some(place) = from {
            let piece = store.check_dora(place, 1).await.unwrap();
            (added, corrected, from) =
                (added + piece.added, corrected + piece.corrected, piece.next);
        }
        (added, corrected)
    }

    #[tokio::test]
    async fn what_is_missing_is_added_and_what_is_wrong_is_corrected() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW + Duration::from_secs(60)));
        let store = SqliteStore::open(&folder.path().join("p.db"), clock).await.unwrap();
        story(&store).await;
        let right = sums(&store).await;
        assert_eq!(right.buckets[0].cell.counts.listed, 2);
        assert_eq!(right.buckets[0].cell.counts.incidents, 1);
        assert_eq!(check(&store).await, (0, 0));
        for (harm, found) in [
            // An older version kept neither.
            (&["DELETE FROM dora_contributions", "DELETE FROM dora_cells"][..], (3, 0)),
            // Every cell of the place and of the environment.
            (&["DELETE FROM dora_cells"][..], (0, 5)),
            (&["UPDATE dora_cells SET cell = x'00' WHERE tier = 'day'"][..], (0, 2)),
        ] {
            for statement in harm {
                let work = store.write(move |c| {
                    Box::pin(async move {
                        sqlx::query(*statement).execute(c).await.map_err(failed).map(drop)
                    })
                });
                work.await.unwrap();
            }
            assert_eq!(check(&store).await, found, "{harm:?}");
            assert_eq!(sums(&store).await, right, "{harm:?}");
        }
    }
}
