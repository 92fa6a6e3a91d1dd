//! The DORA metrics of a window: the numbers from the store's sums, and the newest rows behind each
//! with the reason why it counts.

use std::time::Duration;

use axum::{
    Json,
    extract::{Query, State},
};
use pipeyard_api::{
    ErrorBody,
    deploys::{BucketView, DoraRow, DoraView, MetricView},
};
use pipeyard_dora::{By, Facts, Metric, Report, Scope, Window};
use pipeyard_model::{EnvironmentName, ServiceName, Timestamp};
use pipeyard_store::dora::Whose;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    AppState,
    error::{ApiResult, Failure},
};

/// Rows that are listed of one metric.
const ROWS: u32 = 1_000;
/// The window, if none is asked for.
const DEFAULT: Duration = Duration::from_secs(28 * 24 * 3600);
/// The longest window: ten years.
const LONGEST: Duration = Duration::from_secs(3_660 * 24 * 3600);

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(metrics))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct DoraQuery {
    /// Only this environment; every production environment if absent.
    env: Option<EnvironmentName>,
    /// Only this service.
    service: Option<ServiceName>,
    /// Start: `28d`, `4w`, `36h` before the end, or a time. 28 days if absent.
    since: Option<String>,
    /// End: a time; now if absent.
    until: Option<Timestamp>,
    /// `day`, `week` or `month`.
    by: Option<String>,
}

/// The five metrics and the time to restore.
#[utoipa::path(get, path = "/api/dora", tag = "dora", params(DoraQuery),
    responses((status = 200, body = DoraView), (status = 400, body = ErrorBody)))]
async fn metrics(
    State(state): State<AppState>,
    Query(query): Query<DoraQuery>,
) -> ApiResult<Json<DoraView>> {
    let now = state.clock.now();
    // What happens in this very moment belongs to the window.
    let until = query.until.unwrap_or(now + Duration::from_secs(1));
    let since = since(query.since.as_deref(), until)?;
    let by = by(query.by.as_deref(), until.since(since))?;
    let window = Window::utc(since, until, by)
        .map_err(|e| Failure::bad_request("bad_window", e.to_string()))?;
    let (before, _) = window.previous();
    let whose = Whose { environment: query.env.clone(), service: query.service.clone() };
    let sums = state.store.dora_sums(&whose, before, &window.edges()).await?;
    let read = state.store.dora_facts(&whose, since, until, ROWS).await?;
    let facts =
        Facts { deployments: &read.deployments, incidents: &read.incidents, links: &read.links };
    let scope =
        Scope { environment: query.env.clone(), service: query.service.clone(), team: None };
    let report = Report::of_sums(&sums, &facts, &window, &scope, now);
    Ok(Json(DoraView {
        kind: "dora".into(),
        environment: query.env,
        service: query.service,
        since,
        until,
        by: match by {
            By::Day => "day",
            By::Week => "week",
            By::Month => "month",
        }
        .into(),
        metrics: report.metrics.into_iter().map(metric).collect(),
        notes: report.notes,
    }))
}

fn metric(metric: Metric) -> MetricView {
    MetricView {
        name: metric.name.as_str().into(),
        title: metric.name.title().into(),
        value: metric.value,
        unit: metric.unit.as_str().into(),
        n: metric.n,
        numerator: metric.numerator,
        previous: metric.previous,
        previous_n: metric.previous_n,
        percentiles: metric.percentiles,
        buckets: metric
            .buckets
            .into_iter()
            .map(|b| BucketView {
                start: b.start,
                value: b.value,
                n: b.n,
                provisional: b.provisional,
            })
            .collect(),
        rows: metric
            .rows
            .into_iter()
            .take(ROWS as usize)
            .map(|row| DoraRow {
                deployment: row.deployment,
                incident: row.incident,
                commit: row.commit,
                at: row.at,
                value: row.value,
                counts: row.standing.as_str().into(),
                reason: row.reason,
            })
            .collect(),
        rows_total: metric.rows_total,
    }
}

/// `28d` before the end, or a time.
fn since(text: Option<&str>, until: Timestamp) -> ApiResult<Timestamp> {
    let Some(text) = text else { return Ok(until - DEFAULT) };
    let bad = || {
        let message = format!(
            "since is {text:?}; write `28d`, `4w`, `36h` or a time like 2026-03-01T00:00:00Z"
        );
        Failure::bad_request("bad_window", message)
    };
    if let Ok(time) = text.parse::<Timestamp>() {
        return if until.since(time) > LONGEST { Err(bad()) } else { Ok(time) };
    }
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let number: u64 = number.parse().map_err(|_| bad())?;
    let seconds = match unit {
        "h" => 3_600,
        "d" => 24 * 3_600,
        "w" => 7 * 24 * 3_600,
        _ => return Err(bad()),
    };
    let length = number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(bad)?;
    if length.is_zero() || length > LONGEST { Err(bad()) } else { Ok(until - length) }
}

fn by(text: Option<&str>, length: Duration) -> ApiResult<By> {
    match text {
        None if length <= Duration::from_secs(62 * 24 * 3_600) => Ok(By::Day),
        None => Ok(By::Week),
        Some("day") => Ok(By::Day),
        Some("week") => Ok(By::Week),
        Some("month") => Ok(By::Month),
        Some(other) => Err(Failure::bad_request(
            "bad_window",
            format!("by is {other:?}; it can be day, week or month"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_length_or_a_time() {
        let until = Timestamp::from_seconds(10 * 24 * 3_600);
        let day = |n: i64| Timestamp::from_seconds(n * 24 * 3_600);
        assert_eq!(since(Some("7d"), until).unwrap(), day(3));
        assert_eq!(since(Some("1w"), until).unwrap(), day(3));
        assert_eq!(since(Some("1970-01-02T00:00:00Z"), until).unwrap(), day(1));
        for bad in ["", "d", "7", "-1d", "7y", "0d", "99999999999999999999d", "4000w", "날"] {
            assert!(since(Some(bad), until).is_err(), "{bad:?}");
        }
    }
}
