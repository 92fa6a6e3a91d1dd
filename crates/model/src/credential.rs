//! How long a credential lasts. Every one ends, and none outlives the one that it was made by.

use std::time::Duration;

use crate::Timestamp;

/// A token that nobody gave a length lasts so many days.
pub const DEFAULT_DAYS: u32 = 90;
/// No token lasts longer.
pub const MAX_DAYS: u32 = 365;

/// Why a token can't last as long as it is asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLifetime {
    /// More than a year, or no day at all.
    #[error("a token lasts 1 to {MAX_DAYS} days, not {0}")]
    Days(u32),
    /// It would be good for longer than the one that makes it.
    #[error("it would end at {asked}, after the session or token that makes it ({parent})")]
    OutlivesParent {
        /// When it would end.
        asked: Timestamp,
        /// When the one ends that makes it.
        parent: Timestamp,
    },
}

/// When a token ends that is asked to last so many days and is made by a credential that ends at
/// `parent`, if there is one. Without a wish it is cut to what is possible; a wish that can't be
/// met is refused.
///
/// # Errors
/// When it can't last as long as it is asked to.
pub fn token_end(
    days: Option<u32>,
    parent: Option<Timestamp>,
    now: Timestamp,
) -> Result<Timestamp, BadLifetime> {
    let after = |days: u32| now + Duration::from_secs(u64::from(days) * 24 * 3600);
    match (days, parent) {
        (Some(days), _) if days == 0 || days > MAX_DAYS => Err(BadLifetime::Days(days)),
        (Some(days), Some(parent)) if after(days) > parent => {
            Err(BadLifetime::OutlivesParent { asked: after(days), parent })
        }
        (Some(days), _) => Ok(after(days)),
        (None, Some(parent)) => Ok(after(DEFAULT_DAYS).min(parent)),
        (None, None) => Ok(after(DEFAULT_DAYS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_and_never_after_its_parent() {
        let now = Timestamp::from_seconds(1_000_000);
        let day = |n: u64| now + Duration::from_secs(n * 24 * 3600);
        assert_eq!(token_end(None, None, now), Ok(day(90)));
        assert_eq!(token_end(Some(365), None, now), Ok(day(365)));
        assert_eq!(token_end(None, Some(day(1)), now), Ok(day(1)));
        assert_eq!(token_end(None, Some(day(200)), now), Ok(day(90)));
        assert_eq!(token_end(Some(1), Some(day(1)), now), Ok(day(1)));
        let asked = BadLifetime::OutlivesParent { asked: day(2), parent: day(1) };
        assert_eq!(token_end(Some(2), Some(day(1)), now), Err(asked));
        for bad in [0, 366, 3650, u32::MAX] {
            assert_eq!(token_end(Some(bad), None, now), Err(BadLifetime::Days(bad)));
        }
    }
}
