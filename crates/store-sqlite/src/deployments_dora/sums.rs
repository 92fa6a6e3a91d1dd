//! Sums over spans of time: from the longest cells that fit, and from contributions at the edges.

use std::slice;

use pipeyard_dora::{Contribution, Piece, Samples, Sums, Tier, Totals, pieces};
use pipeyard_model::{ServiceName, Timestamp};
use pipeyard_store::{
    StoreResult,
    dora::{MAX_SAMPLES, Whose},
};
use sqlx::SqliteConnection;

use super::{environments, keep};
use crate::{column, column::failed};

/// The sums of the spans between `edges`, and of the span from `before` to the first of them.
pub(super) async fn read(
    c: &mut SqliteConnection,
    whose: &Whose,
    before: Timestamp,
    edges: &[Timestamp],
) -> StoreResult<Sums> {
    let (Some(first), Some(last)) = (edges.first(), edges.last()) else {
        return Ok(Sums::default());
    };
    let service = whose.service.as_ref().map_or("", ServiceName::as_str);
    let environments = environments(c, whose).await?;
    let mut sums = Sums { buckets: vec![Totals::default(); edges.len() - 1], ..Sums::default() };
    for environment in &environments {
        let previous = slice::from_mut(&mut sums.previous);
        add(c, environment, service, &[before, *first], previous).await?;
        add(c, environment, service, edges, &mut sums.buckets).await?;
        sums.places += places(c, environment, service, *first, *last).await?;
    }
    let durations: u64 = sums.buckets.iter().map(Totals::durations).sum();
    if durations + sums.previous.durations() <= MAX_SAMPLES {
        let all = slice::from_mut(&mut sums.previous).iter_mut().chain(&mut sums.buckets);
        all.for_each(|totals| totals.samples = Some(Samples::default()));
        for environment in &environments {
            for (at, part) in parts(c, environment, service, before, *last).await? {
                match span_of(edges, at) {
                    Some(span) => sums.buckets[span].sample(&part),
                    None => sums.previous.sample(&part),
                }
            }
        }
    }
    Ok(sums)
}

/// Adds what a place has between `edges` to the total of each span.
async fn add(
    c: &mut SqliteConnection,
    environment: &str,
    service: &str,
    edges: &[Timestamp],
    totals: &mut [Totals],
) -> StoreResult<()> {
    let tiers = if service.is_empty() { Tier::OF_ENVIRONMENTS } else { Tier::OF_SERVICES };
    for Piece { tier, from, to } in pieces(edges, tiers) {
        let Some(tier) = tier else {
            for (at, part) in parts(c, environment, service, from, to).await? {
                if let Some(span) = span_of(edges, at) {
                    totals[span].cell.add(&part);
                }
            }
            continue;
        };
        let tier = tier.as_str();
        let rows = sqlx::query!(
            "SELECT start, cell FROM dora_cells
             WHERE environment = ? AND service = ? AND tier = ? AND start >= ? AND start < ?",
            environment,
            service,
            tier,
            from.0,
            to.0
        )
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
        for row in rows {
            let start = Timestamp(row.start);
            if let Some(span) = span_of(edges, start) {
                totals[span].cell.merge(&keep::read(&row.cell, start)?);
            }
        }
    }
    Ok(())
}

/// The span between edges that a moment is in; none before the first edge.
fn span_of(edges: &[Timestamp], at: Timestamp) -> Option<usize> {
    edges.partition_point(|edge| *edge <= at).checked_sub(1)
}

async fn parts(
    c: &mut SqliteConnection,
    environment: &str,
    service: &str,
    from: Timestamp,
    to: Timestamp,
) -> StoreResult<Vec<(Timestamp, Contribution)>> {
    // Two statements, so that each can use the index that it needs.
    let texts = if service.is_empty() {
        sqlx::query_scalar!(
            "SELECT part FROM dora_contributions WHERE environment = ? AND at >= ? AND at < ?",
            environment,
            from.0,
            to.0
        )
        .fetch_all(c)
        .await
    } else {
        sqlx::query_scalar!(
            "SELECT part FROM dora_contributions
             WHERE environment = ? AND service = ? AND at >= ? AND at < ?",
            environment,
            service,
            from.0,
            to.0
        )
        .fetch_all(c)
        .await
    };
    let part = |text: &String| {
        let part: Contribution = column::json("dora_contributions", "part", "", text)?;
        Ok((part.at, part))
    };
    texts.map_err(failed)?.iter().map(part).collect()
}

/// How many services had a deployment end there.
async fn places(
    c: &mut SqliteConnection,
    environment: &str,
    service: &str,
    from: Timestamp,
    to: Timestamp,
) -> StoreResult<u64> {
    let count = sqlx::query_scalar!(
        "SELECT COUNT(*) FROM services AS s
         WHERE s.environment = ?1 AND (?2 = '' OR s.name = ?2) AND EXISTS (
             SELECT 1 FROM dora_contributions AS d
             WHERE d.environment = s.environment AND d.service = s.name
               AND d.at >= ?3 AND d.at < ?4 AND d.source = 'deployment' AND d.over = 1)",
        environment,
        service,
        from.0,
        to.0
    )
    .fetch_one(c)
    .await
    .map_err(failed)?;
    Ok(count.unsigned_abs())
}
