//! Which events start a pipeline, and which let a deploy into the run.

use globset::GlobBuilder;
use serde::{Deserialize, Serialize};

use crate::{Context, Event};

/// Which events start a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// Pushes to these branches; none without it.
    pub push: Option<Branches>,
    /// Pull requests that want to change these branches; none without it.
    pub pull_request: Option<Branches>,
}

/// Pushes to the default branch, and every pull request.
impl Default for Trigger {
    fn default() -> Self {
        Self { push: Some(Branches::Default), pull_request: Some(Branches::Any) }
    }
}

impl Trigger {
    /// Whether this event starts the pipeline. A person may always start it.
    #[must_use]
    pub fn starts(&self, context: &Context) -> bool {
        match &context.event {
            Event::Push => self.push.as_ref().is_some_and(|b| b.contain(&context.branch, context)),
            Event::PullRequest { base } => {
                self.pull_request.as_ref().is_some_and(|b| b.contain(base, context))
            }
            Event::Manual => true,
        }
    }
}

/// When a deploy is part of a run. Pull requests never deploy, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployRule {
    /// Pushes to these branches; none without it.
    pub push: Option<Branches>,
    /// Also in runs that a person starts.
    pub manual: bool,
}

/// Pushes to the default branch only.
impl Default for DeployRule {
    fn default() -> Self {
        Self { push: Some(Branches::Default), manual: false }
    }
}

impl DeployRule {
    /// `None` if the deploy is part of a run for this event, otherwise why it isn't.
    #[must_use]
    pub fn refusal(&self, context: &Context) -> Option<String> {
        match &context.event {
            Event::PullRequest { .. } => Some("pull requests never deploy".into()),
            Event::Manual if self.manual => None,
            Event::Manual => Some("it isn't marked `manual` under its `when`".into()),
            Event::Push => match &self.push {
                Some(branches) if branches.contain(&context.branch, context) => None,
                Some(branches) => {
                    Some(format!("it deploys on pushes to {}", branches.words(context)))
                }
                None => Some("its `when` names no pushes".into()),
            },
        }
    }
}

/// A set of branches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Branches {
    /// The repository's default branch.
    Default,
    /// Every branch.
    Any,
    /// Those that match one of these patterns. `*` stops at a slash, `**` doesn't.
    Matching(Vec<String>),
}

impl Branches {
    /// Whether `branch` is one of them.
    #[must_use]
    pub fn contain(&self, branch: &str, context: &Context) -> bool {
        match self {
            Self::Default => branch == context.default_branch,
            Self::Any => true,
            Self::Matching(patterns) => patterns.iter().any(|pattern| {
                branch_glob(pattern).is_ok_and(|glob| glob.compile_matcher().is_match(branch))
            }),
        }
    }

    fn words(&self, context: &Context) -> String {
        match self {
            Self::Default => format!("{:?} only", context.default_branch),
            Self::Any => "every branch".into(),
            Self::Matching(patterns) => format!("{} only", patterns.join(", ")),
        }
    }
}

/// Parses a pattern of branches.
pub(crate) fn branch_glob(pattern: &str) -> Result<globset::Glob, globset::Error> {
    GlobBuilder::new(pattern).literal_separator(true).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(event: Event, branch: &str) -> Context {
        Context { event, branch: branch.into(), ..Context::example() }
    }

    #[test]
    fn without_when_the_default_branch_and_pull_requests_start_it() {
        let trigger = Trigger::default();
        assert!(trigger.starts(&on(Event::Push, "main")));
        assert!(!trigger.starts(&on(Event::Push, "feature")));
        assert!(trigger.starts(&on(Event::PullRequest { base: "main".into() }, "feature")));
        assert!(trigger.starts(&on(Event::Manual, "feature")));
    }

    #[test]
    fn a_star_stops_at_a_slash_and_two_do_not() {
        let one = Branches::Matching(vec!["release/*".into()]);
        let two = Branches::Matching(vec!["**".into()]);
        let context = Context::example();
        assert!(one.contain("release/1", &context));
        assert!(!one.contain("release/1/fix", &context));
        assert!(!one.contain("main", &context));
        assert!(two.contain("release/1/fix", &context));
    }

    #[test]
    fn a_pull_request_never_deploys_whatever_the_rule() {
        let rule = DeployRule { push: Some(Branches::Any), manual: true };
        let context = on(Event::PullRequest { base: "main".into() }, "main");
        assert_eq!(rule.refusal(&context).as_deref(), Some("pull requests never deploy"));
    }

    #[test]
    fn a_deploy_without_when_follows_pushes_to_the_default_branch_only() {
        let rule = DeployRule::default();
        assert_eq!(rule.refusal(&on(Event::Push, "main")), None);
        assert!(rule.refusal(&on(Event::Push, "next")).is_some());
        assert!(rule.refusal(&on(Event::Manual, "main")).is_some());
    }
}
