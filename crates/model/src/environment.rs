//! Who may deploy where: a property of the environment, never of the file that is deployed.
//!
//! An environment's [`Policy`] says which refs of which repositories it takes, whose approval a
//! deployment needs, and when nothing may start. [`decide`] answers "may this be deployed here now,
//! and what is missing"; the server asks it when a deploy is taken in and again before it starts.
//! [`may_approve`] and [`may_command`] answer who may let one start, promote it or go back.
//!
//! A pipeline can only tighten this: `approve: true` asks for an approval where the environment asks
//! for none. Pull requests and forks never deploy, whatever a rule says.
//!
//! Absent: whether a commit can be reached from the branch that its run names; that is found out
//! before a run is made.

mod accept;
mod decide;
mod freeze;
mod people;
pub mod reasons;
mod upgrade;

pub use accept::{Accept, BadRule, RefPattern, RunEvent, Source, TakenEvent};
pub use decide::{Counted, Verdict, accepts, count, decide};
pub use freeze::{Freeze, Frozen, WeekTime, Zone, frozen};
pub use people::{Approvals, Author, Given, Identity, Person, may_approve, may_command};
use serde::{Deserialize, Serialize};
pub use upgrade::{Came, rules_of_history};
use utoipa::ToSchema;

use crate::Timestamp;

/// The most rules of an environment.
const RULES: usize = 200;
/// The most frozen windows of an environment.
const WINDOWS: usize = 50;

/// What an environment takes, from whom, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    /// One of these must fit; without rules nothing is taken.
    #[serde(default)]
    pub accepts: Vec<Accept>,
    /// Who must let a deployment start.
    #[serde(default)]
    pub approvals: Approvals,
    /// When nothing starts.
    #[serde(default)]
    pub freeze: Vec<Freeze>,
}

impl Policy {
    /// The same with one more rule: none when it is there already. Patterns for the same repository
    /// and events join its rule.
    #[must_use]
    pub fn allow(&self, rule: &Accept) -> Option<Self> {
        let mut policy = self.clone();
        let same = policy.accepts.iter_mut().find(|known| {
            known.repo == rule.repo
                && known.events == rule.events
                && known.branches.is_empty() == rule.branches.is_empty()
                && known.tags.is_empty() == rule.tags.is_empty()
        });
        match same {
            Some(known) => {
                for (into, from) in
                    [(&mut known.branches, &rule.branches), (&mut known.tags, &rule.tags)]
                {
                    let new: Vec<_> = from.iter().filter(|p| !into.contains(p)).cloned().collect();
                    into.extend(new);
                }
            }
            None => policy.accepts.push(rule.clone()),
        }
        (policy != *self).then_some(policy)
    }

    /// What differs in `next`, a line for each: `accepts: + shop, branches main, by push`.
    #[must_use]
    pub fn differences(&self, next: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut list = |key: &str, old: Vec<String>, new: Vec<String>| {
            let gone = old.iter().filter(|line| !new.contains(line)).map(|line| ('-', line));
            let come = new.iter().filter(|line| !old.contains(line)).map(|line| ('+', line));
            lines.extend(gone.chain(come).map(|(sign, line)| format!("{key}: {sign} {line}")));
        };
        let accepts = |policy: &Self| policy.accepts.iter().map(Accept::words).collect();
        let freeze = |policy: &Self| policy.freeze.iter().map(Freeze::words).collect();
        let approvals = |policy: &Self| vec![policy.approvals.words()];
        list("accepts", accepts(self), accepts(next));
        list("approvals", approvals(self), approvals(next));
        list("freeze", freeze(self), freeze(next));
        lines
    }

    /// What the types of its parts don't say. The message names the place below the environment.
    ///
    /// # Errors
    /// With the first mistake.
    pub fn check(&self, now: Timestamp) -> Result<(), String> {
        let Self { accepts, approvals, freeze } = self;
        if accepts.len() > RULES {
            return Err(format!("accepts: {} rules; at most {RULES}", accepts.len()));
        }
        if freeze.len() > WINDOWS {
            return Err(format!("freeze: {} windows; at most {WINDOWS}", freeze.len()));
        }
        for (n, rule) in accepts.iter().enumerate() {
            if let Some(first) = accepts.iter().position(|other| other == rule).filter(|m| *m < n) {
                return Err(format!("accepts[{n}]: is accepts[{first}] again; remove one"));
            }
        }
        approvals.check().map_err(|why| format!("approvals.{why}"))?;
        for (n, window) in freeze.iter().enumerate() {
            window.check().map_err(|why| format!("freeze[{n}].{why}"))?;
        }
        match frozen(freeze, now) {
            Some(Frozen { until: None, .. }) => Err(
                "freeze: the windows leave no time in which a deployment can start; end one of them earlier"
                    .into(),
            ),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: serde_json::Value) -> Accept {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_rule_is_allowed_once_and_joins_the_one_it_belongs_to() {
        let main = rule(serde_json::json!({"repo": "shop", "branches": "main"}));
        let one = Policy::default().allow(&main).unwrap();
        assert_eq!(one.allow(&main), None);
        let two = one.allow(&rule(serde_json::json!({"repo": "shop", "branches": "release/*"})));
        let two = two.unwrap();
        assert_eq!(two.accepts[0].words(), "shop, branches main, release/*, by push");
        let tags = two.allow(&rule(serde_json::json!({"repo": "shop", "tags": "v*"}))).unwrap();
        let blog = tags.allow(&rule(serde_json::json!({"repo": "blog"}))).unwrap();
        assert_eq!(blog.accepts.len(), 3);
        assert_eq!(
            two.differences(&blog),
            ["accepts: + shop, tags v*, by push", "accepts: + blog, its default branch, by push"]
        );
        assert_eq!(blog.differences(&blog), [""; 0]);
        let mut strict = blog.clone();
        strict.approvals.count = 2;
        assert_eq!(
            blog.differences(&strict),
            [
                "approvals: - none is needed; an administrator decides",
                "approvals: + 2 of an administrator"
            ]
        );
    }
}
