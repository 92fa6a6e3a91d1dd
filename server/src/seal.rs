//! Encryption of what must not lie in the database in clear: secrets, webhook secrets, forge tokens.
//!
//! XChaCha20-Poly1305 with a random nonce for each value and one master key, a file beside the
//! database that only its owner may read. What a value is for is bound to it: a sealed value that
//! is copied to another row doesn't open. There is no rotation yet; the first byte leaves room.

use std::{fmt, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use anyhow::Context as _;
use chacha20poly1305::{
    Key, KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// The form of a sealed value: version, nonce, then the encrypted bytes with their tag.
const VERSION: u8 = 1;
const NONCE: usize = 24;

/// The value can't be opened: another key, another purpose, or changed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value can't be opened: it was sealed by another key or for another purpose")]
pub struct CantOpen;

/// Seals and opens with the installation's master key.
pub struct Seal {
    cipher: XChaCha20Poly1305,
    key: [u8; 32],
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(..)")
    }
}

impl Seal {
    /// Reads the master key at `path`; at the first start a new one is written there, mode 0600.
    ///
    /// # Errors
    /// When the file can't be read or written, is readable by others, or isn't a key.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create(path).with_context(|| format!("failed to create {}", path.display()))?
            }
            Err(error) => {
                return Err(error).with_context(|| format!("failed to read {}", path.display()));
            }
        };
        let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
        anyhow::ensure!(
            mode.trailing_zeros() >= 6,
            "{} is open to others (mode {mode:o}): it protects every secret. Run: chmod 600 {}",
            path.display(),
            path.display()
        );
        let mut key = [0; 32];
        hex::decode_to_slice(text.trim(), &mut key).map_err(|_| {
            anyhow::anyhow!("{} doesn't hold a key of 64 hex digits", path.display())
        })?;
        Ok(Self::with_key(key))
    }

    /// With this key; for tests.
    #[must_use]
    pub fn with_key(key: [u8; 32]) -> Self {
        Self { cipher: XChaCha20Poly1305::new(&Key::from(key)), key }
    }

    /// Encrypts `plain` for `purpose`, such as `secret:shop:TOKEN`.
    ///
    /// # Panics
    /// Never for values that fit into memory.
    #[must_use]
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE] = rand::random();
        let payload = Payload { msg: plain, aad: purpose.as_bytes() };
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("encryption fails only for more than 256 GiB");
        let mut out = Vec::with_capacity(1 + NONCE + sealed.len());
        out.push(VERSION);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        out
    }

    /// Decrypts what was sealed for the same purpose.
    ///
    /// # Errors
    /// When it was sealed by another key or for another purpose, or was changed.
    pub fn unseal(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, CantOpen> {
        let (version, rest) = sealed.split_first().ok_or(CantOpen)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE>().ok_or(CantOpen)?;
        if *version != VERSION {
            return Err(CantOpen);
        }
        let payload = Payload { msg: body, aad: purpose.as_bytes() };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| CantOpen)
    }

    /// A key for one purpose that doesn't reveal the master key.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("any length is good");
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// Writes a new key and syncs it, so that nothing is ever sealed by a key that a crash forgets.
fn create(path: &Path) -> std::io::Result<String> {
    let key: [u8; 32] = rand::random();
    let text = hex::encode(key);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_value_opens_only_with_its_key_and_purpose_and_unchanged() {
        let seal = Seal::with_key([7; 32]);
        let sealed = seal.seal("secret:shop:TOKEN", b"hunter22");
        assert_eq!(seal.unseal("secret:shop:TOKEN", &sealed).unwrap(), b"hunter22");
        assert_eq!(seal.unseal("secret:shop:OTHER", &sealed), Err(CantOpen));
        assert_eq!(Seal::with_key([8; 32]).unseal("secret:shop:TOKEN", &sealed), Err(CantOpen));
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(seal.unseal("secret:shop:TOKEN", &changed), Err(CantOpen), "byte {place}");
        }
        assert_eq!(seal.unseal("secret:shop:TOKEN", b""), Err(CantOpen));
    }

    #[test]
    fn the_same_value_is_sealed_differently_each_time() {
        let seal = Seal::with_key([7; 32]);
        assert_ne!(seal.seal("p", b"value"), seal.seal("p", b"value"));
    }

    #[test]
    fn the_key_survives_a_restart_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let sealed = Seal::open(&path).unwrap().seal("p", b"value");
        assert_eq!(Seal::open(&path).unwrap().unseal("p", &sealed).unwrap(), b"value");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        Seal::open(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Seal::open(&path).unwrap_err().to_string().contains("chmod 600"));
    }
}
