//! `${commit.sha}` and its like: filled in everywhere but in scripts.
//!
//! A branch or an author is a stranger's text. In a script it would become shell code, so a script
//! finds it in a variable instead and the form is an error there.

use std::borrow::Cow;

use crate::{Code, check::Checker, diagnostic::quote, yaml::Span};

/// The names that may stand between `${` and `}`, and the variable that a script uses instead.
pub(crate) const NAMES: &[(&str, &str)] = &[
    ("commit.sha", "PIPEYARD_COMMIT"),
    ("commit.short", "PIPEYARD_COMMIT_SHORT"),
    ("commit.branch", "PIPEYARD_BRANCH"),
    ("commit.author", "PIPEYARD_AUTHOR"),
];

impl<'a> Checker<'_, 'a> {
    /// `text` with everything filled in; `$${` gives `${`. `None` after an error.
    pub(crate) fn fill<'t>(&mut self, (text, span): (&'t str, Span)) -> Option<Cow<'t, str>> {
        if !text.contains("${") {
            return Some(Cow::Borrowed(text));
        }
        let mut out = String::with_capacity(text.len() + 40);
        let mut rest = text;
        let mut good = true;
        let mut seen = 0;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            seen += 1;
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str("${");
                rest = &from[2..];
                continue;
            }
            out.push_str(before);
            let Some(end) = from.find('}') else {
                let at = self.occurrence(span, "${", seen);
                self.report
                    .error(Code::P215, at, "`${` is never closed")
                    .help("close it with `}`, or write `$${` for the characters themselves");
                return None;
            };
            let name = &from[2..end];
            if let Some(value) = self.value_of(name) {
                out.push_str(value);
            } else {
                good = false;
                self.unknown_variable(name, span, seen);
            }
            rest = &from[end + 1..];
        }
        out.push_str(rest);
        good.then_some(Cow::Owned(out))
    }

    fn value_of(&self, name: &str) -> Option<&str> {
        Some(match name {
            "commit.sha" => &self.context.sha,
            "commit.short" => self.context.short(),
            "commit.branch" => &self.context.branch,
            "commit.author" => &self.context.author,
            _ => return None,
        })
    }

    fn unknown_variable(&mut self, name: &str, span: Span, seen: usize) {
        let at = self.occurrence(span, "${", seen);
        let at =
            Span { start: at.start, end: (at.start + name.len() + 3).min(span.end.max(at.end)) };
        let message = format!("there is no variable {}", quote(&format!("${{{name}}}")));
        let diagnostic = self.report.error(Code::P215, at, message);
        diagnostic.allowed(NAMES.iter().map(|(name, _)| format!("${{{name}}}")));
        if name.starts_with("secret") {
            diagnostic.help(
                "list the secret under `secrets`; the step finds it in a variable of that name",
            );
        } else if let Some(near) =
            crate::diagnostic::nearest(name, NAMES.iter().map(|(name, _)| *name))
        {
            diagnostic.suggestion = Some(format!("${{{near}}}"));
        } else {
            diagnostic.help("write `$${` for the characters themselves");
        }
    }

    /// Says which variable to use where a script has `${commit.…}`. True if there was none.
    pub(crate) fn script_is_free(&mut self, (text, span): (&str, Span)) -> bool {
        let mut good = true;
        for (seen, (at, _)) in text.match_indices("${commit.").enumerate() {
            good = false;
            let name = text[at + 2..].split('}').next().unwrap_or("");
            let place = self.occurrence(span, "${commit.", seen + 1);
            let place = Span { start: place.start, end: place.start + name.len() + 3 };
            let message = format!(
                "{} in a script would run a stranger's text as shell",
                quote(&format!("${{{name}}}"))
            );
            let help = match NAMES.iter().find(|(known, _)| *known == name) {
                Some((_, variable)) => format!("use the variable \"${variable}\", in double quotes"),
                None => "scripts find the commit in $PIPEYARD_COMMIT, $PIPEYARD_COMMIT_SHORT, $PIPEYARD_BRANCH and $PIPEYARD_AUTHOR".into(),
            };
            self.report.error(Code::P216, place, message).help(help);
        }
        good
    }

    /// The place of the n-th `what` in the source of a value, or the whole value.
    fn occurrence(&self, span: Span, what: &str, nth: usize) -> Span {
        let source = self.report.slice(span);
        match source.match_indices(what).nth(nth.saturating_sub(1)) {
            Some((at, _)) => Span { start: span.start + at, end: span.start + at + what.len() },
            None => span,
        }
    }
}
