//! Numbers of bytes as people write them: `512m`, `4g`, `1.5 GiB`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const UNITS: [(u64, &str, char); 4] =
    [(1 << 40, "TiB", 't'), (1 << 30, "GiB", 'g'), (1 << 20, "MiB", 'm'), (1 << 10, "KiB", 'k')];

/// A number of bytes. Units are powers of 1024, as Docker counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// The text isn't a number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} isn't a size: write a number with k, m, g or t, such as 512m or 4g")]
pub struct BadSize(String);

impl FromStr for ByteSize {
    type Err = BadSize;

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "checked to be in the range, and nobody means a fraction of a byte"
    )]
    fn from_str(text: &str) -> Result<Self, BadSize> {
        let bad = || BadSize(text.chars().take(40).collect());
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match lower[digits.len()..].trim_end_matches("ib").trim_end_matches('b') {
            "" => 1,
            unit => UNITS.iter().find(|(_, _, short)| unit == short.to_string()).ok_or_else(bad)?.0,
        };
        let digits = digits.trim_end();
        if !digits.starts_with(|c: char| c.is_ascii_digit())
            || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        {
            return Err(bad());
        }
        if let Ok(whole) = digits.parse::<u64>() {
            return whole.checked_mul(unit).map(Self).ok_or_else(bad);
        }
        let bytes = digits.parse::<f64>().map_err(|_| bad())? * unit as f64;
        if bytes < 9e18 { Ok(Self(bytes as u64)) } else { Err(bad()) }
    }
}

impl fmt::Display for ByteSize {
    #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(unit, ..)| self.0 >= *unit) {
            Some((unit, name, _)) if self.0.is_multiple_of(*unit) => {
                write!(f, "{} {name}", self.0 / unit)
            }
            Some((unit, name, _)) => write!(f, "{:.1} {name}", self.0 as f64 / *unit as f64),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(bytes) => Ok(Self(bytes)),
            Either::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("700", 700),
            ("512m", 512 << 20),
            ("4g", 4 << 30),
            ("4G", 4 << 30),
            ("4GB", 4 << 30),
            ("1.5 GiB", 3 << 29),
            ("2t", 2 << 40),
            ("8k", 8192),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "g", "-1g", "4x", "1e9", "4gg", "1.2.3m", "nan", "inf", "99999999t", ".5g"]
        {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_shown_short() {
        for (bytes, text) in [(700, "700 bytes"), (4 << 30, "4 GiB"), (3 << 19, "1.5 MiB")] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
