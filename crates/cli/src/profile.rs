//! Profiles: which server, which token. One file, readable by its owner only.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// The name that is used when nobody says another.
pub const DEFAULT: &str = "default";

/// The file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profiles {
    /// By name.
    #[serde(default)]
    pub profiles: BTreeMap<String, Profile>,
}

/// One server and how to sign in.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its address.
    pub server: String,
    /// The API token.
    pub token: String,
    /// Who it belongs to.
    pub user: String,
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Profile({} at {})", self.user, self.server)
    }
}

/// Where the file is: `$XDG_CONFIG_HOME/pipeyard/config.toml`, or below `~/.config`.
#[must_use]
pub fn default_path() -> PathBuf {
    std::env::var_os("XDG_CONFIG_HOME")
        .filter(|d| !d.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))
        .unwrap_or_default()
        .join("pipeyard/config.toml")
}

impl Profiles {
    /// Reads the file; none is an empty one.
    ///
    /// # Errors
    /// When it can't be read or isn't what it should be.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|e| {
                Failure::usage(format!("failed to read {}: {}", path.display(), e.message()))
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Failure::usage(format!("failed to read {}: {e}", path.display()))),
        }
    }

    /// Replaces the file as a whole.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let fail = |e: &dyn std::fmt::Display| {
            Failure::usage(format!("failed to write {}: {e}", path.display()))
        };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(|e| fail(&e))?;
        }
        let text = toml::to_string(self).map_err(|e| fail(&e))?;
        let next = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)
            .map_err(|e| fail(&e))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| fail(&e))?;
        fs::rename(&next, path).map_err(|e| fail(&e))
    }
}
