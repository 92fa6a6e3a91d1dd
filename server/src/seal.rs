//! Encryption of what must not lie in the database in clear: secrets, webhook secrets, forge tokens.
//!
//! XChaCha20-Poly1305 with a random nonce for each value and a master key; where that lies is the
//! business of [`keys`](crate::keys). What a value is for is bound to it: a sealed value that is
//! copied to another row doesn't open. Keys have versions, and a sealed value says which one closed
//! it: the newest seals, all of them open.

use std::{collections::BTreeMap, fmt, path::Path};

use chacha20poly1305::{
    Key, KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// The first form of a sealed value, always of key 1: this byte, nonce, encrypted bytes with their tag.
const FIRST: u8 = 1;
/// The form of today: this byte, the key's version in two bytes, nonce, encrypted bytes with their tag.
const VERSIONED: u8 = 2;
const NONCE: usize = 24;

/// The value can't be opened: another key, another purpose, or changed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value can't be opened: it was sealed by another key or for another purpose")]
pub struct CantOpen;

/// Which master key; the first is 1.
pub type KeyVersion = u16;

/// The text holds no master keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is no key: write 64 hex digits, or a version, a space and 64 hex digits")]
pub struct NotKeys {
    /// Which line, from 1; 1 for an empty text.
    pub line: usize,
}

/// Seals and opens with the installation's master keys.
pub struct Seal {
    keys: BTreeMap<KeyVersion, [u8; 32]>,
    newest: KeyVersion,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(..)")
    }
}

impl Seal {
    /// Reads the master key at `path`; where there is none a new one is written, mode 0600. For
    /// tests: a server asks [`keys`](crate::keys), which makes no key where one is missing.
    ///
    /// # Errors
    /// When the file can't be read or written, or isn't a key.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        if !path.exists() {
            crate::keys::create(path)?;
        }
        Ok(Self::parse(&pipeyard_private::secret(path)?)?)
    }

    /// Reads master keys: one of 64 hex digits, which is version 1, or one a line behind its version.
    ///
    /// # Errors
    /// When a line isn't a key.
    pub fn parse(text: &str) -> Result<Self, NotKeys> {
        let mut keys = BTreeMap::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let (version, digits) = text.split_once(' ').unwrap_or(("1", text));
            let mut key = [0; 32];
            let version = version.parse::<KeyVersion>().ok().filter(|version| *version > 0);
            let read = hex::decode_to_slice(digits.trim(), &mut key);
            let (Some(version), Ok(())) = (version, read) else { return Err(NotKeys { line }) };
            if keys.insert(version, key).is_some() {
                return Err(NotKeys { line });
            }
        }
        let newest = keys.keys().next_back().copied().ok_or(NotKeys { line: 1 })?;
        Ok(Self { keys, newest })
    }

    /// With this key; for tests.
    #[must_use]
    pub fn with_key(key: [u8; 32]) -> Self {
        Self { keys: BTreeMap::from([(1, key)]), newest: 1 }
    }

    fn key(&self, version: KeyVersion) -> Option<&[u8; 32]> {
        self.keys.get(&version)
    }

    /// Encrypts `plain` for `purpose`, such as `secret:shop:TOKEN`, by the newest key.
    ///
    /// # Panics
    /// Never for values that fit into memory.
    #[must_use]
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE] = rand::random();
        let version = self.newest.to_be_bytes();
        let bound = bound(version, purpose);
        let payload = Payload { msg: plain, aad: &bound };
        let key = self.key(self.newest).expect("the newest key is one of the keys");
        let sealed = XChaCha20Poly1305::new(&Key::from(*key))
            .encrypt(&XNonce::from(nonce), payload)
            .expect("encryption fails only for more than 256 GiB");
        let mut out = Vec::with_capacity(1 + version.len() + NONCE + sealed.len());
        out.push(VERSIONED);
        out.extend_from_slice(&version);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        out
    }

    /// Decrypts what was sealed for the same purpose.
    ///
    /// # Errors
    /// When it was sealed by another key or for another purpose, or was changed.
    pub fn unseal(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, CantOpen> {
        let (form, rest) = sealed.split_first().ok_or(CantOpen)?;
        let (version, rest, bound) = match *form {
            FIRST => (1, rest, purpose.as_bytes().to_vec()),
            VERSIONED => {
                let (version, rest) = rest.split_first_chunk::<2>().ok_or(CantOpen)?;
                (KeyVersion::from_be_bytes(*version), rest, bound(*version, purpose))
            }
            _ => return Err(CantOpen),
        };
        let (nonce, body) = rest.split_first_chunk::<NONCE>().ok_or(CantOpen)?;
        let key = self.key(version).ok_or(CantOpen)?;
        let payload = Payload { msg: body, aad: &bound };
        XChaCha20Poly1305::new(&Key::from(*key))
            .decrypt(&XNonce::from(*nonce), payload)
            .map_err(|_| CantOpen)
    }

    /// A key for one purpose that doesn't reveal the master key. It is made of the oldest one, so that
    /// what was given away by it stays good.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length, and there is a key.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let oldest = self.keys.values().next().expect("there is a key");
        let mut mac = Hmac::<Sha256>::new_from_slice(oldest).expect("any length is good");
        mac.update(purpose.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// What a value is bound to: the key's version, so that it can't be said to be of another, and what
/// it is for.
fn bound(version: [u8; 2], purpose: &str) -> Vec<u8> {
    [&version[..], purpose.as_bytes()].concat()
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
    fn a_value_of_the_first_form_opens_still() {
        let (key, nonce) = ([7; 32], [5; NONCE]);
        let payload = Payload { msg: b"hunter22", aad: b"p" };
        let body =
            XChaCha20Poly1305::new(&Key::from(key)).encrypt(&XNonce::from(nonce), payload).unwrap();
        let sealed = [&[FIRST][..], &nonce, &body].concat();
        assert_eq!(Seal::with_key(key).unseal("p", &sealed).unwrap(), b"hunter22");
    }

    #[test]
    fn the_newest_key_seals_and_every_key_opens() {
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        let first = Seal::parse(&one).unwrap();
        let both = Seal::parse(&format!("1 {one}\n2 {two}\n")).unwrap();
        let old = first.seal("p", b"old");
        let new = both.seal("p", b"new");
        assert_eq!(both.unseal("p", &old).unwrap(), b"old");
        assert_eq!(both.unseal("p", &new).unwrap(), b"new");
        assert_eq!(first.unseal("p", &new), Err(CantOpen));
        assert_eq!(both.derive("x"), first.derive("x"));
        for bad in ["", "x", &one[1..], &format!("0 {one}"), &format!("{one}\n{two}"), "2 22"] {
            assert!(Seal::parse(bad).is_err(), "{bad:?}");
        }
    }
}
