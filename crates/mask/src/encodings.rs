//! The forms in which a secret may stand in a log.

use std::{collections::BTreeSet, fmt::Write};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};

use crate::MIN_LEN;

/// Adds every form of `secret` to `patterns`: the whole of it and each of its lines that is long
/// enough, raw and as base64 (standard and URL-safe, at each of the three offsets), hex, JSON, URI
/// and XML.
pub fn of(secret: &str, patterns: &mut BTreeSet<Vec<u8>>) {
    let mut parts: BTreeSet<&str> = BTreeSet::from([secret, secret.trim()]);
    parts.extend(secret.lines().map(str::trim));
    for part in parts.into_iter().filter(|part| part.len() >= MIN_LEN) {
        let mut add = |form: String| patterns.insert(form.into_bytes());
        add(part.to_owned());
        add(hex::encode(part));
        add(hex::encode_upper(part));
        add(json(part, |_| false));
        add(json(part, |letter| !letter.is_ascii()));
        add(json(part, |letter| matches!(letter, '<' | '>' | '&')));
        add(json(part, |_| false).replace('/', "\\/"));
        add(uri(part, b"-_.~", true));
        add(uri(part, b"-_.~", false));
        add(uri(part, b"-_.~!'()*", true));
        add(uri(part, b"-_.~", true).replace("%20", "+"));
        add(xml(part, "&quot;", "&apos;"));
        add(xml(part, "&quot;", "&#39;"));
        add(xml(part, "&#34;", "&#39;"));
        add(xml(part, "\"", "'"));
        add(xml(part, "&quot;", "'"));
        for offset in 0..3 {
            add(base64_at(part, offset, &STANDARD));
            add(base64_at(part, offset, &URL_SAFE));
        }
        add(STANDARD.encode(part));
        add(URL_SAFE.encode(part));
    }
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
