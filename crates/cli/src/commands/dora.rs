//! `dora`: the metrics, and with `--rows` the evidence.

use pipeyard_api::{client::escape, deploys::DoraView};
use pipeyard_model::{EnvironmentName, ServiceName};
use serde_json::{Value, json};

use super::short;
use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
    output::{Column, cell},
    term,
};

/// DORA metrics, with the rows behind every number.
#[derive(Debug, clap::Args)]
pub struct Dora {
    /// Only this metric, change_fail_rate.
    metric: Option<String>,
    /// Only this environment; every production environment if absent.
    #[arg(long)]
    env: Option<EnvironmentName>,
    /// Only this service.
    #[arg(long)]
    service: Option<ServiceName>,
    /// Start of the window: 7d, 4w or a time.
    #[arg(long, default_value = "30d")]
    since: String,
    /// Buckets: day, week or month.
    #[arg(long, default_value = "day")]
    by: String,
    /// List the rows and why each counts or doesn't.
    #[arg(long)]
    rows: bool,
}

fn value(row: &Value, field: &str) -> String {
    let Some(number) = row[field].as_f64() else { return "-".into() };
    match row["unit"].as_str() {
        Some("ratio") => format!("{:.1} %", number * 100.0),
        Some("seconds") => short(std::time::Duration::from_secs_f64(number.max(0.0))),
        _ => format!("{number:.2} a day"),
    }
}

impl Dora {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let client = context.client()?;
        let mut query = format!("since={}&by={}", escape(&self.since), escape(&self.by));
        for (key, value) in
            [("env", self.env.map(String::from)), ("service", self.service.map(String::from))]
        {
            if let Some(value) = value {
                query.push_str(&format!("&{key}={}", escape(&value)));
            }
        }
        let mut view: DoraView = client.get(&format!("/api/dora?{query}")).await?;
        if let Some(metric) = &self.metric {
            let names = view.metrics.iter().map(|m| m.name.clone()).collect::<Vec<_>>().join(", ");
            view.metrics.retain(|m| m.name == *metric);
            if view.metrics.is_empty() {
                return Err(Failure::not_found(format!("there is no metric {metric:?}"))
                    .hint(format!("the metrics: {names}")));
            }
        }
        if !context.for_people() {
            context.print(&view, &[])?;
            return Ok(Exit::Ok);
        }
        if self.rows {
            let rows: Vec<Value> = view
                .metrics
                .iter()
                .flat_map(|metric| {
                    metric.rows.iter().map(|row| {
                        let mut row = serde_json::to_value(row).unwrap_or_default();
                        row["metric"] = json!(metric.name);
                        row
                    })
                })
                .collect();
            context.print(
                &rows,
                &[
                    Column("METRIC", |r| cell(&r["metric"])),
                    Column("AT", |r| cell(&r["at"])),
                    Column("DEPLOY", |r| cell(&r["deployment"])),
                    Column("INCIDENT", |r| cell(&r["incident"])),
                    Column("COMMIT", |r| super::sha(&r["commit"])),
                    Column("COUNTS", |r| cell(&r["counts"])),
                    Column("WHY", |r| cell(&r["reason"])),
                ],
            )?;
        } else {
            context.print(
                &view.metrics,
                &[
                    Column("METRIC", |r| cell(&r["title"])),
                    Column("VALUE", |r| value(r, "value")),
                    Column("N", |r| cell(&r["n"])),
                    Column("BEFORE", |r| value(r, "previous")),
                ],
            )?;
        }
        for note in &view.notes {
            term::say(&format!("note: {note}"));
        }
        Ok(Exit::Ok)
    }
}
