//! What comes in: bodies of bounded size, signatures, payloads of forges, and the way from a commit
//! to its runs. Payloads are parsed by pure functions; nothing here decides twice about a delivery.

pub mod body;
pub mod github;
pub mod plan;
pub mod prove;
pub mod pushed;
pub mod signature;

use pipeyard_git::{BadRef, Sha, branch_of, check_ref};
use pipeyard_store::intake::Disposition;

/// A payload that was signed well and doesn't say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPayload(pub String);

/// A delivery as its body tells it.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The forge's id of the repository that it is about, if it is about one.
    pub repository: Option<i64>,
    /// What should come of it.
    pub disposition: Disposition,
}

/// What a ref that moved asks for.
enum Moved {
    /// A branch has this commit now.
    Branch { before: Option<String>, after: String },
    /// Nothing, because of this.
    Nothing(String),
}

/// Reads one ref that moved. Names are hostile text: a bad one is ignored, a bad SHA refused.
fn moved(reference: &str, before: &str, after: &str) -> Result<Moved, BadPayload> {
    if let Err(BadRef { why }) = check_ref(reference) {
        return Ok(Moved::Nothing(format!("the ref's name {why}")));
    }
    if branch_of(reference).is_none() {
        return Ok(Moved::Nothing("only pushes to branches start runs".into()));
    }
    let Some(after) = sha_or_none(after)? else {
        return Ok(Moved::Nothing("the branch was deleted".into()));
    };
    Ok(Moved::Branch { before: sha_or_none(before)?.map(Into::into), after: after.into() })
}

/// A SHA, or `None` for all zeros.
fn sha_or_none(text: &str) -> Result<Option<Sha>, BadPayload> {
    if text.len() == 40 && text.bytes().all(|b| b == b'0') {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|e: pipeyard_git::BadSha| BadPayload(e.to_string()))
}
