//! The arrows of ARCHITECTURE.md: which crate may depend on which. What a crate needs for its tests
//! alone is free.

use crate::metadata::Metadata;

/// What each crate of ours may use of the others.
const OURS: &[(&str, &[&str])] = &[
    ("pipeyard-model", &[]),
    ("pipeyard-mask", &[]),
    ("pipeyard-private", &[]),
    ("pipeyard-home", &["pipeyard-private"]),
    ("pipeyard-trust", &[]),
    ("pipeyard-pipelines", &["pipeyard-model"]),
    ("pipeyard-dora", &["pipeyard-model"]),
    ("pipeyard-git", &["pipeyard-model"]),
    // The two that embed a program of ours build it in their build scripts.
    ("pipeyard-embed", &[]),
    ("pipeyard-hook", &[]),
    ("pipeyard-executor", &["pipeyard-model", "pipeyard-embed"]),
    ("pipeyard-deploy", &["pipeyard-model", "pipeyard-trust"]),
    ("pipeyard-listen", &[]),
    ("pipeyard-backup", &["pipeyard-private"]),
    (
        "pipeyard-fleet",
        &[
            "pipeyard-model",
            "pipeyard-private",
            "pipeyard-trust",
            "pipeyard-listen",
            "pipeyard-backup",
        ],
    ),
    ("pipeyard-api", &["pipeyard-model", "pipeyard-trust"]),
    ("pipeyard-store", &["pipeyard-model", "pipeyard-api", "pipeyard-dora"]),
    (
        "pipeyard-store-sqlite",
        &["pipeyard-model", "pipeyard-api", "pipeyard-dora", "pipeyard-store"],
    ),
    (
        "pipeyard-store-postgres",
        &["pipeyard-model", "pipeyard-api", "pipeyard-dora", "pipeyard-store"],
    ),
    (
        "pipeyard-server",
        &[
            "pipeyard-model",
            "pipeyard-trust",
            "pipeyard-private",
            "pipeyard-api",
            "pipeyard-pipelines",
            "pipeyard-store",
            "pipeyard-store-sqlite",
            "pipeyard-store-postgres",
            "pipeyard-git",
            "pipeyard-deploy",
            "pipeyard-dora",
            "pipeyard-listen",
            "pipeyard-backup",
        ],
    ),
    (
        "pipeyard-runner",
        &[
            "pipeyard-model",
            "pipeyard-trust",
            "pipeyard-private",
            "pipeyard-api",
            "pipeyard-git",
            "pipeyard-executor",
            "pipeyard-mask",
        ],
    ),
    (
        "pipeyard-cli",
        &[
            "pipeyard-model",
            "pipeyard-trust",
            "pipeyard-private",
            "pipeyard-api",
            "pipeyard-pipelines",
            "pipeyard-executor",
            "pipeyard-git",
            "pipeyard-embed",
        ],
    ),
    (
        "pipectl",
        &[
            "pipeyard-model",
            "pipeyard-trust",
            "pipeyard-private",
            "pipeyard-home",
            "pipeyard-api",
            "pipeyard-cli",
            "pipeyard-server",
            "pipeyard-runner",
            "pipeyard-fleet",
            "pipeyard-backup",
        ],
    ),
];

/// Crates that nothing depends on and that may look at everything.
const TOOLS: &[&str] = &["xtask", "pipeyard-tests", "pipeyard-needs", "pipeyard-bench"];

/// Libraries that only some of our crates may use directly; tools may use them all.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("sqlx", &["pipeyard-store-sqlite", "pipeyard-store-postgres", "pipeyard-fleet"]),
    ("axum", &["pipeyard-server", "pipeyard-fleet"]),
    ("bollard", &["pipeyard-executor", "pipeyard-fleet"]),
    ("git2", &["pipeyard-git"]),
    ("aws-sdk-codedeploy", &["pipeyard-deploy"]),
    ("aws-config", &["pipeyard-deploy"]),
];

/// Crates that stay free of an async runtime, through everything that they use.
const WITHOUT_TOKIO: &[&str] =
    &["pipeyard-model", "pipeyard-pipelines", "pipeyard-dora", "pipeyard-mask", "pipeyard-hook"];

/// Every edge that there is and should not be, in words.
pub(crate) fn broken(metadata: &Metadata) -> Vec<String> {
    let mut broken = Vec::new();
    let names: Vec<&str> = metadata.members.iter().map(|id| metadata.name(id)).collect();
    for id in &metadata.members {
        let name = metadata.name(id);
        if TOOLS.contains(&name) {
            continue;
        }
        let Some((_, may)) = OURS.iter().find(|(ours, _)| *ours == name) else {
            broken.push(format!(
                "{name} is a new crate: say in xtask/src/arrows.rs what it may depend on"
            ));
            continue;
        };
        for used in metadata.direct(id) {
            if names.contains(&used) && !may.contains(&used) {
                let may =
                    if may.is_empty() { "nothing of ours".to_owned() } else { may.join(", ") };
                broken.push(format!("{name} depends on {used}, and may only depend on {may}"));
            }
            if let Some((_, users)) = LIBRARIES.iter().find(|(library, _)| *library == used)
                && !users.contains(&name)
            {
                broken.push(format!(
                    "{name} depends on {used}, which is only for {}",
                    users.join(", ")
                ));
            }
        }
        if WITHOUT_TOKIO.contains(&name)
            && let Some(way) = metadata.way(id, "tokio")
        {
            broken.push(format!(
                "{name} may not need an async runtime, and does: {}",
                way.join(" -> ")
            ));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::metadata;

    #[test]
    fn every_arrow_of_the_workspace_holds() {
        let broken = broken(&metadata::read().unwrap());
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    /// The program in a job's container is built apart from the workspace; it knows libc alone.
    #[test]
    fn the_shim_uses_nothing_but_libc() {
        let text = std::fs::read_to_string(crate::root().join("crates/shim/Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        let used = manifest.get("dependencies").and_then(toml::Value::as_table).unwrap();
        assert_eq!(used.keys().map(String::as_str).collect::<Vec<_>>(), ["libc"]);
    }

    fn workspace(edges: &[(&str, &str)]) -> Metadata {
        let mut names: BTreeSet<&str> = edges.iter().flat_map(|(a, b)| [*a, *b]).collect();
        let package = |name: &&str| {
            let json = format!("{{\"name\": \"{name}\", \"id\": \"{name}\", \"license\": null}}");
            ((*name).to_owned(), serde_json::from_str(&json).unwrap())
        };
        let packages = names.iter().map(package).collect();
        let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in edges {
            needs.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        names.retain(|name| name.starts_with("pipe"));
        Metadata { packages, members: names.into_iter().map(str::to_owned).collect(), needs }
    }

    #[test]
    fn a_forbidden_edge_is_named() {
        let cases = [
            (
                &[("pipeyard-runner", "pipeyard-store")][..],
                "pipeyard-runner depends on pipeyard-store",
            ),
            (&[("pipeyard-server", "sqlx")], "pipeyard-server depends on sqlx"),
            (&[("pipeyard-dora", "jiff"), ("jiff", "tokio")], "pipeyard-dora -> jiff -> tokio"),
            (&[("pipeyard-new", "serde")], "pipeyard-new is a new crate"),
        ];
        for (edges, said) in cases {
            let broken = broken(&workspace(edges));
            assert!(broken.iter().any(|line| line.contains(said)), "{edges:?}: {broken:?}");
        }
        assert!(
            broken(&workspace(&[("pipeyard-server", "pipeyard-dora"), ("pipeyard-dora", "serde")]))
                .is_empty()
        );
    }
}
