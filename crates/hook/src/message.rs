//! The message: refs that moved, as JSON.

use std::{
    fs::File,
    io::Read as _,
    time::{SystemTime, UNIX_EPOCH},
};

/// The message of `OLD NEW REF` lines. A line of another form is no update.
pub(crate) fn of(lines: &str, delivery: Option<&str>) -> String {
    let mut out = String::from("{");
    if let Some(delivery) = delivery {
        out.push_str(&format!("\"delivery\":\"{delivery}\","));
    }
    out.push_str("\"updates\":[");
    let mut first = true;
    for line in lines.lines() {
        let mut parts = line.splitn(3, ' ');
        let (Some(old), Some(new), Some(reference)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        for (before, text) in [("{\"ref\":", reference), (",\"old\":", old), (",\"new\":", new)] {
            out.push_str(before);
            quote(text, &mut out);
        }
        out.push('}');
    }
    out.push_str("]}");
    out
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", control as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Names this push, so that a replay of the message is known: a UUID of version 7. Without random
/// numbers there is none, and the server makes one.
pub(crate) fn delivery() -> Option<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").ok()?.read_exact(&mut bytes).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis();
    bytes[..6].copy_from_slice(&u64::try_from(now).ok()?.to_be_bytes()[2..]);
    bytes[6] = 0x70 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Some([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ref_is_told_whatever_its_name_holds() {
        let lines =
            "a b refs/heads/main\n0 1 refs/heads/x \"y\" \\ 한\n\nshort\n2 3 refs/tags/\u{1}\n";
        assert_eq!(
            of(lines, Some("d")),
            "{\"delivery\":\"d\",\"updates\":[\
             {\"ref\":\"refs/heads/main\",\"old\":\"a\",\"new\":\"b\"},\
             {\"ref\":\"refs/heads/x \\\"y\\\" \\\\ 한\",\"old\":\"0\",\"new\":\"1\"},\
             {\"ref\":\"refs/tags/\\u0001\",\"old\":\"2\",\"new\":\"3\"}]}"
        );
        assert_eq!(of("", None), "{\"updates\":[]}");
    }

    #[test]
    fn a_delivery_is_a_uuid_of_version_7_and_its_own() {
        let (one, two) = (delivery().unwrap(), delivery().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 36);
        assert_eq!(&one[14..15], "7");
        assert!(matches!(&one[19..20], "8" | "9" | "a" | "b"), "{one}");
    }
}
