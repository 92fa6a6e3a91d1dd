//! `${commit.sha}` and its like: filled into values, never into anything that is executed.
//!
//! A branch or an author is a stranger's text. In a script it would become shell code, so a script
//! finds it in a variable instead and the form is an error there; so it is in a service's command, and
//! in variables that programs execute by themselves. Which keys take it is in the table of [`keys`].
//!
//! [`keys`]: crate::keys

use std::borrow::Cow;

use crate::{Code, check::Checker, diagnostic::quote, yaml::Span};

/// The names that may stand between `${` and `}`, and the variable that a script uses instead.
pub(crate) const NAMES: &[(&str, &str)] = &[
    ("commit.sha", "PIPEYARD_COMMIT"),
    ("commit.short", "PIPEYARD_COMMIT_SHORT"),
    ("commit.branch", "PIPEYARD_BRANCH"),
    ("commit.author", "PIPEYARD_AUTHOR"),
];

/// Variables whose text shells, loaders and interpreters execute, or read options from that name what
/// to execute.
const EXECUTED: &[&str] = &[
    "BASH_ENV",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "EDITOR",
    "ENV",
    "GIT_ASKPASS",
    "GIT_CONFIG_PARAMETERS",
    "GIT_EDITOR",
    "GIT_EXTERNAL_DIFF",
    "GIT_PAGER",
    "GIT_PROXY_COMMAND",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LESSOPEN",
    "MAKEFLAGS",
    "MAVEN_OPTS",
    "NODE_OPTIONS",
    "PAGER",
    "PATH",
    "PERL5DB",
    "PERL5OPT",
    "POSTGRES_INITDB_ARGS",
    "PROMPT_COMMAND",
    "PS1",
    "PS4",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "RUBYOPT",
    "RUSTC_WRAPPER",
    "SHELL",
    "SSH_ASKPASS",
    "VISUAL",
    "_JAVA_OPTIONS",
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
    pub(crate) fn script_is_free(&mut self, value: (&str, Span)) -> bool {
        self.executed_is_free(value, "a script")
    }

    /// The same for a word of a service's command. Nothing is filled in there, so `$${`, which stands
    /// for `${` where something is, would be taken as it is written.
    pub(crate) fn word_is_free(&mut self, (text, span): (&str, Span)) -> bool {
        if text.contains("$${") {
            let place = self.occurrence(span, "$${", 1);
            self.report
                .error(Code::P216, place, "`$${` in a command stands for itself")
                .help("nothing is filled into a command: write `${` for the characters `${`");
            return false;
        }
        self.executed_is_free((text, span), "a command")
    }

    /// Says that a variable can't take `${commit.…}` if programs execute what it holds.
    pub(crate) fn variable_is_free(&mut self, name: &str, (text, span): (&str, Span)) -> bool {
        if !EXECUTED.contains(&name) {
            return true;
        }
        self.executed_is_free((text, span), "a variable that programs execute")
    }

    fn executed_is_free(&mut self, (text, span): (&str, Span), what: &str) -> bool {
        let mut good = true;
        for (seen, (at, _)) in text.match_indices("${commit.").enumerate() {
            good = false;
            let name = text[at + 2..].split('}').next().unwrap_or("");
            let place = self.occurrence(span, "${commit.", seen + 1);
            let place = Span { start: place.start, end: place.start + name.len() + 3 };
            let shell = if what == "a script" { " as shell" } else { "" };
            let message = format!(
                "{} in {what} would run a stranger's text{shell}",
                quote(&format!("${{{name}}}"))
            );
            let help = match NAMES.iter().find(|(known, _)| *known == name) {
                Some((_, variable)) if what == "a script" => {
                    format!("use the variable \"${variable}\", in double quotes")
                }
                Some((_, variable)) => {
                    let own = variable.trim_start_matches("PIPEYARD_");
                    format!(
                        "give it a variable of its own under `env`, `{own}: ${{{name}}}`, and read that as \"${own}\" in double quotes"
                    )
                }
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
