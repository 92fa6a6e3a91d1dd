//! Why jobs wait, in words: nobody can take them, nobody who could is there, or all are busy.

use pipeyard_model::{RepoId, Timestamp, job::Reason, runner::reaches};
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
        r#"SELECT j.labels, j.reason_code AS "code!", r.repo, r.fork AS "fork: bool",
             count(*) AS "jobs!: i64"
           FROM jobs AS j JOIN runs AS r ON r.id = j.run
           WHERE j.kind = 'job' AND j.state = 'ready'
           GROUP BY j.labels, j.reason_code, r.repo, r.fork"#
    )
    .fetch_all(&store.read)
    .await
    .map_err(failed)?;
    if waiting.is_empty() {
        return Ok(());
    }
    let runners = sqlx::query!(
        r#"SELECT labels, seen_at, trouble, repos, forks AS "forks: bool" FROM runners
           WHERE removed_at IS NULL"#
    )
    .fetch_all(&store.read)
    .await
    .map_err(failed)?;
    let mut present: Vec<Present> = Vec::with_capacity(runners.len());
    for row in runners {
        let repos = row.repos.as_deref();
        let online = row.seen_at.is_some_and(|seen| now.since(Timestamp(seen)) < ONLINE);
        present.push(Present {
            labels: column::json("runners", "labels", "", &row.labels)?,
            repos: repos.map(|text| column::json("runners", "repos", "", text)).transpose()?,
            forks: row.forks,
            standing: match row.trouble {
                _ if !online => Standing::Offline,
                Some(trouble) => Standing::Unable(trouble),
                None => Standing::Able,
            },
        });
    }
    for row in waiting {
        let wanted: Vec<String> = column::json("jobs", "labels", "", &row.labels)?;
        let of = Of { repo: column::parse("runs", "repo", "", &row.repo)?, fork: row.fork };
        let reason = why(&wanted, of, &present);
        let explained =
            matches!(row.code.as_str(), "no_runner" | "runners_offline" | "runners_unable");
        // A runner that is there: only what said otherwise is corrected, "retrying" stays.
        let right = row.code == reason.code || (reason.code == "waiting_for_runner" && !explained);
        if !right {
            write(store, (row.labels, row.code, of), reason, now).await?;
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

/// A runner, as far as it matters to who waits.
#[derive(Debug, Clone)]
struct Present {
    labels: Vec<String>,
    repos: Option<Vec<RepoId>>,
    forks: bool,
    standing: Standing,
}

/// Whose job waits.
#[derive(Debug, Clone, Copy)]
struct Of {
    repo: RepoId,
    fork: bool,
}

fn why(wanted: &[String], of: Of, present: &[Present]) -> Reason {
    let labelled: Vec<_> = present
        .iter()
        .filter(|runner| wanted.iter().all(|label| runner.labels.contains(label)))
        .collect();
    let able: Vec<&Standing> = labelled
        .iter()
        .filter(|runner| reaches(runner.repos.as_deref(), runner.forks, of.repo, of.fork))
        .map(|runner| &runner.standing)
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
    if able.is_empty() && labelled.is_empty() {
        Reason::new(
            "no_runner",
            format!("no runner{labels} is registered; start one with `pipectl runner`"),
        )
    } else if able.is_empty() {
        let (whose, option) =
            if of.fork { ("forks", "--forks") } else { ("this repository", "--repo") };
        Reason::new(
            "no_runner",
            format!(
                "no runner{labels} takes jobs of {whose}; register one with a token of `pipectl runners token {option}`"
            ),
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
    (labels, code, of): (String, String, Of),
    reason: Reason,
    now: Timestamp,
) -> StoreResult<()> {
    let repo = of.repo.to_string();
    store
        .write(move |c| {
            Box::pin(async move {
                let rows = sqlx::query!(
                    "UPDATE jobs SET reason_code = ?, reason_message = ? WHERE id IN
                       (SELECT j.id FROM jobs AS j JOIN runs AS r ON r.id = j.run
                        WHERE j.kind = 'job' AND j.state = 'ready' AND j.labels = ?
                          AND j.reason_code = ? AND r.repo = ? AND r.fork = ?
                        ORDER BY j.run, j.position LIMIT ?)
                     RETURNING run, name",
                    reason.code,
                    reason.message,
                    labels,
                    code,
                    repo,
                    of.fork,
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
        let of = Of { repo: RepoId::new(), fork: false };
        let runner = |labels: &[String], standing| Present {
            labels: labels.to_vec(),
            repos: None,
            forks: false,
            standing,
        };
        let plain = runner(&["linux".to_owned()], Standing::Able);
        assert_eq!(why(&[], of, &[]).code, "no_runner");
        assert_eq!(why(&gpu, of, std::slice::from_ref(&plain)).code, "no_runner");
        assert!(why(&gpu, of, std::slice::from_ref(&plain)).message.contains("gpu"));
        assert_eq!(
            why(&gpu, of, &[plain.clone(), runner(&gpu, Standing::Offline)]).code,
            "runners_offline"
        );
        assert_eq!(why(&[], of, std::slice::from_ref(&plain)).code, "waiting_for_runner");
        let fork = Of { fork: true, ..of };
        assert!(why(&[], fork, std::slice::from_ref(&plain)).message.contains("--forks"));
        let elsewhere = Present { repos: Some(vec![RepoId::new()]), ..plain };
        assert!(why(&[], of, &[elsewhere]).message.contains("--repo"));
        let unable = runner(&gpu, Standing::Unable("Docker doesn't answer".into()));
        let said = why(&gpu, of, &[unable.clone(), runner(&gpu, Standing::Offline)]);
        assert_eq!(said.code, "runners_unable");
        assert!(said.message.contains("Docker doesn't answer"), "{}", said.message);
        let able = runner(&[], Standing::Able);
        assert_eq!(why(&[], of, &[unable, able]).code, "waiting_for_runner");
    }
}
