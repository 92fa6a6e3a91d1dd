//! Patterns of branches, one rule for whatever is limited to some of them.

use std::{fmt, str::FromStr};

use globset::GlobBuilder;
use serde::{Deserialize, Serialize};

/// The longest pattern, in bytes.
const LONGEST: usize = 200;

/// The text can't be a pattern of branches.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a branch pattern: {why}")]
pub struct BadBranchGlob {
    /// The text as it was given, cut to 80 characters.
    pub text: String,
    /// What is wrong with it, and what would be right.
    pub why: String,
}

/// A pattern of branches: `main`, `release/*`. `*` and `?` stop at a slash, `**` doesn't.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BranchGlob(String);

impl BranchGlob {
    /// Checks the text.
    ///
    /// # Errors
    /// When it is empty or too long, is a full ref, excludes, or isn't a pattern.
    pub fn new(text: impl Into<String>) -> Result<Self, BadBranchGlob> {
        let text = text.into();
        let why = if text.is_empty() {
            Some("it is empty".to_owned())
        } else if text.len() > LONGEST {
            Some(format!("it has more than {LONGEST} bytes"))
        } else if text.starts_with('!') {
            Some("a pattern can't exclude; name the branches that are meant".to_owned())
        } else if text.starts_with("refs/") {
            Some("write the branch without `refs/heads/`".to_owned())
        } else if text.contains("${") {
            Some("nothing is filled in here".to_owned())
        } else if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            Some("no branch's name holds a space or a control character".to_owned())
        } else {
            glob(&text).err().map(|error| error.kind().to_string())
        };
        match why {
            None => Ok(Self(text)),
            Some(why) => Err(BadBranchGlob { text: text.chars().take(80).collect(), why }),
        }
    }

    /// Whether this is a branch that is meant.
    #[must_use]
    pub fn matches(&self, branch: &str) -> bool {
        glob(&self.0).is_ok_and(|glob| glob.compile_matcher().is_match(branch))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn glob(text: &str) -> Result<globset::Glob, globset::Error> {
    GlobBuilder::new(text).literal_separator(true).build()
}

impl fmt::Display for BranchGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for BranchGlob {
    type Err = BadBranchGlob;
    fn from_str(text: &str) -> Result<Self, BadBranchGlob> {
        Self::new(text)
    }
}

impl TryFrom<String> for BranchGlob {
    type Error = BadBranchGlob;
    fn try_from(text: String) -> Result<Self, BadBranchGlob> {
        Self::new(text)
    }
}

impl From<BranchGlob> for String {
    fn from(glob: BranchGlob) -> Self {
        glob.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stops_at_a_slash_and_what_is_no_pattern_is_refused() {
        let matches = |glob: &str, branch: &str| BranchGlob::new(glob).unwrap().matches(branch);
        assert!(matches("main", "main") && !matches("main", "main2") && !matches("main", "x/main"));
        assert!(matches("release/*", "release/1") && !matches("release/*", "release/1/fix"));
        assert!(matches("**", "release/1/fix") && matches("release/**", "release/1/fix"));
        for bad in ["", "!main", "refs/heads/main", "${commit.branch}", "a b", "[", "a\nb"] {
            assert!(BranchGlob::new(bad).is_err(), "{bad:?}");
        }
        assert!(BranchGlob::new("x".repeat(201)).is_err());
    }
}
