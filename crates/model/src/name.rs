//! Names that people choose, checked once at the edge.
//!
//! A name ends up in URLs, labels, environment variables and file names, so its alphabet is small:
//! it can hold no separator, no space, no control character and no leading dash or dot.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The text can't be a name of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} can't be a {kind} name: {rule}")]
pub struct BadName {
    /// What the name is of, in words.
    pub kind: &'static str,
    /// The text as it was given, cut to 80 characters.
    pub text: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

fn plain(text: &str) -> bool {
    let head = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    head && text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn path_like(text: &str) -> bool {
    text.len() <= 200 && !text.is_empty() && text.split('/').all(plain)
}

fn variable(text: &str) -> bool {
    let head = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    head && text.len() <= 100 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Words that stand for somebody else where a user's name is shown.
const RESERVED: [&str; 6] = ["pipeyard", "nobody", "runner", "attempt", "forge", "me"];

/// Lower case only: two people whose names differ in case would be taken for one another.
fn account(text: &str) -> bool {
    plain(text)
        && text.len() <= 39
        && !text.bytes().any(|b| b.is_ascii_uppercase())
        && !text.starts_with('_')
        && !RESERVED.contains(&text)
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $kind:literal, $check:path, $rule:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// Checks `text`.
            ///
            /// # Errors
            /// When the text breaks the rule of this kind of name.
            pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
                let text = text.into();
                if $check(&text) {
                    Ok(Self(text))
                } else {
                    let text = text.chars().take(80).collect();
                    Err(BadName { kind: $kind, text, rule: $rule })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}

names! {
    /// A job or a deploy in a pipeline: they share one namespace.
    NodeName, "job", plain,
        "use letters, digits, '_', '-' and '.', at most 63, not starting with '-' or '.'";
    /// A repository, `shop` or `team/shop`.
    RepoName, "repository", path_like,
        "use letters, digits, '_', '-' and '.' between single slashes, at most 200";
    /// What is shipped.
    ServiceName, "service", plain,
        "use letters, digits, '_', '-' and '.', at most 63, not starting with '-' or '.'";
    /// Where to.
    EnvironmentName, "environment", plain,
        "use letters, digits, '_', '-' and '.', at most 63, not starting with '-' or '.'";
    /// A secret; also the variable that a step finds it in.
    SecretName, "secret", variable,
        "use letters, digits and '_', at most 100, not starting with a digit";
    /// A person or program with an account.
    UserName, "user", account,
        "use lower-case letters, digits, '_', '-' and '.', at most 39, starting with a letter or digit; pipeyard, nobody, runner, attempt, forge and me are taken";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_no_path_option_or_space() {
        for good in ["test", "unit-tests", "v1.2", "_x"] {
            assert!(NodeName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-x", ".", "../../x", "a/b", "a b", "한글", "a\n", &"x".repeat(64)] {
            assert!(NodeName::new(bad).is_err(), "{bad:?}");
        }
        assert!(RepoName::new("team/shop").is_ok());
        for bad in ["/shop", "team//shop", "team/../x", "a/"] {
            assert!(RepoName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_users_name_can_be_mistaken_for_no_other() {
        for good in ["ann", "ann.lee", "build-bot", "7"] {
            assert!(UserName::new(good).is_ok(), "{good}");
        }
        let long = "x".repeat(40);
        for bad in ["", "Ann", "pipeyard", "nobody", "-x", "_x", "a b", "a/b", "аnn", &long] {
            assert!(UserName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_checked_when_it_is_read() {
        assert!(serde_json::from_str::<SecretName>("\"DATABASE_PASSWORD\"").is_ok());
        assert!(serde_json::from_str::<SecretName>("\"1X\"").is_err());
    }
}
