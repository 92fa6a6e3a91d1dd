//! What asks for a run, and what is proven of the commit that it is of.
//!
//! A delivery, a person or a pull request names a commit and says whose it is; a commit is a branch's
//! only if it can be reached from that branch. Whatever can't be proven so is treated as a fork's: a
//! stranger may have put it there, because forges keep pull requests in the repository itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Conclusion, job::Reason};

/// What started a run.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A push to a branch.
    Push,
    /// A pull request was opened or got commits.
    PullRequest,
    /// A person, by UI or CLI.
    Manual,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Push, Self::PullRequest, Self::Manual];

    /// `push`, `pull_request`, `manual`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::PullRequest => "pull_request",
            Self::Manual => "manual",
        }
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no event: it can be push, pull_request or manual")]
pub struct BadEvent(String);

impl std::str::FromStr for Event {
    type Err = BadEvent;
    fn from_str(text: &str) -> Result<Self, BadEvent> {
        Self::ALL
            .into_iter()
            .find(|event| event.as_str() == text)
            .ok_or_else(|| BadEvent(text.chars().take(40).collect()))
    }
}

/// Where a run's commit comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It can be reached from this branch of the repository: somebody who may push put it there.
    Branch(String),
    /// It can't, so far as anybody could prove; or the forge says that it is a fork's.
    Fork(Stranger),
}

/// Why a commit is a stranger's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// A pull request from another repository, or from one that is gone.
    PullRequest,
    /// The branch that it was said to be of doesn't have it.
    NotOnItsBranch,
    /// No branch has it.
    OnNoBranch,
}

impl Stranger {
    /// The word that is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PullRequest => "pull_request",
            Self::NotOnItsBranch => "not_on_its_branch",
            Self::OnNoBranch => "on_no_branch",
        }
    }

    /// What it is, as the beginning of a sentence about the run.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::PullRequest => "comes from a fork",
            Self::NotOnItsBranch => {
                "its branch doesn't have this commit, so it is treated as a fork's"
            }
            Self::OnNoBranch => {
                "no branch of the repository has this commit, so it is treated as a fork's"
            }
        }
    }
}

impl std::str::FromStr for Stranger {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::PullRequest, Self::NotOnItsBranch, Self::OnNoBranch]
            .into_iter()
            .find(|why| why.as_str() == text)
            .ok_or_else(|| format!("unknown word {text:?}"))
    }
}

/// What is said of a commit, before anything is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim<'a> {
    /// It is this branch's: a push to it, or a person who named it.
    Branch(&'a str),
    /// Nothing: a person named the commit itself.
    Commit,
    /// A pull request from this branch of the repository itself.
    OwnPullRequest(&'a str),
    /// A pull request from another repository.
    Fork,
}

impl Origin {
    /// The rule. `holders` are the branches of the repository from which the commit can be reached
    /// (with [`Claim::Branch`] it is enough to look at that one).
    #[must_use]
    pub fn of(claim: Claim<'_>, holders: &[String], default_branch: &str) -> Self {
        let holds = |branch: &str| holders.iter().any(|holder| holder == branch);
        // The default branch before all others; among those, the first by name.
        let any = || {
            if holds(default_branch) {
                return Some(default_branch.to_owned());
            }
            holders.iter().min().cloned()
        };
        match claim {
            Claim::Fork => Self::Fork(Stranger::PullRequest),
            Claim::Branch(branch) | Claim::OwnPullRequest(branch) if holds(branch) => {
                Self::Branch(branch.to_owned())
            }
            Claim::Branch(_) => Self::Fork(Stranger::NotOnItsBranch),
            // A pull request may be merged, and its branch removed, before anybody looks.
            Claim::OwnPullRequest(_) => {
                any().map_or(Self::Fork(Stranger::NotOnItsBranch), Self::Branch)
            }
            Claim::Commit => any().map_or(Self::Fork(Stranger::OnNoBranch), Self::Branch),
        }
    }

    /// The branch that it was proven to be on.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        match self {
            Self::Branch(branch) => Some(branch),
            Self::Fork(_) => None,
        }
    }

    /// Whether a stranger may have written it: such a run is held, gets no secrets and deploys
    /// nothing.
    #[must_use]
    pub const fn is_fork(&self) -> bool {
        matches!(self, Self::Fork(_))
    }
}

/// Where a branch was last seen before a push to it was told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<'a> {
    /// Nobody wrote it down: an earlier version took the push in.
    Unknown,
    /// It was new.
    Nowhere,
    /// At this commit.
    At(&'a str),
}

/// Whether a push's commit was the tip of its branch when the push was taken in. `tip` is where the
/// branch is now, a moment later; pushes that came in between overtake nothing.
///
/// An old push that is told of again, by whomever, doesn't begin where the branch stood, or the branch
/// still stands where it was seen before.
#[must_use]
pub fn was_tip(before: Option<&str>, after: &str, seen: Seen<'_>, tip: Option<&str>) -> bool {
    if tip == Some(after) {
        return true;
    }
    match seen {
        Seen::Unknown => true,
        Seen::Nowhere => before.is_none(),
        Seen::At(seen) => before == Some(seen) && tip != Some(seen),
    }
}

/// Whether a run's commit may be deployed at all, wherever to. A person's rerun lifts `overtaken`.
///
/// # Errors
/// With how the deploy ends, and why.
pub fn may_deploy(origin: &Origin, overtaken: bool) -> Result<(), (Conclusion, Reason)> {
    if let Origin::Fork(why) = origin {
        let text = format!("this run deploys nothing: {}", why.words());
        return Err((Conclusion::Error, Reason::new("deploy_refused_to_fork", text)));
    }
    if overtaken {
        let text = "its branch was elsewhere already when this push was told of, so it deploys nothing. \
                    Fix: if it is what should be deployed, run it again: pipectl runs rerun RUN";
        return Err((Conclusion::Skipped, Reason::new("push_overtaken", text)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(claim: Claim<'_>, holders: &[&str]) -> Origin {
        let holders: Vec<_> = holders.iter().map(|&holder| holder.to_owned()).collect();
        Origin::of(claim, &holders, "main")
    }

    fn on(branch: &str) -> Origin {
        Origin::Branch(branch.to_owned())
    }

    #[test]
    fn a_commit_is_the_branchs_that_it_can_be_reached_from_and_nobody_elses() {
        use Claim as C;
        let not_on_it = Origin::Fork(Stranger::NotOnItsBranch);
        for (claim, holders, origin) in [
            (C::Branch("main"), &["main"][..], on("main")),
            (C::Branch("main"), &[], not_on_it.clone()),
            // The payload says main, the commit is a feature's.
            (C::Branch("main"), &["feature"], not_on_it.clone()),
            (C::Branch("feature"), &["main"], not_on_it.clone()),
            (C::Commit, &["feature", "main"], on("main")),
            (C::Commit, &["b", "a"], on("a")),
            (C::Commit, &[], Origin::Fork(Stranger::OnNoBranch)),
            (C::OwnPullRequest("fix"), &["fix", "main"], on("fix")),
            (C::OwnPullRequest("fix"), &["main"], on("main")),
            (C::OwnPullRequest("fix"), &[], not_on_it),
            // The forge's word that it is a fork's is enough.
            (C::Fork, &["main", "fix"], Origin::Fork(Stranger::PullRequest)),
        ] {
            assert_eq!(of(claim, holders), origin, "{claim:?} {holders:?}");
        }
    }

    #[test]
    fn three_quick_pushes_were_each_the_tip_and_an_old_one_told_again_was_not() {
        use Seen as S;
        // a -> b -> c -> d, all before anybody looked.
        assert!(was_tip(Some("a"), "b", S::At("a"), Some("d")));
        assert!(was_tip(Some("b"), "c", S::At("b"), Some("d")));
        assert!(was_tip(Some("c"), "d", S::At("c"), Some("d")));
        assert!(was_tip(None, "b", S::Nowhere, Some("c")), "a new branch");
        // The one that an earlier delivery was lost of is still the tip.
        assert!(was_tip(Some("b"), "c", S::At("a"), Some("c")));
        // Told again, or late, while the branch is elsewhere.
        assert!(!was_tip(Some("a"), "b", S::At("d"), Some("d")));
        assert!(!was_tip(Some("a"), "b", S::At("c"), Some("d")));
        assert!(!was_tip(None, "b", S::At("d"), Some("d")));
        // It begins where the branch stands, and the branch never moved.
        assert!(!was_tip(Some("a"), "b", S::At("a"), Some("a")));
        assert!(!was_tip(Some("a"), "b", S::Nowhere, None));
    }

    #[test]
    fn strangers_and_overtaken_pushes_deploy_nothing() {
        let code = |origin: &Origin, overtaken| {
            may_deploy(origin, overtaken).err().map(|(end, reason)| (end, reason.code))
        };
        assert_eq!(code(&on("main"), false), None);
        let skipped = Some((Conclusion::Skipped, "push_overtaken".to_owned()));
        assert_eq!(code(&on("main"), true), skipped);
        let refused = Some((Conclusion::Error, "deploy_refused_to_fork".to_owned()));
        assert_eq!(code(&Origin::Fork(Stranger::OnNoBranch), false), refused);
    }

    #[test]
    fn words_are_read_back() {
        for event in Event::ALL {
            assert_eq!(event.as_str().parse(), Ok(event));
            assert_eq!(
                serde_json::to_value(event).unwrap(),
                serde_json::Value::String(event.as_str().to_owned())
            );
        }
        assert!("schedule".parse::<Event>().is_err());
        for why in [Stranger::PullRequest, Stranger::NotOnItsBranch, Stranger::OnNoBranch] {
            assert_eq!(why.as_str().parse(), Ok(why));
        }
    }
}
