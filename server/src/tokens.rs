//! Secrets that Pipeyard makes: API tokens, session cookies, runner keys, one-time logins.
//!
//! They carry 256 random bits (a one-time login, which people may have to type, 100), so the store
//! keeps a plain SHA-256 of them.

use sha2::{Digest as _, Sha256};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Crockford's alphabet: no letter that looks like a digit.
const TYPEABLE: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// An API token of a person.
pub const API_TOKEN: &str = "ppt_";
/// A browser's session.
pub const SESSION: &str = "pps_";

/// `prefix` and 43 random characters of base62: 256 bits.
#[must_use]
pub fn new(prefix: &str) -> String {
    let mut text = String::with_capacity(prefix.len() + 43);
    text.push_str(prefix);
    while text.len() < prefix.len() + 43 {
        // Bytes of 248 and above would favour the first letters.
        let byte: u8 = rand::random();
        if byte < 248 {
            text.push(char::from(BASE62[usize::from(byte % 62)]));
        }
    }
    text
}

/// A one-time login, `K7QX2-9M4ZD-...`: four groups of five, 100 bits.
#[must_use]
pub fn new_one_time_login() -> String {
    let mut text = String::with_capacity(23);
    for group in 0..4 {
        if group > 0 {
            text.push('-');
        }
        for _ in 0..5 {
            let byte: u8 = rand::random();
            text.push(char::from(TYPEABLE[usize::from(byte % 32)]));
        }
    }
    text
}

/// What the store keeps of a secret.
#[must_use]
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// What the store keeps of a code that a person presents: API tokens as they are, one-time logins
/// in any case, with any spaces and dashes, and with O, I and L for the digits they look like.
#[must_use]
pub fn hash_presented(code: &str) -> [u8; 32] {
    let code = code.trim();
    if code.starts_with(API_TOKEN) {
        return hash(code);
    }
    let plain: String = code
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect();
    hash(&plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_differ() {
        let (a, b) = (new(API_TOKEN), new(API_TOKEN));
        assert_ne!(a, b);
        assert_eq!(a.len(), 47);
        assert!(
            a.strip_prefix("ppt_").is_some_and(|t| t.bytes().all(|b| b.is_ascii_alphanumeric()))
        );
    }

    #[test]
    fn a_one_time_login_may_be_typed_carelessly() {
        let code = new_one_time_login();
        let careless = format!(" {} ", code.to_lowercase().replace('-', " ").replace('0', "o"));
        assert_eq!(hash_presented(&code), hash_presented(&careless));
        assert_ne!(hash_presented(&code), hash_presented(&new_one_time_login()));
    }
}
