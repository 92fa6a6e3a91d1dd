//! The audit log: who changed what, by which credential, from where; and whether it is whole.

use axum::{
    Json,
    extract::{Query, State},
};
use pipeyard_api::views::{AuditCheck, AuditView, Page};
use pipeyard_store::audit::AuditEntry;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::Auth;
use crate::{AppState, error::ApiResult};

/// The routes of this file.
pub fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(audit)).routes(routes!(verify))
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
struct AuditQuery {
    /// `next` of the page before.
    before: Option<i64>,
    /// 1 to 200, 50 if absent.
    limit: Option<u32>,
}

/// Changes, newest first.
#[utoipa::path(get, path = "/api/audit", tag = "accounts", params(AuditQuery),
    responses((status = 200, body = Page<AuditView>)))]
async fn audit(
    State(state): State<AppState>,
    _auth: Auth,
    Query(query): Query<AuditQuery>,
) -> ApiResult<Json<Page<AuditView>>> {
    let limit = query.limit.unwrap_or(50).clamp(1, 200);
    let rows = state.store.audit(query.before, limit).await?;
    let full = rows.len() == limit as usize;
    let next = rows.last().filter(|_| full).map(|row| row.seq.to_string());
    Ok(Json(Page { items: rows.into_iter().map(view).collect(), next }))
}

fn view(row: AuditEntry) -> AuditView {
    let json = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
    AuditView {
        seq: row.seq,
        at: row.at,
        who: row.who,
        actor: row.actor,
        credential: row.credential,
        address: row.address,
        action: row.action,
        target: row.target,
        before: json(row.before),
        after: json(row.after),
        hash: row.hash.map(hex::encode),
    }
}

/// Check that every row of the audit log is what was written, and that none is missing.
#[utoipa::path(get, path = "/api/audit/verify", tag = "accounts",
    responses((status = 200, body = AuditCheck)))]
async fn verify(State(state): State<AppState>, _auth: Auth) -> ApiResult<Json<AuditCheck>> {
    let checked = state.store.check_audit().await?;
    let (broken_at, problem) = checked.broken.map(|b| (b.seq, b.problem)).unzip();
    Ok(Json(AuditCheck {
        whole: broken_at.is_none(),
        rows: checked.rows,
        before: checked.before,
        head: checked.head.0,
        hash: hex::encode(checked.head.1),
        broken_at,
        problem,
    }))
}
