//! Which refs of which repositories an environment takes, by which events.

use std::{fmt, str::FromStr};

use globset::GlobBuilder;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use super::Author;
use crate::RepoName;

/// What started a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunEvent {
    /// A ref moved at the forge.
    Push,
    /// Somebody asks to change a branch.
    PullRequest,
    /// A person started it.
    Manual,
    /// The clock did.
    Schedule,
}

impl RunEvent {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::PullRequest => "pull_request",
            Self::Manual => "manual",
            Self::Schedule => "schedule",
        }
    }
}

/// Where a release comes from: what is known of the run that built it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The repository.
    pub repo: RepoName,
    /// Its default branch, for rules that name no ref.
    pub default_branch: String,
    /// What started the run.
    pub event: RunEvent,
    /// The full ref that it ran on, `refs/heads/main`, `refs/tags/v1`.
    pub reference: String,
    /// Its commits come from a fork, or their branch isn't proven.
    pub fork: bool,
    /// Whose change it is.
    pub author: Author,
}

impl Source {
    /// `branch main of shop (push)`.
    #[must_use]
    pub fn words(&self) -> String {
        let at = match ref_of(&self.reference) {
            Ref::Branch(name) => format!("branch {name}"),
            Ref::Tag(name) => format!("tag {name}"),
            Ref::Other(name) => name.to_owned(),
        };
        format!("{at} of {} ({})", self.repo, self.event.as_str())
    }
}

enum Ref<'r> {
    Branch(&'r str),
    Tag(&'r str),
    Other(&'r str),
}

/// Only the front of a full ref tells a branch from a tag: a branch may be named like a tag, or
/// `refs/heads/main`.
fn ref_of(reference: &str) -> Ref<'_> {
    if let Some(name) = reference.strip_prefix("refs/heads/") {
        Ref::Branch(name)
    } else if let Some(name) = reference.strip_prefix("refs/tags/") {
        Ref::Tag(name)
    } else {
        Ref::Other(reference)
    }
}

/// A text that can't be a rule's part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRule(pub String);

/// A pattern of branches or tags: `*` stops at a slash, `**` doesn't.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct RefPattern(String);

impl RefPattern {
    /// Checks a pattern.
    ///
    /// # Errors
    /// When no ref could match it, or it would mean something else than it seems to.
    pub fn new(text: impl Into<String>) -> Result<Self, BadRule> {
        let text = text.into();
        let bad = |why: &str| {
            let shown: String = text.chars().take(80).collect();
            Err(BadRule(format!("{shown:?} can't be a pattern of branches or tags: {why}")))
        };
        for front in ["refs/heads/", "refs/tags/"] {
            if let Some(name) = text.strip_prefix(front) {
                return bad(&format!("write the name only, {name:?}"));
            }
        }
        if text.is_empty() || text.len() > 200 {
            return bad("it has 1 to 200 characters");
        }
        if text.starts_with('!') {
            return bad("nothing can be left out by `!`; name what is taken");
        }
        if text.starts_with('/') || text.ends_with('/') || text.contains("//") {
            return bad("a name neither begins nor ends with a slash, nor has two in a row");
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || "~^:\\".contains(c)) {
            return bad("names of refs hold no blanks, `~`, `^`, `:` and `\\`");
        }
        if let Err(error) = glob(&text) {
            return bad(&error.kind().to_string());
        }
        Ok(Self(text))
    }

    /// The pattern that only this name matches.
    ///
    /// # Errors
    /// When no ref can have this name.
    pub fn exactly(name: &str) -> Result<Self, BadRule> {
        Self::new(globset::escape(name))
    }

    /// Whether the name, without `refs/heads/` or `refs/tags/`, is one of them.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        glob(&self.0).is_ok_and(|glob| glob.compile_matcher().is_match(name))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn glob(pattern: &str) -> Result<globset::Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).build()
}

impl fmt::Display for RefPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for RefPattern {
    type Err = BadRule;
    fn from_str(text: &str) -> Result<Self, BadRule> {
        Self::new(text)
    }
}

impl TryFrom<String> for RefPattern {
    type Error = BadRule;
    fn try_from(text: String) -> Result<Self, BadRule> {
        Self::new(text)
    }
}

impl From<RefPattern> for String {
    fn from(pattern: RefPattern) -> Self {
        pattern.0
    }
}

/// An event whose runs an environment may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TakenEvent {
    /// A push of the ref.
    Push,
    /// A run that a person started on the ref.
    Manual,
    /// A run that the clock started on the ref.
    Schedule,
}

impl TakenEvent {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Manual => "manual",
            Self::Schedule => "schedule",
        }
    }

    const fn is(self, event: RunEvent) -> bool {
        matches!(
            (self, event),
            (Self::Push, RunEvent::Push)
                | (Self::Manual, RunEvent::Manual)
                | (Self::Schedule, RunEvent::Schedule)
        )
    }
}

impl FromStr for TakenEvent {
    type Err = BadRule;
    fn from_str(text: &str) -> Result<Self, BadRule> {
        match text {
            "push" => Ok(Self::Push),
            "manual" => Ok(Self::Manual),
            "schedule" => Ok(Self::Schedule),
            "pull_request" => Err(BadRule(
                "an environment can't take pull_request: anybody may open one, so it never deploys; take the push that merges it"
                    .into(),
            )),
            other => {
                let shown: String = other.chars().take(40).collect();
                Err(BadRule(format!("{shown:?} is no event; it can be push, manual or schedule")))
            }
        }
    }
}

impl TryFrom<String> for TakenEvent {
    type Error = BadRule;
    fn try_from(text: String) -> Result<Self, BadRule> {
        text.parse()
    }
}

impl From<TakenEvent> for String {
    fn from(event: TakenEvent) -> Self {
        event.as_str().to_owned()
    }
}

/// A rule: all of it must hold for the run that a release comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Written")]
pub struct Accept {
    /// The repository, by its name in Pipeyard.
    pub repo: RepoName,
    /// Its branches, by patterns. Without branches and tags: its default branch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<RefPattern>,
    /// Its tags, by patterns; a rule has either branches or tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<RefPattern>,
    /// What may have started the run; a push if absent.
    #[schema(value_type = Vec<String>)]
    pub events: Vec<TakenEvent>,
}

/// A rule as it is written, before it is known whether it can hold.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    repo: RepoName,
    #[serde(default, deserialize_with = "one_or_many")]
    branches: Option<Vec<RefPattern>>,
    #[serde(default, deserialize_with = "one_or_many")]
    tags: Option<Vec<RefPattern>>,
    #[serde(default, deserialize_with = "one_or_many")]
    events: Option<Vec<TakenEvent>>,
}

impl TryFrom<Written> for Accept {
    type Error = BadRule;
    fn try_from(written: Written) -> Result<Self, BadRule> {
        let Written { repo, branches, tags, events } = written;
        let empty = |key: &str| Err(BadRule(format!("{key}: is empty; name some or leave it out")));
        if branches.as_ref().is_some_and(Vec::is_empty) {
            return empty("branches");
        }
        if tags.as_ref().is_some_and(Vec::is_empty) {
            return empty("tags");
        }
        if events.as_ref().is_some_and(Vec::is_empty) {
            return empty("events");
        }
        Self::new(
            repo,
            branches.unwrap_or_default(),
            tags.unwrap_or_default(),
            events.unwrap_or_default(),
        )
    }
}

impl Accept {
    /// A rule; without events it takes pushes.
    ///
    /// # Errors
    /// When no ref could ever fit it.
    pub fn new(
        repo: RepoName,
        branches: Vec<RefPattern>,
        tags: Vec<RefPattern>,
        mut events: Vec<TakenEvent>,
    ) -> Result<Self, BadRule> {
        if !branches.is_empty() && !tags.is_empty() {
            return Err(BadRule(
                "a rule has `branches` or `tags`, for no ref is both; write two rules".into(),
            ));
        }
        if branches.len() + tags.len() > 100 {
            return Err(BadRule("a rule has at most 100 patterns".into()));
        }
        events.sort_unstable();
        events.dedup();
        if events.is_empty() {
            events.push(TakenEvent::Push);
        }
        Ok(Self { repo, branches, tags, events })
    }

    /// Whether a run from this source fits.
    #[must_use]
    pub fn takes(&self, source: &Source) -> bool {
        self.repo == source.repo
            && self.events.iter().any(|event| event.is(source.event))
            && self.takes_ref(source)
    }

    fn takes_ref(&self, source: &Source) -> bool {
        let any = |patterns: &[RefPattern], name: &str| patterns.iter().any(|p| p.matches(name));
        match ref_of(&source.reference) {
            Ref::Branch(name) if self.branches.is_empty() && self.tags.is_empty() => {
                name == source.default_branch
            }
            Ref::Branch(name) => any(&self.branches, name),
            Ref::Tag(name) => any(&self.tags, name),
            Ref::Other(_) => false,
        }
    }

    /// `acme/shop, branches main and release/*, by push`.
    #[must_use]
    pub fn words(&self) -> String {
        let named = |what: &str, patterns: &[RefPattern]| {
            let all: Vec<&str> = patterns.iter().map(RefPattern::as_str).collect();
            format!("{what} {}", all.join(", "))
        };
        let refs = match (self.branches.is_empty(), self.tags.is_empty()) {
            (false, _) => named("branches", &self.branches),
            (true, false) => named("tags", &self.tags),
            (true, true) => "its default branch".to_owned(),
        };
        let events: Vec<&str> = self.events.iter().map(|event| event.as_str()).collect();
        format!("{}, {refs}, by {}", self.repo, events.join(" or "))
    }
}

/// A list, or one value in its place.
fn one_or_many<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: fmt::Display,
{
    struct Visitor<T>(std::marker::PhantomData<T>);
    impl<'de, T> de::Visitor<'de> for Visitor<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or a list of texts")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            text.parse().map(|one| vec![one]).map_err(E::custom)
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(text) = seq.next_element::<String>()? {
                all.push(text.parse().map_err(de::Error::custom)?);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_any(Visitor(std::marker::PhantomData)).map(Some)
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
