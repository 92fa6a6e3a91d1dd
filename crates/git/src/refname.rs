//! Names of refs that come from outside.

/// The text can't be the name of a ref that Pipeyard handles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ref's name {why}")]
pub struct BadRef {
    /// What is wrong with it.
    pub why: &'static str,
}

/// Checks a full name like `refs/heads/main` by Git's rules, and refuses besides what would
/// deceive a reader: names that look like options, and characters that change the direction of
/// writing or can't be seen.
///
/// # Errors
/// When the name breaks a rule.
pub fn check_ref(name: &str) -> Result<(), BadRef> {
    let bad = |why| Err(BadRef { why });
    if name.len() > 1024 {
        return bad("is longer than 1024 bytes");
    }
    if name.chars().any(|c| c.is_control() || hidden(c)) {
        return bad("holds a character that can't be seen");
    }
    let Some(rest) = name.strip_prefix("refs/") else {
        return bad("doesn't start with refs/");
    };
    if rest.split('/').any(|part| part.starts_with('-')) {
        return bad("has a part that looks like an option");
    }
    if !git2::Reference::is_valid_name(name) {
        return bad("breaks Git's rules for names");
    }
    Ok(())
}

/// The branch of `refs/heads/<branch>`; `None` for tags and everything else.
#[must_use]
pub fn branch_of(name: &str) -> Option<&str> {
    name.strip_prefix("refs/heads/").filter(|branch| !branch.is_empty())
}

/// Zero-width and direction-changing characters.
fn hidden(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deceiving_and_broken_names_are_refused() {
        for good in ["refs/heads/main", "refs/heads/feature/a-b", "refs/heads/한글", "refs/tags/v1"]
        {
            assert_eq!(check_ref(good), Ok(()), "{good}");
        }
        let bad = [
            "",
            "main",
            "--upload-pack=x",
            "refs/heads/--upload-pack=x",
            "refs/heads/a\nb",
            "refs/heads/a\0b",
            "refs/heads/a b",
            "refs/heads/../x",
            "refs/heads/a..b",
            "refs/heads/x.lock",
            "refs/heads/\u{202e}niam",
            "refs/heads/",
            "refs/heads/a//b",
            "refs/heads/a~1",
            "refs/heads/@{u}",
        ];
        for name in bad {
            assert!(check_ref(name).is_err(), "{name:?}");
        }
        // Harmless as text and never given to a shell.
        assert_eq!(check_ref("refs/heads/$(id)"), Ok(()));
    }

    #[test]
    fn a_tag_is_not_a_branch() {
        assert_eq!(branch_of("refs/heads/release/1"), Some("release/1"));
        assert_eq!(branch_of("refs/tags/main"), None);
    }
}
