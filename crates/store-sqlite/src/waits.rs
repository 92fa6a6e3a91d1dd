//! Why jobs wait, in words: nobody can take them, nobody who could is there, or all are busy.

use pipeyard_model::{Timestamp, job::Reason};
use pipeyard_store::StoreResult;

use crate::{
    SqliteStore,
    column::{self, failed},
    events::{self, NewEvent},
    runners::ONLINE,
};

/// Rows that one transaction explains; the rest has its turn at the next look.
const PIECE: u32 = 500;

/// Compares the reasons of jobs that may be claimed with the runners that there are.
pub(crate) async fn explain(store: &SqliteStore, now: Timestamp) -> StoreResult<()> {
    let waiting = sqlx::query!(
        r#"SELECT labels, reason_code AS "code!", count(*) AS "jobs!: i64" FROM jobs
           WHERE kind = 'job' AND state = 'ready' GROUP BY labels, reason_code"#
    )
    .fetch_all(&store.read)
    .await
    .map_err(failed)?;
    if waiting.is_empty() {
        return Ok(());
    }
    let runners =
        sqlx::query!("SELECT labels, seen_at, trouble FROM runners WHERE removed_at IS NULL")
            .fetch_all(&store.read)
            .await
            .map_err(failed)?;
    let mut present: Vec<(Vec<String>, Standing)> = Vec::with_capacity(runners.len());
    for row in runners {
        let labels = column::json("runners", "labels", "", &row.labels)?;
        let online = row.seen_at.is_some_and(|seen| now.since(Timestamp(seen)) < ONLINE);
        let standing = match row.trouble {
            _ if !online => Standing::Offline,
            Some(trouble) => Standing::Unable(trouble),
            None => Standing::Able,
        };
        present.push((labels, standing));
    }
    for row in waiting {
        let wanted: Vec<String> = column::json("jobs", "labels", "", &row.labels)?;
        let reason = why(&wanted, &present);
        let explained =
            matches!(row.code.as_str(), "no_runner" | "runners_offline" | "runners_unable");
        // A runner that is there: only what said otherwise is corrected, "retrying" stays.
        let right = row.code == reason.code || (reason.code == "waiting_for_runner" && !explained);
        if !right {
            write(store, row.labels, row.code, reason, now).await?;
        }
    }
    Ok(())
}

/// Whether a runner could take a job.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Able,
    /// It is there and can run nothing.
    Unable(String),
    Offline,
}

fn why(wanted: &[String], present: &[(Vec<String>, Standing)]) -> Reason {
    let able: Vec<&Standing> = present
        .iter()
        .filter(|(labels, _)| wanted.iter().all(|label| labels.contains(label)))
        .map(|(_, standing)| standing)
        .collect();
    let trouble = able.iter().find_map(|standing| match standing {
        Standing::Unable(trouble) => Some(trouble),
        Standing::Able | Standing::Offline => None,
    });
    let labels = if wanted.is_empty() {
        String::new()
    } else {
        format!(" with the labels {}", wanted.join(", "))
    };
    if able.is_empty() {
        Reason::new(
            "no_runner",
            format!("no runner{labels} is registered; start one with `pipectl runner`"),
        )
    } else if able.contains(&&Standing::Able) {
        Reason::new("waiting_for_runner", "waits for a free runner")
    } else if let Some(trouble) = trouble {
        Reason::new(
            "runners_unable",
            format!("no runner{labels} can run jobs now; one says: {trouble}"),
        )
    } else {
        Reason::new(
            "runners_offline",
            format!("every runner{labels} is offline; start one of them again"),
        )
    }
}

async fn write(
    store: &SqliteStore,
    labels: String,
    code: String,
    reason: Reason,
    now: Timestamp,
) -> StoreResult<()> {
    store
        .write(move |c| {
            Box::pin(async move {
                let rows = sqlx::query!(
                    "UPDATE jobs SET reason_code = ?, reason_message = ? WHERE id IN
                       (SELECT id FROM jobs WHERE kind = 'job' AND state = 'ready' AND labels = ?
                        AND reason_code = ? ORDER BY run, position LIMIT ?)
                     RETURNING run, name",
                    reason.code,
                    reason.message,
                    labels,
                    code,
                    PIECE
                )
                .fetch_all(&mut *c)
                .await
                .map_err(failed)?;
                let changed: Vec<_> = rows
                    .into_iter()
                    .map(|row| NewEvent {
                        kind: "job.changed",
                        run: Some(row.run),
                        job: Some(row.name),
                        deployment: None,
                    })
                    .collect();
                events::append(c, &changed, now).await
            })
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_says_who_is_missing() {
        let gpu = vec!["gpu".to_owned()];
        let plain = (vec!["linux".to_owned()], Standing::Able);
        assert_eq!(why(&[], &[]).code, "no_runner");
        assert_eq!(why(&gpu, std::slice::from_ref(&plain)).code, "no_runner");
        assert!(why(&gpu, std::slice::from_ref(&plain)).message.contains("gpu"));
        assert_eq!(
            why(&gpu, &[plain.clone(), (gpu.clone(), Standing::Offline)]).code,
            "runners_offline"
        );
        let unable = (gpu.clone(), Standing::Unable("Docker doesn't answer".into()));
        let said = why(&gpu, &[plain.clone(), unable.clone(), (gpu.clone(), Standing::Offline)]);
        assert_eq!(said.code, "runners_unable");
        assert!(said.message.contains("Docker doesn't answer"), "{}", said.message);
        assert_eq!(why(&[], &[unable, plain]).code, "waiting_for_runner");
    }
}
