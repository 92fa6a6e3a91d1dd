//! Runners: what one may take, as what it may register, and which process speaks for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{RepoId, Timestamp};

/// A runner's process that was silent for longer speaks for it no more: another one may. As long as
/// a lease, so that nothing of the silent one is in work by then.
pub const SILENT: Duration = Duration::from_secs(30);

/// What an administrator gives to a runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Labels that it may have.
    pub labels: Vec<String>,
    /// It may name labels beside these.
    pub any_label: bool,
    /// Whose jobs it takes; of every repository if absent.
    pub repos: Option<Vec<RepoId>>,
    /// It takes jobs of commits from forks, once a person has approved them.
    pub forks: bool,
}

impl Grant {
    /// Everything: for the runner that an administrator of the server's machine starts beside it.
    #[must_use]
    pub const fn everything() -> Self {
        Self { labels: Vec::new(), any_label: true, repos: None, forks: true }
    }

    /// The labels that a runner gets which names these: its own, or all of the grant's if it names
    /// none.
    ///
    /// # Errors
    /// The labels that it may not have.
    pub fn labels_of(&self, named: Vec<String>) -> Result<Vec<String>, Vec<String>> {
        if named.is_empty() {
            return Ok(self.labels.clone());
        }
        let foreign: Vec<_> =
            named.iter().filter(|label| !self.labels.contains(label)).cloned().collect();
        if self.any_label || foreign.is_empty() { Ok(named) } else { Err(foreign) }
    }
}

/// Whether a runner of this reach takes jobs of this repository, or of a fork of it.
#[must_use]
pub fn reaches(repos: Option<&[RepoId]>, forks: bool, repo: RepoId, fork: bool) -> bool {
    repos.is_none_or(|repos| repos.contains(&repo)) && (forks || !fork)
}

/// Which process speaks for a runner, if any does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The nonce that it made up at its start.
    pub process: String,
    /// When it last spoke.
    pub seen_at: Timestamp,
}

/// What becomes of a process that says it is the runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is the one that speaks for it.
    Holds,
    /// It is from now on.
    Takes,
    /// Another one is alive, or was until a moment ago.
    Refused,
}

/// Whether `process` may speak for the runner. `previous` is the process before it, if it is proven
/// to be dead: the same folder of the same machine, whose lock it holds.
#[must_use]
pub fn admit(
    holder: Option<&Holder>,
    process: &str,
    previous: Option<&str>,
    now: Timestamp,
) -> Admission {
    match holder {
        Some(holder) if holder.process == process => Admission::Holds,
        Some(holder)
            if previous != Some(holder.process.as_str()) && now.since(holder.seen_at) < SILENT =>
        {
            Admission::Refused
        }
        Some(_) | None => Admission::Takes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_runner_gets_no_label_that_it_was_not_given() {
        let grant = Grant {
            labels: labels(&["linux", "gpu"]),
            any_label: false,
            repos: None,
            forks: false,
        };
        assert_eq!(grant.labels_of(vec![]), Ok(labels(&["linux", "gpu"])));
        assert_eq!(grant.labels_of(labels(&["gpu"])), Ok(labels(&["gpu"])));
        assert_eq!(grant.labels_of(labels(&["gpu", "prod"])), Err(labels(&["prod"])));
        // Near is not the same.
        assert!(grant.labels_of(labels(&["GPU"])).is_err());
        assert!(grant.labels_of(labels(&[" gpu"])).is_err());
        assert_eq!(Grant::everything().labels_of(labels(&["x"])), Ok(labels(&["x"])));
    }

    #[test]
    fn a_runner_takes_what_it_was_given_and_nothing_else() {
        let (shop, blog) = (RepoId::new(), RepoId::new());
        assert!(reaches(None, false, shop, false));
        assert!(!reaches(None, false, shop, true));
        assert!(reaches(None, true, shop, true));
        assert!(reaches(Some(&[shop]), false, shop, false));
        assert!(!reaches(Some(&[shop]), true, blog, false));
        assert!(!reaches(Some(&[]), true, shop, false));
    }

    #[test]
    fn one_process_speaks_for_a_runner() {
        let now = Timestamp::from_seconds(1_000);
        let holder = Holder { process: "a".into(), seen_at: now };
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(admit(None, "b", None, now), Admission::Takes);
        assert_eq!(admit(Some(&holder), "a", None, at(500)), Admission::Holds);
        assert_eq!(admit(Some(&holder), "b", None, at(29)), Admission::Refused);
        assert_eq!(admit(Some(&holder), "b", Some("x"), at(29)), Admission::Refused);
        assert_eq!(admit(Some(&holder), "b", None, at(30)), Admission::Takes);
        assert_eq!(admit(Some(&holder), "b", Some("a"), at(1)), Admission::Takes);
        // One that says nothing of itself is one as well.
        assert_eq!(admit(Some(&holder), "", None, at(1)), Admission::Refused);
    }
}
