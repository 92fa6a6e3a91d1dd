//! The licences of everything that is built in, against the list in deny.toml. cargo-deny checks more;
//! this holds where it isn't installed.

use std::collections::BTreeSet;

use anyhow::Context;

use crate::metadata::Metadata;

/// Every crate whose licence isn't allowed, in words.
pub(crate) fn refused(metadata: &Metadata) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(crate::root().join("deny.toml")).context("deny.toml")?;
    let deny: toml::Table = text.parse().context("deny.toml")?;
    let allowed =
        deny.get("licenses").and_then(|table| table.get("allow")).and_then(toml::Value::as_array);
    let allowed: BTreeSet<&str> = allowed
        .context("deny.toml has no licenses.allow")?
        .iter()
        .filter_map(toml::Value::as_str)
        .collect();
    let mut refused = Vec::new();
    for package in metadata.packages.values() {
        match &package.license {
            None => refused.push(format!("{} names no licence", package.name)),
            Some(licence) if !satisfied(licence, &allowed) => {
                refused.push(format!(
                    "{} has the licence {licence}, which deny.toml does not allow",
                    package.name
                ));
            }
            Some(_) => {}
        }
    }
    Ok(refused)
}

/// Whether the allowed licences satisfy an expression such as `(MIT OR Apache-2.0) AND Unicode-3.0`.
/// The old form `MIT/Apache-2.0` means OR.
fn satisfied(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    any_of(&words, &mut at, allowed) && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut good = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        good |= all_of(words, at, allowed);
    }
    good
}

fn all_of(words: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut good = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        good &= one(words, at, allowed);
    }
    good
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let good = any_of(words, at, allowed);
        *at += 1;
        return good;
    }
    // An exception only adds permissions.
    if words.get(*at) == Some(&"WITH") {
        *at += 2;
    }
    allowed.contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_licence_of_the_workspace_is_allowed() {
        let refused = refused(&crate::metadata::read().unwrap()).unwrap();
        assert!(refused.is_empty(), "{}", refused.join("\n"));
    }

    #[test]
    fn expressions_are_read_as_they_are_meant() {
        let allowed = BTreeSet::from(["MIT", "Apache-2.0"]);
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0/MIT",
            "(GPL-3.0 OR MIT) AND Apache-2.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(satisfied(good, &allowed), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(GPL-3.0 OR ISC) AND MIT", ""] {
            assert!(!satisfied(bad, &allowed), "{bad}");
        }
    }
}
