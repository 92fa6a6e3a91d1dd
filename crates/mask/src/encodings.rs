//! The forms in which a secret may stand in a log.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};

use crate::MIN_LEN;

/// Whether tools break a form into lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaks {
    /// It stands in one piece.
    Never,
    /// A line may end after any of its letters.
    Anywhere,
}

/// The forms of secrets.
pub type Patterns = BTreeMap<Vec<u8>, Breaks>;

/// Adds every form of `secret` to `patterns`: the whole of it and each of its lines that is long
/// enough, raw and as base64 (standard and URL-safe, at each of the three offsets), hex, JSON, URI
/// and XML.
pub fn of(secret: &str, patterns: &mut Patterns) {
    let mut parts: BTreeSet<&str> = BTreeSet::from([secret, secret.trim()]);
    parts.extend(secret.lines().map(str::trim));
    for part in parts.into_iter().filter(|part| part.len() >= MIN_LEN) {
        for form in in_one_piece(part) {
            patterns.entry(form.into_bytes()).or_insert(Breaks::Never);
        }
        for form in in_lines(part) {
            patterns.insert(form.into_bytes(), Breaks::Anywhere);
        }
    }
}

fn in_one_piece(part: &str) -> [String; 14] {
    [
        part.to_owned(),
        json(part, |_| false),
        json(part, |letter| !letter.is_ascii()),
        json(part, |letter| matches!(letter, '<' | '>' | '&')),
        json(part, |_| false).replace('/', "\\/"),
        uri(part, b"-_.~", true),
        uri(part, b"-_.~", false),
        uri(part, b"-_.~!'()*", true),
        uri(part, b"-_.~", true).replace("%20", "+"),
        xml(part, "&quot;", "&apos;"),
        xml(part, "&quot;", "&#39;"),
        xml(part, "&#34;", "&#39;"),
        xml(part, "\"", "'"),
        xml(part, "&quot;", "'"),
    ]
}

fn in_lines(part: &str) -> [String; 10] {
    [
        hex::encode(part),
        hex::encode_upper(part),
        base64_at(part, 0, &STANDARD),
        base64_at(part, 1, &STANDARD),
        base64_at(part, 2, &STANDARD),
        base64_at(part, 0, &URL_SAFE),
        base64_at(part, 1, &URL_SAFE),
        base64_at(part, 2, &URL_SAFE),
        STANDARD.encode(part),
        URL_SAFE.encode(part),
    ]
}

/// The letters of base64 that depend on `part` alone when `offset` other bytes (modulo 3) precede it
/// and any others follow.
fn base64_at(part: &str, offset: usize, engine: &impl Engine) -> String {
    let mut bytes = vec![0; offset];
    bytes.extend_from_slice(part.as_bytes());
    let begin = (offset * 8).div_ceil(6);
    let end = bytes.len() * 8 / 6;
    engine.encode(&bytes)[begin..end].to_owned()
}

/// As in a JSON string; `escaped` letters besides those that must be.
fn json(part: &str, escaped: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(part.len() + 8);
    for letter in part.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            letter if letter < ' ' || escaped(letter) => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    // Writing to a string can't fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            letter => out.push(letter),
        }
    }
    out
}

fn uri(part: &str, kept: &[u8], upper: bool) -> String {
    let mut out = String::with_capacity(part.len() * 2);
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            out.push(char::from(byte));
        } else if upper {
            let _ = write!(out, "%{byte:02X}");
        } else {
            let _ = write!(out, "%{byte:02x}");
        }
    }
    out
}

fn xml(part: &str, quote: &str, apostrophe: &str) -> String {
    let mut out = String::with_capacity(part.len() + 8);
    for letter in part.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str(quote),
            '\'' => out.push_str(apostrophe),
            letter => out.push(letter),
        }
    }
    out
}
