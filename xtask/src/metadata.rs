//! What `cargo metadata` says about the crates, as far as the checks need it.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use anyhow::{Context, ensure};
use serde::Deserialize;

/// The crates and who depends on whom.
#[derive(Debug)]
pub(crate) struct Metadata {
    /// By id.
    pub(crate) packages: BTreeMap<String, Package>,
    /// Ids of the crates of this workspace.
    pub(crate) members: BTreeSet<String>,
    /// From a crate's id to those that it depends on, other than for its tests.
    pub(crate) needs: BTreeMap<String, BTreeSet<String>>,
}

/// A crate.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// As its author gives it.
    pub(crate) license: Option<String>,
    id: String,
}

#[derive(Deserialize)]
struct Raw {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dep>,
}

#[derive(Deserialize)]
struct Dep {
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

#[derive(Deserialize)]
struct DepKind {
    kind: Option<String>,
}

/// Asks cargo. What it reads are the crates of every platform, which a build doesn't fetch: what isn't
/// in the cargo home yet is fetched, and only then is the network asked.
pub(crate) fn read() -> anyhow::Result<Metadata> {
    let output = ask(&["--offline"]).or_else(|offline| {
        ask(&[]).map_err(|online| {
            anyhow::anyhow!(
                "{online:#}; without the network: {offline:#}; fix: cargo fetch --locked"
            )
        })
    })?;
    let raw: Raw = serde_json::from_slice(&output).context("cargo metadata has another form")?;
    let needs = raw.resolve.nodes.into_iter().map(|node| {
        let real = |dep: &Dep| dep.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"));
        (node.id, node.deps.into_iter().filter(real).map(|dep| dep.pkg).collect())
    });
    Ok(Metadata {
        needs: needs.collect(),
        packages: raw.packages.into_iter().map(|package| (package.id.clone(), package)).collect(),
        members: raw.workspace_members.into_iter().collect(),
    })
}

fn ask(arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked"])
        .args(arguments)
        .current_dir(crate::root())
        .output()
        .context("cargo metadata does not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata: {}", said.trim());
    Ok(output.stdout)
}

impl Metadata {
    /// The name of a crate.
    pub(crate) fn name<'m>(&'m self, id: &'m str) -> &'m str {
        self.packages.get(id).map_or(id, |package| &package.name)
    }

    /// The names that a crate depends on directly.
    pub(crate) fn direct<'m>(&'m self, id: &str) -> impl Iterator<Item = &'m str> {
        self.needs.get(id).into_iter().flatten().map(|id| self.name(id))
    }

    /// The way from a crate to one of this name, if it depends on it at all.
    pub(crate) fn way(&self, from: &str, to: &str) -> Option<Vec<&str>> {
        let mut came: BTreeMap<&str, &str> = BTreeMap::new();
        let mut todo = vec![self.packages.get_key_value(from)?.0.as_str()];
        while let Some(at) = todo.pop() {
            if self.name(at) == to {
                let mut way = vec![self.name(at)];
                let mut back = at;
                while let Some(before) = came.get(back) {
                    way.insert(0, self.name(before));
                    back = before;
                }
                return Some(way);
            }
            for next in self.needs.get(at).into_iter().flatten() {
                if next != from && !came.contains_key(next.as_str()) {
                    came.insert(next, at);
                    todo.push(next);
                }
            }
        }
        None
    }
}
