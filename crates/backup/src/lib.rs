//! A backup: a folder of files by name, and a manifest, written last, that says what each of them is.
//!
//! What belongs into it, and in which order, is the business of those whose data it is: the server
//! and the fleet. Here is how a file gets in and out: only its owner can read it, its SHA-256 is
//! taken while it is copied, and nothing comes out that isn't what went in.

pub mod archive;
mod reader;
mod writer;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use reader::Reader;
pub use writer::Writer;

/// The manifest's name.
pub const MANIFEST: &str = "manifest.json";
/// The format that this version writes; it reads it and those before it.
pub const FORMAT: u32 = 1;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of Pipeyard that wrote it.
    pub version: String,
    /// When it was finished.
    pub made_at: String,
    /// Whose data it holds: `server`, `fleet`.
    pub parts: Vec<String>,
    /// Where the key is that opens the sealed secrets; a backup without a server has none.
    pub key: Option<Key>,
    /// Every file, by its name with `/`.
    pub files: BTreeMap<String, Entry>,
}

/// Where the key is that opens the sealed secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Key {
    /// In the backup: who has the backup can open the secrets.
    Included,
    /// Somewhere else; it is known by its SHA-256.
    Apart {
        /// In hex.
        sha256: String,
    },
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Bytes.
    pub size: u64,
    /// Of its bytes, in hex.
    pub sha256: String,
}

/// Whether a name can only mean a file below the backup's folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.contains('\0')
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests;
