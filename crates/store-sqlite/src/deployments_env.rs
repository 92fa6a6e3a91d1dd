//! Environments and services: what the file says becomes the rows, and the differences are told.

use pipeyard_api::deploys::{Applied, EnvironmentChange, EnvironmentsFile, ServiceSpec};
use pipeyard_model::{Actor, EnvironmentName, ServiceName, Timestamp};
use pipeyard_store::{
    StoreError, StoreResult,
    deployments::{Environment, Place},
};
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use crate::{
    SqliteStore,
    audit::{self, Detail},
    column,
    column::failed,
    deployments_policy,
};

pub(crate) async fn environments(c: &mut SqliteConnection) -> StoreResult<Vec<Environment>> {
    let rows = sqlx::query!(
        "SELECT name, production, provider, policy FROM environments
         WHERE retired_at IS NULL ORDER BY name"
    )
    .fetch_all(&mut *c)
    .await
    .map_err(failed)?;
    let mut environments = Vec::new();
    for row in rows {
        let services = sqlx::query!(
            "SELECT name, spec FROM services
             WHERE environment = ? AND retired_at IS NULL ORDER BY name",
            row.name
        )
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
        let services = services.into_iter().map(|service| {
            let name = column::parse("services", "name", &service.name, &service.name)?;
            Ok((name, column::json("services", "spec", &service.name, &service.spec)?))
        });
        environments.push(Environment {
            services: services.collect::<StoreResult<_>>()?,
            production: row.production != 0,
            policy: deployments_policy::read(&row.name, row.policy.as_deref())?,
            provider: column::json("environments", "provider", &row.name, &row.provider)?,
            name: column::parse("environments", "name", &row.name, &row.name)?,
        });
    }
    Ok(environments)
}

pub(crate) async fn place(
    c: &mut SqliteConnection,
    environment: &EnvironmentName,
    service: &ServiceName,
) -> StoreResult<Option<Place>> {
    let (environment, service) = (environment.as_str(), service.as_str());
    let row = sqlx::query!(
        "SELECT e.production, e.provider, s.spec FROM services AS s
         JOIN environments AS e ON e.name = s.environment
         WHERE s.environment = ? AND s.name = ?
           AND s.retired_at IS NULL AND e.retired_at IS NULL",
        environment,
        service
    )
    .fetch_optional(c)
    .await
    .map_err(failed)?;
    row.map(|row| {
        Ok(Place {
            production: row.production != 0,
            provider: column::json("environments", "provider", environment, &row.provider)?,
            spec: column::json("services", "spec", service, &row.spec)?,
        })
    })
    .transpose()
}

/// A dry run does everything and is then rolled back, so it can't tell anything else.
pub(crate) async fn apply(
    store: &SqliteStore,
    file: EnvironmentsFile,
    dry_run: bool,
    by: Actor,
    now: Timestamp,
) -> StoreResult<Applied> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let work = store
        .write(move |c| {
            Box::pin(async move {
                let changes = apply_all(c, file, now).await?;
                for change in &changes {
                    let action = format!("environment.{}", change.change);
                    // Each field as `path: old -> new`.
                    let detail = Detail::new(json!({ "fields": change.fields }));
                    audit::record_change(c, by, &action, &change.what, detail, now).await?;
                }
                // The caller may be gone.
                let _ = tell.send(changes);
                if dry_run { Err(StoreError::conflict(DRY, "")) } else { Ok(()) }
            })
        })
        .await;
    match work {
        Ok(()) | Err(StoreError::Conflict { code: DRY, .. }) => {
            let changes = told.await.map_err(|_| StoreError::Unknown("the writer ended".into()))?;
            Ok(Applied { dry_run, changes, notes: vec![] })
        }
        Err(error) => Err(error),
    }
}

const DRY: &str = "dry_run";

async fn apply_all(
    c: &mut SqliteConnection,
    file: EnvironmentsFile,
    now: Timestamp,
) -> StoreResult<Vec<EnvironmentChange>> {
    let mut changes = Vec::new();
    let mut told = |change: &str, what: String, fields: Vec<String>| {
        changes.push(EnvironmentChange { change: change.to_owned(), what, fields });
    };
    let known =
        sqlx::query!("SELECT name, production, provider, policy, retired_at FROM environments")
            .fetch_all(&mut *c)
            .await
            .map_err(failed)?;
    for (name, spec) in &file.environments {
        let text = name.as_str();
        let provider = column::to_json(&spec.provider)?;
        let policy = column::to_json(&spec.policy())?;
        let what = format!("environment {name}");
        let before = known.iter().find(|row| row.name == text);
        match before {
            None => told("added", what, vec![]),
            Some(row) => {
                let old = column::json("environments", "provider", text, &row.provider)?;
                let mut fields = Vec::new();
                let new = serde_json::to_value(&spec.provider).unwrap_or_default();
                differences("provider", &old, &new, &mut fields);
                let (was, is) = (Value::from(row.production != 0), Value::from(spec.production));
                differences("production", &was, &is, &mut fields);
                let rules = deployments_policy::read(text, row.policy.as_deref())?;
                fields.extend(rules.differences(&spec.policy()));
                if row.retired_at.is_some() {
                    told("restored", what, fields);
                } else if !fields.is_empty() {
                    told("changed", what, fields);
                }
            }
        }
        sqlx::query!(
            "INSERT INTO environments (name, production, provider, policy) VALUES (?, ?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET production = excluded.production,
                 provider = excluded.provider, policy = excluded.policy, retired_at = NULL",
            text,
            spec.production,
            provider,
            policy
        )
        .execute(&mut *c)
        .await
        .map_err(failed)?;
    }
    let services = sqlx::query!("SELECT environment, name, spec, retired_at FROM services")
        .fetch_all(&mut *c)
        .await
        .map_err(failed)?;
    for (environment, spec) in &file.environments {
        for (name, service) in &spec.services {
            let (environment, text) = (environment.as_str(), name.as_str());
            let what = format!("service {environment}/{name}");
            let before =
                services.iter().find(|row| row.environment == environment && row.name == text);
            if let Some(row) = before {
                let old: ServiceSpec = column::json("services", "spec", text, &row.spec)?;
                if old.container.is_some() != service.container.is_some() {
                    refuse_active(c, environment, text).await?;
                }
                let json = |spec: &ServiceSpec| serde_json::to_value(spec).unwrap_or_default();
                let mut fields = Vec::new();
                differences("", &json(&old), &json(service), &mut fields);
                if row.retired_at.is_some() {
                    told("restored", what, fields);
                } else if !fields.is_empty() {
                    told("changed", what, fields);
                }
            } else {
                told("added", what, vec![]);
            }
            let json = column::to_json(service)?;
            sqlx::query!(
                "INSERT INTO services (environment, name, spec) VALUES (?, ?, ?)
                 ON CONFLICT (environment, name) DO UPDATE SET spec = excluded.spec,
                     retired_at = NULL",
                environment,
                text,
                json
            )
            .execute(&mut *c)
            .await
            .map_err(failed)?;
        }
    }
    for row in services.iter().filter(|row| row.retired_at.is_none()) {
        let stays = file
            .environments
            .get(row.environment.as_str())
            .is_some_and(|spec| spec.services.contains_key(row.name.as_str()));
        if !stays {
            refuse_active(c, &row.environment, &row.name).await?;
            told("retired", format!("service {}/{}", row.environment, row.name), vec![]);
            sqlx::query!(
                "UPDATE services SET retired_at = ? WHERE environment = ? AND name = ?",
                now.0,
                row.environment,
                row.name
            )
            .execute(&mut *c)
            .await
            .map_err(failed)?;
        }
    }
    for row in known.iter().filter(|row| row.retired_at.is_none()) {
        if !file.environments.contains_key(row.name.as_str()) {
            told("retired", format!("environment {}", row.name), vec![]);
            sqlx::query!("UPDATE environments SET retired_at = ? WHERE name = ?", now.0, row.name)
                .execute(&mut *c)
                .await
                .map_err(failed)?;
        }
    }
    Ok(changes)
}

async fn refuse_active(
    c: &mut SqliteConnection,
    environment: &str,
    service: &str,
) -> StoreResult<()> {
    let open = sqlx::query_scalar!(
        "SELECT id FROM deployments WHERE environment = ? AND service = ? AND finished = 0 LIMIT 1",
        environment,
        service
    )
    .fetch_optional(c)
    .await
    .map_err(failed)?;
    match open {
        None => Ok(()),
        Some(id) => Err(StoreError::conflict(
            "deployment_active",
            format!(
                "{environment}/{service} can't be retired or change its kind: deployment {id} isn't over; abort it first"
            ),
        )),
    }
}

/// Appends `path: old -> new` for every leaf that differs.
fn differences(path: &str, old: &Value, new: &Value, out: &mut Vec<String>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let side = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or(Value::Null)
                };
                differences(&join(key), &side(a), &side(b), out);
            }
        }
        (a, b) if a == b => {}
        (a, b) => out.push(format!("{path}: {} -> {}", shown(a), shown(b))),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "(none)".into(),
        Value::String(text) => text.clone(),
        other => other.to_string().chars().take(200).collect(),
    }
}
