//! May this be deployed here now, and what is missing.

use super::{
    Accept, Approvals, Frozen, Given, Policy, RunEvent, Source, frozen, people::no_author,
};
use crate::{EnvironmentName, Timestamp, deployment::Reason};

/// How the approvals stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// How many are needed.
    pub needed: u32,
    /// Those given that count.
    pub given: Vec<Given>,
    /// Who may approve, in words.
    pub who: String,
    /// The author's own doesn't count.
    pub not_the_author: bool,
    /// The pipeline asks for one, not the environment.
    pub by_pipeline: bool,
}

impl Counted {
    /// How many are still missing.
    #[must_use]
    pub fn missing(&self) -> u32 {
        self.needed.saturating_sub(u32::try_from(self.given.len()).unwrap_or(u32::MAX))
    }

    /// What is met and what is missing, for people; none when nothing is.
    #[must_use]
    pub fn waits(&self) -> Option<Reason> {
        let missing = self.missing();
        if missing == 0 {
            return None;
        }
        let mut text = match (self.needed, self.given.as_slice()) {
            (1, _) => format!("needs the approval of {}", self.who),
            (needed, []) => format!("needs {needed} approvals of {}", self.who),
            (needed, given) => {
                let by: Vec<&str> = given.iter().map(|given| given.by.as_str()).collect();
                format!(
                    "{} of {needed} approvals are there (by {}); {missing} more of {}",
                    given.len(),
                    by.join(", "),
                    self.who
                )
            }
        };
        if self.not_the_author {
            text.push_str(", but not of the change's author");
        }
        if self.by_pipeline {
            text.push_str("; the pipeline asks for it (`approve: true`)");
        }
        Some(Reason::new("waits_for_approval", text))
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The rule that takes it, in words; or why nothing ever will.
    pub taken: Result<String, Reason>,
    /// The approvals.
    pub approvals: Counted,
    /// Nothing may start now.
    pub frozen: Option<Frozen>,
}

impl Verdict {
    /// It may start now.
    #[must_use]
    pub fn may_start(&self) -> bool {
        self.taken.is_ok() && self.approvals.missing() == 0 && self.frozen.is_none()
    }
}

/// May a release from this source be deployed to this environment now, and what is missing.
///
/// `asks_approval` is the pipeline's own wish, which can only tighten what the environment asks.
#[must_use]
pub fn decide(
    environment: &EnvironmentName,
    policy: &Policy,
    source: &Source,
    asks_approval: bool,
    given: &[Given],
    now: Timestamp,
) -> Verdict {
    let approvals = count(policy, asks_approval, given);
    let known = !source.author.forge.is_empty();
    let taken = accepts(environment, policy, source).and_then(|rule| {
        if approvals.not_the_author && !known && approvals.missing() > 0 {
            return Err(no_author(environment));
        }
        Ok(rule)
    });
    Verdict { taken, approvals, frozen: frozen(&policy.freeze, now) }
}

/// How the approvals stand under the rules of now.
#[must_use]
pub fn count(policy: &Policy, asks_approval: bool, given: &[Given]) -> Counted {
    let rules = &policy.approvals;
    let Approvals { count, not_the_author, of: _ } = rules;
    Counted {
        needed: (*count).max(u32::from(asks_approval)),
        given: given.iter().filter(|given| given.counts(rules)).cloned().collect(),
        who: rules.who(),
        not_the_author: *not_the_author,
        by_pipeline: *count == 0 && asks_approval,
    }
}

/// The rule that takes a release from this source, in words.
///
/// # Errors
/// With why none does, and the fix.
pub fn accepts(
    environment: &EnvironmentName,
    policy: &Policy,
    source: &Source,
) -> Result<String, Reason> {
    if source.event == RunEvent::PullRequest {
        let text = format!(
            "a pull request never deploys: {environment} takes its commits once they are merged"
        );
        return Err(Reason::new("deploy_of_pull_request", text));
    }
    if source.fork {
        let text = format!(
            "{environment} takes nothing of a fork, nor a commit that can't be reached from the branch it runs on: push it to the branch first"
        );
        return Err(Reason::new("deploy_of_fork", text));
    }
    if let Some((n, rule)) = policy.accepts.iter().enumerate().find(|(_, r)| r.takes(source)) {
        return Ok(format!("accepts[{n}]: {}", rule.words()));
    }
    let of_repo = policy.accepts.iter().enumerate().filter(|(_, r)| r.repo == source.repo);
    let of_repo: Vec<String> =
        of_repo.map(|(n, r)| format!("accepts[{n}]: {}", Accept::words(r))).collect();
    let why = match (policy.accepts.is_empty(), of_repo.is_empty()) {
        (true, _) => "no rule says what it takes (`accepts` is empty)".to_owned(),
        (false, true) => format!("no rule of it names {}", source.repo),
        (false, false) => format!("its rules for it are: {}", of_repo.join("; ")),
    };
    let text = format!(
        "{environment} doesn't take {}: {why}. An administrator can take it in: `{}`",
        source.words(),
        allow_command(environment, source)
    );
    Err(Reason::new("deploy_not_accepted", text))
}

/// The command that writes the rule which is missing.
fn allow_command(environment: &EnvironmentName, source: &Source) -> String {
    let mut command = format!("pipectl envs allow {environment} --repo {}", source.repo);
    let mut option = |name: &str, value: &str| {
        let plain = value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.'));
        // A hostile name isn't put into a command that somebody copies.
        let value = if plain { value } else { "NAME" };
        command.push_str(&format!(" --{name} {value}"));
    };
    if let Some(branch) = source.reference.strip_prefix("refs/heads/") {
        if branch != source.default_branch {
            option("branch", branch);
        }
    } else if let Some(tag) = source.reference.strip_prefix("refs/tags/") {
        option("tag", tag);
    }
    if source.event != RunEvent::Push {
        option("event", source.event.as_str());
    }
    command
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
