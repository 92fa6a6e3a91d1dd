//! Which attempt may have which secret.
//!
//! A secret belongs to one repository, or, said openly, to all of them; it may be limited to branches
//! and to events. A fork's run gets none. A limit to branches is met by the branch that the commit was
//! proven to be on, never by a name that a delivery brings.

use serde::{Deserialize, Serialize};

use crate::{
    BranchGlob, RepoId, SecretName,
    origin::{Event, Origin},
};

/// The most patterns of branches of one secret.
pub const MAX_PATTERNS: usize = 100;

/// What a secret is limited to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The branches.
    pub branches: BranchLimit,
    /// The events; every one if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}

/// Branches that a secret is limited to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BranchLimit {
    /// Every branch.
    Any,
    /// The default branch of whichever repository asks.
    Default,
    /// Those that match one of these.
    Matching(Vec<BranchGlob>),
}

impl Scope {
    /// No limit within its repository.
    pub const OPEN: Self = Self { branches: BranchLimit::Any, events: Vec::new() };

    /// For people: `every branch`, `main, release/*; push`.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = self.branches.words();
        if !self.events.is_empty() {
            words.push_str("; ");
            words.push_str(&self.events_words());
        }
        words
    }

    fn events_words(&self) -> String {
        self.events.iter().map(|event| event.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl BranchLimit {
    fn words(&self) -> String {
        match self {
            Self::Any => "every branch".into(),
            Self::Default => "the default branch".into(),
            Self::Matching(globs) => {
                globs.iter().map(BranchGlob::as_str).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// The run of an attempt that asks.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// Its repository.
    pub repo: RepoId,
    /// That repository's default branch.
    pub default_branch: &'a str,
    /// What started it.
    pub event: Event,
    /// What is proven of its commit.
    pub origin: &'a Origin,
}

/// Why an attempt may not have a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is none of this name for the repository.
    Missing,
    /// The run is a fork's, approved or not.
    Fork,
    /// It is limited to other branches.
    Branch {
        /// What it is limited to.
        limit: String,
        /// Where the commit is.
        branch: String,
    },
    /// It is limited to other events.
    Event {
        /// What it is limited to.
        limit: String,
        /// What started the run.
        event: Event,
    },
}

impl Refusal {
    /// The stable code of the job's reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "secret_missing",
            Self::Fork => "secret_refused_to_fork",
            Self::Branch { .. } => "secret_not_for_branch",
            Self::Event { .. } => "secret_not_for_event",
        }
    }

    /// What, why and the fix.
    #[must_use]
    pub fn words(&self, name: &SecretName) -> String {
        match self {
            Self::Missing => format!(
                "secret {name} isn't set for this repository. Fix: pipectl secrets set {name} --repo REPO"
            ),
            Self::Fork => format!(
                "a run that is a fork's, or is treated as one, gets no secrets, and this job asks for {name}"
            ),
            Self::Branch { limit, branch } => format!(
                "secret {name} is limited to {limit}, and this run's commit is of the branch {branch:?}. \
                 Fix: leave the secret out of jobs that run elsewhere, or set it with --branch"
            ),
            Self::Event { limit, event } => format!(
                "secret {name} is limited to the events {limit}, and this run was started by {event}. \
                 Fix: leave the secret out of such jobs, or set it with --event"
            ),
        }
    }
}

/// The rule: whether this attempt may have the secret of this holder (`None` for all repositories).
///
/// # Errors
/// With the first limit that isn't met.
pub fn may_have(holder: Option<RepoId>, scope: &Scope, asking: &Asking<'_>) -> Result<(), Refusal> {
    if holder.is_some_and(|repo| repo != asking.repo) {
        // Told as a missing one is: who asks learns nothing of other repositories.
        return Err(Refusal::Missing);
    }
    let Origin::Branch(branch) = asking.origin else { return Err(Refusal::Fork) };
    let inside = match &scope.branches {
        BranchLimit::Any => true,
        BranchLimit::Default => branch == asking.default_branch,
        BranchLimit::Matching(globs) => globs.iter().any(|glob| glob.matches(branch)),
    };
    if !inside {
        let limit = scope.branches.words();
        return Err(Refusal::Branch { limit, branch: branch.clone() });
    }
    if !scope.events.is_empty() && !scope.events.contains(&asking.event) {
        return Err(Refusal::Event { limit: scope.events_words(), event: asking.event });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Stranger;

    fn scope(branches: &str, events: &[Event]) -> Scope {
        let branches = match branches {
            "any" => BranchLimit::Any,
            "default" => BranchLimit::Default,
            globs => BranchLimit::Matching(
                globs.split(' ').map(|glob| BranchGlob::new(glob).unwrap()).collect(),
            ),
        };
        Scope { branches, events: events.to_vec() }
    }

    #[test]
    fn every_limit_is_met_by_what_is_proven_or_the_secret_stays() {
        use Event as E;
        let (shop, other) = (RepoId::new(), RepoId::new());
        let on = |branch: &str| Origin::Branch(branch.to_owned());
        let fork = Origin::Fork(Stranger::PullRequest);
        for (holder, scope, event, origin, code) in [
            (Some(shop), scope("any", &[]), E::Push, on("topic"), "given"),
            (None, scope("any", &[]), E::PullRequest, on("topic"), "given"),
            (Some(other), scope("any", &[]), E::Push, on("main"), "secret_missing"),
            (Some(shop), scope("any", &[]), E::Push, fork.clone(), "secret_refused_to_fork"),
            (None, scope("any", &[]), E::Manual, fork, "secret_refused_to_fork"),
            (
                Some(shop),
                scope("any", &[]),
                E::Manual,
                Origin::Fork(Stranger::OnNoBranch),
                "secret_refused_to_fork",
            ),
            (None, scope("default", &[]), E::Push, on("main"), "given"),
            (None, scope("default", &[]), E::Push, on("topic"), "secret_not_for_branch"),
            // A pull request of the same repository: its commit is of its own branch.
            (None, scope("default", &[]), E::PullRequest, on("fix"), "secret_not_for_branch"),
            (Some(shop), scope("main release/*", &[]), E::Push, on("release/1"), "given"),
            (
                Some(shop),
                scope("main release/*", &[]),
                E::Push,
                on("release/1/x"),
                "secret_not_for_branch",
            ),
            (Some(shop), scope("any", &[E::Push]), E::Push, on("main"), "given"),
            (
                Some(shop),
                scope("any", &[E::Push]),
                E::PullRequest,
                on("main"),
                "secret_not_for_event",
            ),
            (Some(shop), scope("main", &[E::Push]), E::Manual, on("main"), "secret_not_for_event"),
        ] {
            let asking = Asking { repo: shop, default_branch: "main", event, origin: &origin };
            let got = may_have(holder, &scope, &asking);
            let got = got.as_ref().map_or_else(Refusal::code, |()| "given");
            assert_eq!(got, code, "{holder:?} {scope:?} {event} {origin:?}");
        }
    }

    #[test]
    fn a_scope_is_kept_as_text_and_told_in_words() {
        let scope = scope("main release/*", &[Event::Push, Event::Manual]);
        let text = serde_json::to_string(&scope).unwrap();
        assert_eq!(
            text,
            r#"{"branches":{"matching":["main","release/*"]},"events":["push","manual"]}"#
        );
        assert_eq!(serde_json::from_str::<Scope>(&text).unwrap(), scope);
        assert_eq!(scope.words(), "main, release/*; push, manual");
        assert_eq!(serde_json::to_string(&Scope::OPEN).unwrap(), r#"{"branches":"any"}"#);
        assert_eq!(Scope::OPEN.words(), "every branch");
    }
}
