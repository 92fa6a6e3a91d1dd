//! `when`, of the file and of a deploy.

use crate::{
    Branches, Code, DeployRule, Trigger,
    check::{Checker, Field},
    diagnostic::quote,
    keys,
    trigger::branch_glob,
    yaml::Kind,
};

/// The most patterns in one list.
const MAX_PATTERNS: usize = 100;

impl<'a> Checker<'_, 'a> {
    /// `when` of the file. Falls back to the default where it can't be read.
    pub(crate) fn trigger(&mut self, field: Option<Field<'_, 'a>>) -> Trigger {
        let Some(field) = field else { return Trigger::default() };
        if field.is_null() || matches!(&field.node.kind, Kind::Map(entries) if entries.is_empty()) {
            self.report
                .error(Code::P104, field.key, "`when` names no event")
                .help("add `push` or `pull_request`; without `when` it is pushes to the default branch and pull requests");
            return Trigger::default();
        }
        let Some(fields) = self.fields(field, &keys::WHEN) else { return Trigger::default() };
        let push = fields.get("push").map(|field| self.branches(field));
        let pull_request = fields.get("pull_request").map(|field| self.branches(field));
        Trigger { push, pull_request }
    }

    /// `when` of a deploy.
    pub(crate) fn deploy_rule(&mut self, field: Option<Field<'_, 'a>>) -> DeployRule {
        let Some(field) = field else { return DeployRule::default() };
        if let Kind::Map(entries) = &field.node.kind
            && let Some(entry) = entries.iter().find(|entry| entry.key.text == "pull_request")
        {
            self.report
                .error(Code::P310, entry.key.span, "pull requests never deploy")
                .help("deploy on pushes: what a pull request brings is deployed when it is merged");
            return DeployRule::default();
        }
        if field.is_null() {
            self.report
                .error(Code::P104, field.key, "`when` names no event")
                .help("add `push` or `manual`; without `when` it is pushes to the default branch");
            return DeployRule::default();
        }
        let Some(fields) = self.fields(field, &keys::DEPLOY_WHEN) else {
            return DeployRule::default();
        };
        let push = fields.get("push").map(|field| self.branches(field));
        let manual = fields.get("manual").and_then(|field| self.switch(field)).unwrap_or(false);
        DeployRule { push, manual }
    }

    fn branches(&mut self, field: Field<'_, 'a>) -> Branches {
        if field.is_null() {
            return Branches::Any;
        }
        if let Kind::Map(_) = &field.node.kind {
            self.report
                .error(
                    Code::P102,
                    field.span(),
                    "a branch or a list of branches is expected, and here is a map",
                )
                .help("write the branches right after the event: `push: [main, release/*]`");
            return Branches::Any;
        }
        let mut patterns = Vec::new();
        for (text, span) in self.texts(field, "a branch or a pattern of branches", MAX_PATTERNS) {
            let wrong = if text.starts_with('!') {
                Some("a pattern can't exclude; name the branches that are meant".to_owned())
            } else if text.len() > 200 {
                Some("it has more than 200 bytes".to_owned())
            } else if text.starts_with("refs/") {
                Some("write the branch without `refs/heads/`".to_owned())
            } else if text.contains("${") {
                Some(
                    "nothing is filled in here; leave `when` out for the default branch".to_owned(),
                )
            } else {
                branch_glob(text).err().map(|error| error.kind().to_string())
            };
            match wrong {
                Some(why) => {
                    let message = format!("{} is not a branch pattern: {why}", quote(text));
                    self.report.error(Code::P217, span, message);
                }
                None => patterns.push(text.to_owned()),
            }
        }
        Branches::Matching(patterns)
    }
}
