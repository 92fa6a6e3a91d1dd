//! The name of a commit: 40 hexadecimal digits.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The full name of a commit, in lower case. Never an abbreviation, a ref or an option.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha(String);

/// The text isn't the full name of a commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a full commit SHA of 40 hexadecimal digits")]
pub struct BadSha(pub String);

impl Sha {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn oid(&self) -> git2::Oid {
        // 40 hexadecimal digits always are one.
        git2::Oid::from_str(&self.0).unwrap_or(git2::Oid::ZERO_SHA1)
    }
}

impl From<git2::Oid> for Sha {
    fn from(oid: git2::Oid) -> Self {
        Self(oid.to_string())
    }
}

impl fmt::Display for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Sha {
    type Err = BadSha;
    fn from_str(text: &str) -> Result<Self, BadSha> {
        let whole = text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
        // All zeros is how Git says "none".
        if whole && text.bytes().any(|b| b != b'0') {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(BadSha(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Sha {
    type Error = BadSha;
    fn try_from(text: String) -> Result<Self, BadSha> {
        text.parse()
    }
}

impl From<Sha> for String {
    fn from(sha: Sha) -> String {
        sha.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_sha_is_one() {
        let sha: Sha = "A94A8FE5CCB19BA61C4C0873D391E987982FBBD3".parse().unwrap();
        assert_eq!(sha.as_str(), "a94a8fe5ccb19ba61c4c0873d391e987982fbbd3");
        for bad in [
            "",
            "HEAD",
            "a94a8fe",
            "--upload-pack=x",
            &"0".repeat(40),
            &"g".repeat(40),
            &"a".repeat(41),
        ] {
            assert!(bad.parse::<Sha>().is_err(), "{bad}");
        }
    }
}
