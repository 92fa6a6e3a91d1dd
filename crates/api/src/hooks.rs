//! What comes in through webhooks, and the answer.
//!
//! | call | body |
//! |---|---|
//! | `POST /hooks/github/{hook id}` | GitHub's own; signed in `X-Hub-Signature-256` |
//! | `POST /hooks/git/{hook id}` | [`PushedRefs`]; signed in [`SIGNATURE`] |
//!
//! The signature is `sha256=` and the HMAC-SHA256 of the raw body by the hook's secret, in hex. It
//! is checked before anything is read from the body. The answer is 202 with [`HookAnswer`] once
//! everything is stored; a repeated delivery changes nothing and gets the same answer.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The header of the signature that `pipectl hook` sends.
pub const SIGNATURE: &str = "x-pipeyard-signature-256";
/// The most refs of one call.
pub const MAX_UPDATES: usize = 10_000;

/// What a plain Git repository's `post-receive` hook saw: one push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PushedRefs {
    /// Made for this push by whoever sends it, and the same when the call is repeated. Made by the
    /// server if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Uuid>,
    /// The refs that moved, as `post-receive` lists them; at most [`MAX_UPDATES`].
    pub updates: Vec<RefUpdate>,
}

/// One ref that moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefUpdate {
    /// Full name, `refs/heads/main`.
    #[serde(rename = "ref")]
    pub reference: String,
    /// SHA before; all zeros if it is new.
    pub old: String,
    /// SHA after; all zeros if it was removed.
    pub new: String,
}

/// What came of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookAnswer {
    /// `requested`: runs may come of it; `ignored`: none will.
    pub disposition: String,
    /// Why it is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// It was known already; nothing changed.
    pub duplicate: bool,
}
