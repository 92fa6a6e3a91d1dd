//! `pipeyard.toml`: one table for each role. A flag or environment variable wins over the file; an
//! unknown key is an error.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, de::DeserializeOwned};

/// Where the settings' file is.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ConfigFile {
    /// A file of settings, `pipeyard.toml`, with a table for each role.
    #[arg(long, env = "PIPEYARD_CONFIG_FILE", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    server: toml::Table,
    #[serde(default)]
    runner: toml::Table,
    #[serde(default)]
    fleet: toml::Table,
    #[serde(default)]
    proxy: toml::Table,
    #[serde(default)]
    agent: toml::Table,
}

impl ConfigFile {
    /// The settings of `role`: from the file, with `given` on top.
    ///
    /// # Errors
    /// When the file can't be read, has an unknown key, or lacks what the role needs.
    pub(crate) fn settings<T: DeserializeOwned>(
        &self,
        role: &str,
        given: toml::Table,
    ) -> anyhow::Result<T> {
        let mut table = match &self.config {
            Some(path) => read(path)?.into_role(role),
            None => toml::Table::new(),
        };
        table.extend(given);
        let from = self.config.as_ref().map(|p| format!(" of {}", p.display())).unwrap_or_default();
        toml::Value::Table(table)
            .try_into()
            .with_context(|| format!("the settings [{role}]{from} aren't right"))
    }
}

fn read(path: &Path) -> anyhow::Result<Tables> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("failed to read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} isn't a file of settings", path.display()))
}

impl Tables {
    fn into_role(self, role: &str) -> toml::Table {
        match role {
            "server" => self.server,
            "runner" => self.runner,
            "fleet" => self.fleet,
            "proxy" => self.proxy,
            _ => self.agent,
        }
    }
}

/// Collects what was given on the command line, as the settings name it.
#[derive(Debug, Default)]
pub(crate) struct Given(toml::Table);

impl Given {
    /// Adds a setting if it was given.
    #[must_use]
    pub(crate) fn with<T: Into<toml::Value>>(mut self, key: &str, value: Option<T>) -> Self {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), value.into());
        }
        self
    }

    /// The table.
    #[must_use]
    pub(crate) fn table(self) -> toml::Table {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use pipeyard_server::ServerConfig;

    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_and_an_unknown_key_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipeyard.toml");
        std::fs::write(&path, "[server]\nlisten = \"127.0.0.1:1\"\nrefs_seconds = 7\n").unwrap();
        let file = ConfigFile { config: Some(path.clone()) };
        let given = Given::default().with("listen", Some("127.0.0.1:2")).table();
        let config: ServerConfig = file.settings("server", given).unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.refs_seconds, 7);

        std::fs::write(&path, "[server]\nlissten = \"x\"\n").unwrap();
        let error = file.settings::<ServerConfig>("server", toml::Table::new()).unwrap_err();
        assert!(format!("{error:#}").contains("lissten"), "{error:#}");
        std::fs::write(&path, "[servr]\n").unwrap();
        assert!(file.settings::<ServerConfig>("server", toml::Table::new()).is_err());
    }
}
