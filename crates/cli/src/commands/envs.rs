//! `envs`: environments and services, made by a file and by nothing else.

use std::path::PathBuf;

use pipeyard_api::deploys::{Applied, EnvironmentView, EnvironmentsFile};
use serde_json::Value;

use super::{
    age,
    env_rules::{Allow, Check},
};
use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
    output::{Column, cell},
    term,
};

/// Environments and their services.
#[derive(Debug, clap::Subcommand)]
pub enum Envs {
    /// List services by environment, with what serves now.
    List,
    /// Let an environment take what comes from a repository's branches or tags. Without both: its
    /// default branch.
    Allow(Allow),
    /// Tell what would come of a deploy: whether a rule takes it, whose approval it needs, and until
    /// when nothing starts. Exits with 1 when it would be refused.
    Check(Check),
    /// Make the environments be what the file says. What it doesn't name is retired.
    Apply {
        /// The file, YAML.
        file: PathBuf,
        /// Only say what would change.
        #[arg(long)]
        dry_run: bool,
    },
}

impl Envs {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        match self {
            Self::Allow(allow) => return allow.run(context, &client).await,
            Self::Check(check) => return check.run(context, &client).await,
            Self::List => {
                let environments: Vec<EnvironmentView> = client.get("/api/environments").await?;
                if !context.for_people() {
                    context.print(&environments, &[])?;
                    return Ok(Exit::Ok);
                }
                let rows: Vec<Value> = environments.iter().flat_map(services).collect();
                if rows.is_empty() {
                    term::say("no environments yet: pipectl envs apply FILE");
                }
                context.print(
                    &rows,
                    &[
                        Column("SERVICE", |r| cell(&r["service"])),
                        Column("PRODUCTION", |r| {
                            if r["production"] == true { "yes".into() } else { "no".into() }
                        }),
                        Column("TAKES", |r| cell(&r["takes"])),
                        Column("SERVING", |r| super::sha(&r["serving"]["release"]["commit"])),
                        Column("HEALTH", |r| health(&r["health"])),
                        Column("DEPLOY", |r| cell(&r["serving"]["deployment"])),
                        Column("SINCE", |r| age(&r["serving"]["since"])),
                        Column("ACTIVE", |r| cell(&r["active"])),
                        Column("LISTEN", |r| cell(&r["spec"]["listen"])),
                    ],
                )?;
            }
            Self::Apply { file, dry_run } => {
                let text = std::fs::read_to_string(&file).map_err(|e| {
                    Failure::usage(format!("failed to read {}: {e}", file.display()))
                })?;
                let spec: EnvironmentsFile = serde_yaml::from_str(&text)
                    .map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
                let applied: Applied =
                    client.put(&format!("/api/environments?dry_run={dry_run}"), &spec).await?;
                if context.for_people() {
                    for change in &applied.changes {
                        term::print(&format!("{:<9} {}\n", change.change, change.what));
                        for field in &change.fields {
                            term::print(&format!("          {field}\n"));
                        }
                    }
                    if applied.changes.is_empty() {
                        term::say("nothing to change");
                    }
                    for note in &applied.notes {
                        term::say(&format!("note: {note}"));
                    }
                } else {
                    context.print(&applied, &[])?;
                }
            }
        }
        Ok(Exit::Ok)
    }
}

/// The repositories that it takes something of, and whether it is frozen.
fn takes(environment: &EnvironmentView) -> String {
    let mut repos: Vec<&str> =
        environment.policy.accepts.iter().map(|rule| rule.repo.as_str()).collect();
    repos.dedup();
    let frozen = if environment.frozen.is_some() { " (frozen)" } else { "" };
    if repos.is_empty() { "nothing".into() } else { format!("{}{frozen}", repos.join(", ")) }
}

/// `2/2`, `DOWN 0/2`; nothing when nobody can say.
fn health(health: &Value) -> String {
    let count = format!("{}/{}", health["healthy"], health["wanted"]);
    match health["state"].as_str() {
        None | Some("nothing") => String::new(),
        Some("serving") => count,
        Some("unknown") => "unknown".into(),
        Some("down") => format!("DOWN {count}"),
        Some(other) => format!("{other} {count}"),
    }
}

fn services(environment: &EnvironmentView) -> Vec<Value> {
    environment
        .services
        .iter()
        .map(|service| {
            let mut row = serde_json::to_value(service).unwrap_or_default();
            row["service"] = format!("{}/{}", environment.name, service.name).into();
            row["production"] = environment.production.into();
            row["takes"] = takes(environment).into();
            row["frozen"] = serde_json::to_value(&environment.frozen).unwrap_or_default();
            row
        })
        .collect()
}
