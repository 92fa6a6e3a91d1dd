//! `incidents`: production failures, from detection to restoration.

use pipeyard_api::{
    client::escape,
    deploys::{CloseIncident, IncidentView, OpenIncident},
};
use pipeyard_model::{DeploymentId, EnvironmentName, IncidentId, ServiceName, Timestamp};

use super::took;
use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
    output::{Column, cell},
};

/// Production failures.
#[derive(Debug, clap::Subcommand)]
pub enum Incidents {
    /// List them, newest first.
    List {
        /// Only of this environment.
        #[arg(long)]
        env: Option<EnvironmentName>,
        /// Only of this service.
        #[arg(long)]
        service: Option<ServiceName>,
        /// Only open ones.
        #[arg(long)]
        open: bool,
    },
    /// Open one. The same --key a second time answers the first.
    Open {
        /// Environment and service, production/web.
        target: String,
        /// One line.
        title: String,
        /// Makes a repeat harmless.
        #[arg(long)]
        key: Option<String>,
        /// When users began to suffer, RFC 3339; now if absent.
        #[arg(long)]
        impact_at: Option<Timestamp>,
        /// The deployment that caused it; inferred if absent.
        #[arg(long)]
        deploy: Option<DeploymentId>,
    },
    /// Close one.
    Close {
        /// Its number.
        incident: IncidentId,
        /// When users stopped suffering, RFC 3339; now if absent.
        #[arg(long)]
        restored_at: Option<Timestamp>,
    },
}

const COLUMNS: &[Column] = &[
    Column("INCIDENT", |r| cell(&r["id"])),
    Column("TARGET", |r| format!("{}/{}", cell(&r["environment"]), cell(&r["service"]))),
    Column("STATE", |r| if r["restored_at"].is_null() { "open".into() } else { "restored".into() }),
    Column("DEPLOY", |r| cell(&r["deployment"])),
    Column("LINK", |r| cell(&r["link"])),
    Column("IMPACT", |r| cell(&r["impact_at"])),
    Column("TOOK", |r| took(&r["impact_at"], &r["restored_at"])),
    Column("TITLE", |r| cell(&r["title"])),
];

impl Incidents {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        match self {
            Self::List { env, service, open } => {
                let mut query = String::new();
                for (key, value) in [
                    ("env", env.map(String::from)),
                    ("service", service.map(String::from)),
                    ("open", open.then(|| "true".to_owned())),
                ] {
                    if let Some(value) = value {
                        query.push_str(&format!("&{key}={}", escape(&value)));
                    }
                }
                let incidents: Vec<IncidentView> = client
                    .get(&format!("/api/incidents?{}", query.trim_start_matches('&')))
                    .await?;
                context.print(&incidents, COLUMNS)?;
            }
            Self::Open { target, title, key, impact_at, deploy } => {
                let bad = || Failure::usage(format!("{target:?} isn't ENVIRONMENT/SERVICE"));
                let (env, service) = target.split_once('/').ok_or_else(bad)?;
                let body = OpenIncident {
                    environment: env.parse().map_err(|_| bad())?,
                    service: service.parse().map_err(|_| bad())?,
                    title,
                    key,
                    impact_at,
                    detected_at: None,
                    deployment: deploy,
                };
                let incident: IncidentView = client.post("/api/incidents", &body).await?;
                context.print(&incident, COLUMNS)?;
            }
            Self::Close { incident, restored_at } => {
                let path = format!("/api/incidents/{incident}/close");
                let incident: IncidentView =
                    client.post(&path, &CloseIncident { restored_at }).await?;
                context.print(&incident, COLUMNS)?;
            }
        }
        Ok(Exit::Ok)
    }
}
