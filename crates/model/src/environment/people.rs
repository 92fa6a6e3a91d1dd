//! Who may let a deployment start, promote it or go back; and whose change it is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Policy;
use crate::{EnvironmentName, Timestamp, UserId, deployment::Reason};

/// The most approvals of a deployment.
const APPROVALS: u32 = 20;

/// Whose word a deployment needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Approvals {
    /// How many people must approve; 1 if absent.
    #[serde(default = "one")]
    pub count: u32,
    /// The users who may approve, promote and go back; administrators if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Vec<String>>,
    /// Whose change it is can't approve it.
    #[serde(default)]
    pub not_the_author: bool,
}

const fn one() -> u32 {
    1
}

/// No approval is needed.
impl Default for Approvals {
    fn default() -> Self {
        Self { count: 0, of: None, not_the_author: false }
    }
}

impl Approvals {
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { count, of, not_the_author: _ } = self;
        if *count > APPROVALS {
            return Err(format!("count: {count}; at most {APPROVALS}"));
        }
        let Some(of) = of else { return Ok(()) };
        if of.is_empty() {
            return Err("of: is empty, so nobody could approve; name users or leave it out".into());
        }
        for (n, name) in of.iter().enumerate() {
            if of.iter().position(|other| other == name) != Some(n) {
                return Err(format!("of[{n}]: {name:?} stands twice"));
            }
            if name.starts_with('@') || name.contains(['/', ':']) {
                return Err(format!("of[{n}]: {name:?}: teams can't be named yet; name users"));
            }
        }
        if usize::try_from(*count).is_ok_and(|count| count > of.len()) {
            return Err(format!(
                "count: {count} people must approve, and `of` names only {}; name more or lower it",
                of.len()
            ));
        }
        Ok(())
    }

    /// `ann or ben`, `an administrator`.
    #[must_use]
    pub fn who(&self) -> String {
        match self.of.as_deref() {
            None => "an administrator".into(),
            Some([all @ .., last]) if !all.is_empty() => format!("{} or {last}", all.join(", ")),
            Some(names) => names.concat(),
        }
    }

    /// `2 of ann, ben or cem, not the author`.
    #[must_use]
    pub fn words(&self) -> String {
        let author = if self.not_the_author { ", not the author" } else { "" };
        match self.count {
            0 => format!("none is needed; {} decides{author}", self.who()),
            count => format!("{count} of {}{author}", self.who()),
        }
    }

    fn names(&self, name: &str) -> bool {
        self.of.as_ref().is_none_or(|of| of.iter().any(|named| named == name))
    }
}

/// A user of a forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `github`.
    pub forge: String,
    /// The name there; forges don't tell capitals from small letters.
    pub login: String,
}

impl Identity {
    fn same(&self, other: &Self) -> bool {
        self.forge == other.forge && self.login.eq_ignore_ascii_case(&other.login)
    }
}

/// Whose change it is: what the forge signed, never the text in a commit, which anybody can write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The forge's users who pushed the commit; none where no forge says it (plain Git).
    pub forge: Vec<Identity>,
    /// The person who started the run by hand.
    pub starter: Option<UserId>,
}

impl Author {
    /// Whether this person is it; none where it can't be known.
    fn is(&self, person: &Person) -> Option<bool> {
        if self.starter == Some(person.id) {
            return Some(true);
        }
        let mut known = !self.forge.is_empty();
        for author in &self.forge {
            if person.identities.iter().any(|own| own.same(author)) {
                return Some(true);
            }
            known &= person.identities.iter().any(|own| own.forge == author.forge);
        }
        known.then_some(false)
    }
}

/// A signed-in person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Their id.
    pub id: UserId,
    /// Their name.
    pub name: String,
    /// May do everything that isn't given to somebody by name.
    pub admin: bool,
    /// The users of forges that they are, as an administrator wrote them down.
    pub identities: Vec<Identity>,
}

/// An approval that was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Who; none for one of a version that didn't keep it.
    pub user: Option<UserId>,
    /// The same, by name.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// It is the person's own change; none where that can't be known.
    pub own: Option<bool>,
    /// What they said.
    pub comment: Option<String>,
}

impl Given {
    /// Whether it counts under these rules, which may have changed since it was given.
    pub(super) fn counts(&self, rules: &Approvals) -> bool {
        rules.names(&self.by) && (!rules.not_the_author || self.own == Some(false))
    }
}

/// Whether this person may promote a deployment of this environment, or go back to an earlier one.
///
/// # Errors
/// With who may, when they may not.
pub fn may_command(
    environment: &EnvironmentName,
    policy: &Policy,
    person: &Person,
) -> Result<(), Reason> {
    let named = match &policy.approvals.of {
        Some(_) => policy.approvals.names(&person.name),
        None => person.admin,
    };
    if named {
        return Ok(());
    }
    let text = format!(
        "{} may not decide about {environment}: only {} may",
        person.name,
        policy.approvals.who()
    );
    Err(Reason::new("not_named", text))
}

/// Whether this person's approval would count; answers whether it is their own change.
///
/// # Errors
/// With why it wouldn't, and who may approve.
pub fn may_approve(
    environment: &EnvironmentName,
    policy: &Policy,
    author: &Author,
    given: &[Given],
    person: &Person,
) -> Result<Option<bool>, Reason> {
    may_command(environment, policy, person)?;
    let rules = &policy.approvals;
    if given.iter().any(|given| given.user == Some(person.id) && given.counts(rules)) {
        let text = format!("{} has approved it already; each person counts once", person.name);
        return Err(Reason::new("already_approved", text));
    }
    let own = author.is(person);
    if !rules.not_the_author {
        return Ok(own);
    }
    let other = format!("{environment} wants the approval of somebody else ({})", rules.who());
    match (own, author.forge.first()) {
        (Some(false), _) => Ok(own),
        (Some(true), _) => {
            let text = format!("{} can't approve their own change: {other}", person.name);
            Err(Reason::new("own_change", text))
        }
        (None, Some(Identity { forge, login })) => {
            let text = format!(
                "whether this is the change of {name} isn't known: {login} of {forge} pushed it, and nobody wrote down who {name} is there. An administrator does: `pipectl users set-forge {name} {forge}=LOGIN`; {other}",
                name = person.name
            );
            Err(Reason::new("author_unknown", text))
        }
        (None, None) => Err(no_author(environment)),
    }
}

/// The rule can't be met: nobody knows whose change it is.
pub(super) fn no_author(environment: &EnvironmentName) -> Reason {
    let text = format!(
        "{environment} wants the approval of somebody who isn't the author (`not_the_author`), and whose change this is isn't known: no forge told who pushed it. Push it through a forge whose webhook says so, or change the environment's `approvals`"
    );
    Reason::new("author_unknown", text)
}
