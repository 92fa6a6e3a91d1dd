//! `runs`: what was executed for which commit.

use std::{collections::HashMap, time::Duration};

use pipeyard_api::{
    client::{Client, escape},
    views::{Page, Rerun, RunDetail, RunView, StartRun},
};
use pipeyard_model::{Conclusion, RepoName, RunId, Status};
use serde_json::Value;

use super::{age, duration, filter, matches, reason, run_tests, sha, state, took};
use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
    output::{Column, cell},
    term,
};

/// Rows asked for at a time.
const PAGE: usize = 100;
/// A change that no event told is found after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Runs of pipelines.
#[derive(Debug, clap::Subcommand)]
pub enum Runs {
    /// List them, newest first.
    List(List),
    /// Show one with its jobs.
    View {
        /// Its number, or `latest`.
        run: String,
    },
    /// Start one by hand.
    Start {
        /// The repository.
        repo: RepoName,
        /// Branch or full SHA; the default branch if absent.
        reference: Option<String>,
        /// Watch it to its end.
        #[arg(long)]
        watch: bool,
    },
    /// Follow one to its end; the exit code tells how it ended.
    Watch {
        /// Its number, or `latest`.
        run: String,
        /// Give up after so long, 90s, 10m, 2h; it goes on.
        #[arg(long, value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// End one.
    Cancel {
        /// Its number, or `latest`.
        run: String,
    },
    /// Let a held one go.
    Approve {
        /// Its number, or `latest`.
        run: String,
    },
    /// Run one again, on the same commit.
    Rerun {
        /// Its number, or `latest`.
        run: String,
        /// Only what didn't succeed and what needs it.
        #[arg(long)]
        failed: bool,
        /// Watch it to its end.
        #[arg(long)]
        watch: bool,
    },
}

/// List runs.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Only of this repository.
    #[arg(long)]
    repo: Option<RepoName>,
    /// Only of this branch.
    #[arg(long)]
    branch: Option<String>,
    /// Only with this status: queued, running, finished.
    #[arg(long)]
    status: Option<Status>,
    /// Only with this conclusion: success, failure, error, timed_out, cancelled, skipped.
    #[arg(long)]
    conclusion: Option<Conclusion>,
    /// Only rows with this field, `event=push`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = filter)]
    filter: Vec<(String, String)>,
    /// At most so many.
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

const COLUMNS: &[Column] = &[
    Column("RUN", |r| cell(&r["id"])),
    Column("STATE", state),
    Column("REPO", |r| cell(&r["repo"])),
    Column("BRANCH", |r| cell(&r["branch"])),
    Column("COMMIT", |r| sha(&r["commit"])),
    Column("AGE", |r| age(&r["created_at"])),
    Column("TOOK", |r| took(&r["created_at"], &r["finished_at"])),
    Column("TITLE", |r| cell(&r["title"])),
];

const JOBS: &[Column] = &[
    Column("JOB", |r| cell(&r["name"])),
    Column("STATE", state),
    Column("ATTEMPT", |r| cell(&r["epoch"])),
    Column("TOOK", |r| {
        if r["started_at"].is_null() {
            "-".into()
        } else {
            took(&r["started_at"], &r["finished_at"])
        }
    }),
    Column("WHY", reason),
];

/// The number for `81` or `latest`.
pub(crate) async fn run_number(client: &Client, text: &str) -> Result<RunId, Failure> {
    match text.parse() {
        Ok(number) => Ok(number),
        Err(_) if text == "latest" => Ok(client.get::<RunDetail>("/api/runs/latest").await?.run.id),
        Err(_) => Err(Failure::usage(format!("{text:?} is no run: give its number, or latest"))
            .hint("pipectl runs list")),
    }
}

impl Runs {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        match self {
            Self::List(list) => list.run(context, &client).await,
            Self::View { run } => {
                let run = run_number(&client, &run).await?;
                let detail: RunDetail = client.get(&format!("/api/runs/{run}")).await?;
                view(context, &detail)?;
                if context.for_people() {
                    run_tests::print(&client, &detail).await?;
                    term::say(&format!("\n{}/runs/{run}", client.base()));
                }
                Ok(Exit::Ok)
            }
            Self::Start { repo, reference, watch: follow } => {
                let run: RunView = client.post("/api/runs", &StartRun { repo, reference }).await?;
                started(context, &client, run, follow).await
            }
            Self::Watch { run, timeout } => {
                let run = run_number(&client, &run).await?;
                watch(context, &client, run, timeout).await
            }
            Self::Cancel { run } => change(context, &client, &run, "cancel", &()).await,
            Self::Approve { run } => change(context, &client, &run, "approve", &()).await,
            Self::Rerun { run, failed, watch: follow } => {
                let run = run_number(&client, &run).await?;
                let again: RunView =
                    client.post(&format!("/api/runs/{run}/rerun"), &Rerun { failed }).await?;
                started(context, &client, again, follow).await
            }
        }
    }
}

async fn change<B: serde::Serialize + Sync>(
    context: &Context,
    client: &Client,
    run: &str,
    verb: &str,
    body: &B,
) -> Outcome {
    let run = run_number(client, run).await?;
    let view: RunView = client.post(&format!("/api/runs/{run}/{verb}"), body).await?;
    context.print(&view, COLUMNS)?;
    Ok(Exit::Ok)
}

async fn started(context: &Context, client: &Client, run: RunView, follow: bool) -> Outcome {
    if follow {
        return watch(context, client, run.id, None).await;
    }
    context.print(&run, COLUMNS)?;
    term::say(&format!("{}/runs/{}", client.base(), run.id));
    Ok(Exit::Ok)
}

impl List {
    async fn run(self, context: &Context, client: &Client) -> Outcome {
        let mut query = String::new();
        let mut add = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                query.push_str(&format!("&{key}={}", escape(&value)));
            }
        };
        add("repo", self.repo.map(|r| r.to_string()));
        add("branch", self.branch);
        add("status", self.status.map(|s| s.to_string()));
        add("conclusion", self.conclusion.map(|c| c.to_string()));
        let mut rows: Vec<Value> = Vec::new();
        let mut before = String::new();
        while rows.len() < self.limit {
            let page: Page<Value> =
                client.get(&format!("/api/runs?limit={PAGE}{query}{before}")).await?;
            rows.extend(page.items.into_iter().filter(|row| matches(row, &self.filter)));
            match page.next {
                Some(next) => before = format!("&before={}", escape(&next)),
                None => break,
            }
        }
        rows.truncate(self.limit);
        if rows.is_empty() && context.for_people() {
            term::say("no runs: push a commit with a .pipeyard.yml, or pipectl runs start REPO");
        }
        context.print(&rows, COLUMNS)?;
        Ok(Exit::Ok)
    }
}

fn view(context: &Context, detail: &RunDetail) -> Result<(), Failure> {
    if !context.for_people() {
        return context.print(detail, COLUMNS);
    }
    context.print(&detail.run, COLUMNS)?;
    if let Some(why) = &detail.run.reason {
        term::print(&format!("\n{}: {}\n", why.code, why.message));
    }
    for finding in &detail.diagnostics {
        term::print(&format!("\n{}\n", finding.rendered.trim_end()));
    }
    if !detail.jobs.is_empty() {
        term::print("\n");
        context.print(&detail.jobs, JOBS)?;
    }
    Ok(())
}

/// The exit code that tells how a run ended.
pub(crate) fn exit_of(conclusion: Option<Conclusion>) -> Exit {
    match conclusion {
        Some(Conclusion::Success | Conclusion::Skipped) => Exit::Ok,
        Some(Conclusion::Cancelled) => Exit::Cancelled,
        Some(Conclusion::Failure | Conclusion::Error | Conclusion::TimedOut) | None => Exit::Failed,
    }
}

/// Prints each change until the run has ended: a line for people, the job or run itself for programs.
async fn watch(
    context: &Context,
    client: &Client,
    run: RunId,
    timeout: Option<Duration>,
) -> Outcome {
    let follow = follow(context, client, run);
    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    let limit = async {
        match timeout {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        outcome = follow => outcome,
        () = limit => {
            term::say(&format!("gave up waiting; the run goes on: pipectl runs watch {run}"));
            Ok(Exit::GaveUp)
        }
        () = interrupted => {
            term::say(&format!("the run goes on: pipectl runs watch {run}"));
            Ok(Exit::Interrupted)
        }
    }
}

async fn follow(context: &Context, client: &Client, run: RunId) -> Outcome {
    let mut events = client.events(&format!("/api/events?run={run}"), None);
    let mut seen: HashMap<String, String> = HashMap::new();
    loop {
        let detail: RunDetail = client.get_patiently(&format!("/api/runs/{run}")).await?;
        for job in &detail.jobs {
            let row = serde_json::to_value(job).unwrap_or_default();
            let mut line = format!("{:<20} {}", job.name, state(&row));
            if job.status == Status::Finished && job.started_at.is_some() {
                line.push_str(&format!(" {}", took(&row["started_at"], &row["finished_at"])));
            }
            let why = reason(&row);
            if !why.is_empty() {
                line.push_str(&format!(" ({why})"));
            }
            if seen.insert(job.name.to_string(), line.clone()).as_ref() != Some(&line) {
                if context.for_people() {
                    term::print(&format!("{line}\n"));
                } else {
                    context.print(job, JOBS)?;
                }
            }
        }
        if detail.run.status == Status::Finished {
            let row = serde_json::to_value(&detail.run).unwrap_or_default();
            for finding in &detail.diagnostics {
                term::say(finding.rendered.trim_end());
            }
            let rolled_back = detail
                .jobs
                .iter()
                .any(|j| j.reason.as_ref().is_some_and(|r| r.code == "rolled_back"));
            if context.for_people() {
                let took = took(&row["created_at"], &row["finished_at"]);
                term::print(&format!("run {run} {} {took}\n", state(&row)));
            } else {
                context.print(&detail.run, COLUMNS)?;
            }
            let exit = exit_of(detail.run.conclusion);
            return Ok(if exit == Exit::Failed && rolled_back { Exit::RolledBack } else { exit });
        }
        if detail.run.held {
            term::say(&format!("run {run} is held: pipectl runs approve {run}"));
            return Ok(Exit::NeedsApproval);
        }
        // Whatever the event says, the rows tell the truth.
        if let Ok(event) = tokio::time::timeout(LOOK_AGAIN, events.next()).await {
            event?;
        }
    }
}
