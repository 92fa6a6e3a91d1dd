//! `deploy`: how releases reach their environments.

use std::{collections::HashSet, time::Duration};

use pipeyard_api::{
    client::{Client, escape},
    deploys::{
        ApprovalView, Decide, DeploymentDetail, DeploymentView, GivenView, RollBack, TroubleView,
    },
    views::Page,
};
use pipeyard_model::{Conclusion, DeploymentId, EnvironmentName, ServiceName, Status};
use serde_json::Value;

use super::{age, duration, reason, sha, took};
use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
    output::{Column, cell},
    term,
};

/// Deployments.
#[derive(Debug, clap::Subcommand)]
pub enum Deploy {
    /// List them, newest first.
    List {
        /// Only to this environment.
        #[arg(long)]
        env: Option<EnvironmentName>,
        /// Only of this service.
        #[arg(long)]
        service: Option<ServiceName>,
        /// Only those under way.
        #[arg(long)]
        active: bool,
        /// At most so many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Show one: weights, health against limits, what happened.
    Status {
        /// Its number, or `latest`.
        deployment: String,
    },
    /// Follow one to its end; the exit code tells how it ended.
    Watch {
        /// Its number, or `latest`.
        deployment: String,
        /// Give up after so long, 90s, 10m, 2h; it goes on.
        #[arg(long, value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// Approve one that waits for it; it starts once nobody is missing. Who may is said by its
    /// environment.
    Approve {
        /// Its number, or `latest`.
        deployment: String,
        /// Kept with the decision.
        #[arg(long)]
        comment: Option<String>,
    },
    /// End one: before its start it is cancelled, after it the old release takes over.
    Abort {
        /// Its number, or `latest`.
        deployment: String,
        /// Kept with the decision.
        #[arg(long)]
        reason: Option<String>,
    },
    /// End the judging: all traffic to the new release.
    Promote {
        /// Its number, or `latest`.
        deployment: String,
        /// Kept with the decision.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Go back to an earlier release, past the queue and without judging.
    Rollback {
        /// Environment and service, production/web.
        target: String,
        /// The deployment whose release should serve again; the last good one before if absent.
        #[arg(long)]
        to: Option<DeploymentId>,
        /// Kept with the decision.
        #[arg(long)]
        reason: Option<String>,
    },
}

/// Rows asked for at a time.
const PAGE: usize = 200;

/// A value of a limit as its text writes it: a share in percent, a latency in milliseconds.
fn measured(row: &Value, field: &str) -> String {
    let Some(number) = row[field].as_f64() else { return "-".into() };
    let latency = row["text"].as_str().is_some_and(|text| text.contains("_ms"));
    // What a latency is at least is the share of requests beyond its limit.
    if latency && field != "lower_bound" {
        format!("{number:.0} ms")
    } else {
        format!("{:.2} %", number * 100.0)
    }
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".into(), |p| format!("{p:.0}%"))
}

fn stand(row: &Value) -> String {
    cell(&row["state"])
}

/// What keeps it from moving comes before why it stands where it does.
fn why(row: &Value) -> String {
    match row["trouble"]["message"].as_str() {
        Some(trouble) => trouble.to_owned(),
        None => reason(row),
    }
}

const COLUMNS: &[Column] = &[
    Column("DEPLOY", |r| cell(&r["id"])),
    Column("TARGET", |r| format!("{}/{}", cell(&r["environment"]), cell(&r["service"]))),
    Column("STATE", stand),
    Column("COMMIT", |r| sha(&r["release"]["commit"])),
    Column("STRATEGY", |r| cell(&r["strategy_text"])),
    Column("WANT%", |r| percent(&r["intended_weight"])),
    Column("REAL%", |r| percent(&r["measured_weight"])),
    Column("AGE", |r| age(&r["created_at"])),
    Column("TOOK", |r| {
        if r["started_at"].is_null() {
            "-".into()
        } else {
            took(&r["started_at"], &r["finished_at"])
        }
    }),
    Column("WHY", why),
];

async fn number(client: &Client, text: &str) -> Result<DeploymentId, Failure> {
    match text.parse() {
        Ok(number) => Ok(number),
        Err(_) if text == "latest" => {
            Ok(client.get::<DeploymentDetail>("/api/deployments/latest").await?.deployment.id)
        }
        Err(_) => {
            Err(Failure::usage(format!("{text:?} is no deployment: give its number, or latest"))
                .hint("pipectl deploy list"))
        }
    }
}

impl Deploy {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        match self {
            Self::List { env, service, active, limit } => {
                let mut query = format!("active={active}&limit={}", limit.clamp(1, PAGE));
                for (key, value) in
                    [("env", env.map(String::from)), ("service", service.map(String::from))]
                {
                    if let Some(value) = value {
                        query.push_str(&format!("&{key}={}", escape(&value)));
                    }
                }
                let mut rows: Vec<DeploymentView> = Vec::new();
                let mut before = String::new();
                while rows.len() < limit {
                    let page: Page<DeploymentView> =
                        client.get(&format!("/api/deployments?{query}{before}")).await?;
                    rows.extend(page.items);
                    match page.next {
                        Some(next) => before = format!("&before={}", escape(&next)),
                        None => break,
                    }
                }
                rows.truncate(limit);
                if rows.is_empty() && context.for_people() {
                    term::say("no deployments: a deploy in a pipeline makes one");
                }
                context.print(&rows, COLUMNS)?;
                Ok(Exit::Ok)
            }
            Self::Status { deployment } => {
                let id = number(&client, &deployment).await?;
                let detail: DeploymentDetail =
                    client.get(&format!("/api/deployments/{id}")).await?;
                show(context, &detail)?;
                Ok(Exit::Ok)
            }
            Self::Watch { deployment, timeout } => {
                let id = number(&client, &deployment).await?;
                watch(context, &client, id, timeout).await
            }
            Self::Approve { deployment, comment } => {
                decide(context, &client, &deployment, "approve", comment).await
            }
            Self::Abort { deployment, reason } => {
                decide(context, &client, &deployment, "abort", reason).await
            }
            Self::Promote { deployment, reason } => {
                decide(context, &client, &deployment, "promote", reason).await
            }
            Self::Rollback { target, to, reason } => {
                let (env, service) = target.split_once('/').ok_or_else(|| {
                    Failure::usage(format!("{target:?} isn't ENVIRONMENT/SERVICE"))
                        .hint("pipectl deploy rollback production/web")
                })?;
                let path =
                    format!("/api/environments/{}/{}/rollback", escape(env), escape(service));
                let view: DeploymentView =
                    client.post(&path, &RollBack { to, comment: reason }).await?;
                context.print(&view, COLUMNS)?;
                Ok(Exit::Ok)
            }
        }
    }
}

async fn decide(
    context: &Context,
    client: &Client,
    deployment: &str,
    verb: &str,
    comment: Option<String>,
) -> Outcome {
    let id = number(client, deployment).await?;
    let view: DeploymentView =
        client.post(&format!("/api/deployments/{id}/{verb}"), &Decide { comment }).await?;
    context.print(&view, COLUMNS)?;
    if context.for_people() {
        // To standard error: what is printed is the deployment.
        for line in approvals(&view) {
            term::say(&line);
        }
    }
    Ok(Exit::Ok)
}

fn show(context: &Context, detail: &DeploymentDetail) -> Result<(), Failure> {
    if !context.for_people() {
        return context.print(detail, COLUMNS);
    }
    context.print(&detail.deployment, COLUMNS)?;
    if let Some(trouble) = &detail.deployment.trouble {
        let TroubleView { since, code, message, doing, until, then } = trouble;
        term::print(&format!(
            "\ntrouble since {since}: {message} ({code})\n  {doing}; asked again until {until}, then {then}\n"
        ));
    }
    for line in approvals(&detail.deployment) {
        term::print(&format!("\n{line}\n"));
    }
    if let Some(verdict) = &detail.deployment.verdict {
        term::print(&format!("\nverdict: {} ({})\n", verdict.verdict, verdict.message));
    }
    if !detail.health.is_empty() {
        term::print("\n");
        context.print(
            &detail.health,
            &[
                Column("HEALTH", |r| cell(&r["text"])),
                Column("STATE", |r| cell(&r["state"])),
                Column("NEW", |r| measured(r, "value")),
                Column("OLD", |r| measured(r, "baseline")),
                Column("AT LEAST", |r| measured(r, "lower_bound")),
                Column("REQUESTS", |r| cell(&r["requests"])),
            ],
        )?;
    }
    if !detail.targets.is_empty() {
        term::print("\n");
        context.print(
            &detail.targets,
            &[Column("TARGET", |r| cell(&r["id"])), Column("STATE", |r| cell(&r["state"]))],
        )?;
    }
    if !detail.timeline.is_empty() {
        term::print("\n");
        context.print(
            &detail.timeline,
            &[
                Column("TIME", |r| cell(&r["at"])),
                Column("WHO", |r| cell(&r["who"])),
                Column("WHAT", |r| cell(&r["message"])),
            ],
        )?;
    }
    Ok(())
}

/// Each approval, what is missing, and the rule that takes it.
fn approvals(view: &DeploymentView) -> Vec<String> {
    let ApprovalView { count, missing, who, not_the_author, rule, given, .. } = &view.approval;
    let mut lines: Vec<String> = given
        .iter()
        .map(|GivenView { by, at, own, comment, counts }| {
            let own = if *own == Some(true) { ", whose own change it is" } else { "" };
            let comment = comment.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
            let counts = if *counts { "" } else { " (doesn't count by the rules of now)" };
            format!("approved by {by}{own} at {at}{comment}{counts}")
        })
        .collect();
    if let (Some(who), true) = (who, *missing > 0) {
        let author = if *not_the_author { ", but not of the change's author" } else { "" };
        lines.push(format!(
            "{missing} of {count} approvals missing, of {who}{author}: pipectl deploy approve {}",
            view.id
        ));
    }
    lines.extend(rule.as_ref().map(|rule| format!("{} takes it by {rule}", view.environment)));
    lines
}

/// The exit code that tells how a deployment ended.
pub(crate) fn exit_of(view: &DeploymentView) -> Exit {
    match (view.state.as_str(), view.conclusion) {
        ("rolled_back", _) => Exit::RolledBack,
        (_, Some(Conclusion::Success)) => Exit::Ok,
        (_, Some(Conclusion::Cancelled | Conclusion::Skipped)) => Exit::Cancelled,
        _ => Exit::Failed,
    }
}

async fn watch(
    context: &Context,
    client: &Client,
    id: DeploymentId,
    timeout: Option<Duration>,
) -> Outcome {
    let limit = async {
        match timeout {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        outcome = follow(context, client, id) => outcome,
        () = limit => {
            term::say(&format!("gave up waiting; the deployment goes on: pipectl deploy watch {id}"));
            Ok(Exit::GaveUp)
        }
        _ = tokio::signal::ctrl_c() => {
            term::say(&format!("the deployment goes on: pipectl deploy watch {id}"));
            Ok(Exit::Interrupted)
        }
    }
}

/// Prints what changes: a line for people, the deployment itself for programs.
async fn follow(context: &Context, client: &Client, id: DeploymentId) -> Outcome {
    let mut events = client.events("/api/events", None);
    let mut told = HashSet::new();
    let mut last = String::new();
    loop {
        let detail: DeploymentDetail =
            client.get_patiently(&format!("/api/deployments/{id}")).await?;
        let view = &detail.deployment;
        for entry in &detail.timeline {
            if told.insert(entry.n) && context.for_people() {
                term::print(&format!("{} {} {}\n", entry.at, entry.who, entry.message));
            }
        }
        let row = serde_json::to_value(view).unwrap_or_default();
        let line = format!(
            "{}/{} {} want={} real={} {}",
            view.environment,
            view.service,
            view.state,
            percent(&row["intended_weight"]),
            percent(&row["measured_weight"]),
            why(&row)
        );
        if line != last {
            if context.for_people() {
                term::print(&format!("{}\n", line.trim_end()));
            } else {
                context.print(view, COLUMNS)?;
            }
            last = line;
        }
        if view.status == Status::Finished {
            return Ok(exit_of(view));
        }
        if view.state == "awaiting_approval" {
            term::say(&format!("it waits for approval: pipectl deploy approve {id}"));
            return Ok(Exit::NeedsApproval);
        }
        if let Ok(event) = tokio::time::timeout(Duration::from_secs(1), events.next()).await {
            event?;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn approvals_are_told_one_by_one_with_what_is_missing() {
        let release = json!({"id": uuid::Uuid::nil(), "repo": "shop", "commit": "a", "run": 1,
            "artifact": "x", "sha256": "b", "size": 1});
        let approval = json!({"needed": true, "by": null, "at": null, "own": false,
            "comment": null, "count": 2, "missing": 1, "who": "ann or ben",
            "not_the_author": true, "rule": "accepts[0]: shop, its default branch, by push",
            "given": [{"by": "ann", "at": "2026-03-01T12:00:00Z", "own": false,
                       "comment": "fine", "counts": true}]});
        let mut view = json!({"kind": "deployment", "id": 7, "environment": "production",
            "service": "web", "sequence": 1, "purpose": "ship", "strategy": "all_at_once",
            "strategy_text": "", "status": "queued", "state": "awaiting_approval",
            "requested_by": "x", "created_at": "2026-03-01T12:00:00Z"});
        (view["release"], view["approval"]) = (release, approval);
        let mut view: DeploymentView = serde_json::from_value(view).unwrap();
        assert_eq!(
            approvals(&view),
            [
                "approved by ann at 2026-03-01T12:00:00Z: fine",
                "1 of 2 approvals missing, of ann or ben, but not of the change's author: pipectl deploy approve 7",
                "production takes it by accepts[0]: shop, its default branch, by push",
            ]
        );
        view.approval.given[0].counts = false;
        assert!(approvals(&view)[0].ends_with("(doesn't count by the rules of now)"));
    }

    #[test]
    fn health_is_written_as_its_limit_is() {
        let rate = json!({"text": "error_rate < 1 %", "value": 0.0821, "baseline": null});
        assert_eq!(
            (measured(&rate, "value"), measured(&rate, "baseline")),
            ("8.21 %".into(), "-".into())
        );
        let slow = json!({"text": "p95_ms < 300", "value": 104.4, "lower_bound": 0.031});
        assert_eq!(measured(&slow, "value"), "104 ms");
        assert_eq!(measured(&slow, "lower_bound"), "3.10 %");
    }
}
