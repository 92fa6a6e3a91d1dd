//! The secrets of one fleet, made at its first start.

use std::path::Path;

use anyhow::Context;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::{Token, files::create_once};

/// An access key pair of this fleet's: its administrator's, or a host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKey {
    /// The public half, `AKIA...`.
    pub access_key_id: String,
    /// The secret half.
    pub secret_access_key: Token,
}

impl AccessKey {
    /// A new public half for this secret.
    #[must_use]
    pub fn mint(secret: Token) -> Self {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let mut rng = rand::rng();
        let letter = |_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]);
        let id: String = (0..16).map(letter).collect();
        Self { access_key_id: format!("AKIA{id}"), secret_access_key: secret }
    }
}

/// Everything that opens a fleet: `<data>/credentials.json`, mode 0600. Hosts have keys of their
/// own; a file of an earlier version holds an `agent_token` too, which opens nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Signs CodeDeploy requests.
    #[serde(flatten)]
    pub key: AccessKey,
    /// The bearer token of `/services`, `/traffic`, `/hosts` and `/bundles`.
    pub token: Token,
}

impl Credentials {
    /// Reads the credentials of the fleet in this data folder; makes them at the first start.
    ///
    /// # Errors
    /// When the file can't be read, made or understood.
    pub fn load(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("credentials.json");
        let bytes = create_once(&path, || Ok(serde_json::to_vec_pretty(&Self::mint())?))?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{} isn't a fleet's credentials", path.display()))
    }

    fn mint() -> Self {
        Self { key: AccessKey::mint(Token::mint()), token: Token::mint() }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn credentials_are_made_once_and_for_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let first = Credentials::load(folder.path()).unwrap();
        assert_eq!(Credentials::load(folder.path()).unwrap(), first);
        let mode = std::fs::metadata(folder.path().join("credentials.json")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        assert!(!format!("{first:?}").contains(first.token.reveal()));
    }
}
