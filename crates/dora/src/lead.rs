//! The lead time of one commit.

use std::time::Duration;

use pipeyard_model::Timestamp;

use crate::CommitFact;

/// Clocks may disagree by this much: a commit that is later than its deployment by no more has a lead
/// time of zero.
pub const MAX_SKEW: Duration = Duration::from_secs(5 * 60);

/// What a commit's lead time starts at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeadStart {
    /// Its author date.
    Authored,
    /// When it was first seen in a push: it has a later author date, so one of the clocks is wrong.
    FirstSeen,
    /// Its committer date, for a cherry-pick.
    Committed,
}

/// Why a commit has no lead time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoLead {
    /// It only joins others, and would add samples of nearly nothing.
    Merge,
    /// Its dates are later than its deployment by more than [`MAX_SKEW`].
    FromTheFuture,
}

/// Whole seconds from the commit's start to `end`, the end of the deployment that brought it.
///
/// # Errors
/// When the commit doesn't count, and why.
pub fn lead_time(commit: &CommitFact, end: Timestamp) -> Result<(u64, LeadStart), NoLead> {
    if commit.is_merge {
        return Err(NoLead::Merge);
    }
    let dated = if commit.is_cherry_pick {
        (commit.committed_at, LeadStart::Committed)
    } else {
        (commit.authored_at, LeadStart::Authored)
    };
    let (start, source) = match commit.first_seen {
        Some(seen) if seen < dated.0 => (seen, LeadStart::FirstSeen),
        Some(_) | None => dated,
    };
    if start > end + MAX_SKEW {
        return Err(NoLead::FromTheFuture);
    }
    Ok((end.since(start).as_secs(), source))
}
