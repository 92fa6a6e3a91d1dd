//! One file by noun. A command asks the server, prints one result, and tells the outcome.

pub mod artifacts;
pub mod audit;
pub mod deploy;
pub mod doctor;
pub mod dora;
pub mod env_rules;
pub mod envs;
pub mod explain;
pub mod fleet;
pub mod hook;
pub mod incidents;
pub mod lint;
mod lint_deploys;
pub mod login;
pub mod logs;
pub mod notifications;
pub mod repos;
mod run_tests;
pub mod runners;
pub mod runs;
pub mod secrets;
pub mod tokens;
pub mod users;
pub mod wait;

use std::time::Duration;

use pipeyard_model::{Clock as _, SystemClock, Timestamp};
use serde_json::Value;

use crate::output::cell;

/// How long ago, in the largest unit that says enough: `12s`, `5m`, `3h`, `8d`.
pub(crate) fn age(value: &Value) -> String {
    let Some(at) = value.as_str().and_then(|t| t.parse::<Timestamp>().ok()) else {
        return "-".into();
    };
    short(SystemClock.now().since(at))
}

/// The time between two fields, up to now if the second is missing.
pub(crate) fn took(from: &Value, to: &Value) -> String {
    let Some(from) = from.as_str().and_then(|t| t.parse::<Timestamp>().ok()) else {
        return "-".into();
    };
    let to =
        to.as_str().and_then(|t| t.parse::<Timestamp>().ok()).unwrap_or_else(|| SystemClock.now());
    short(to.since(from))
}

/// A duration for people.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=9 => format!("{:.1}s", duration.as_secs_f64()),
        10..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        7200..=172_799 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Where it stands: the conclusion if there is one, otherwise the status.
pub(crate) fn state(row: &Value) -> String {
    if row["conclusion"].is_string() { cell(&row["conclusion"]) } else { cell(&row["status"]) }
}

/// The first digits of a SHA.
pub(crate) fn sha(value: &Value) -> String {
    cell(value).chars().take(10).collect()
}

/// Why, as one line.
pub(crate) fn reason(row: &Value) -> String {
    row["reason"]["message"].as_str().and_then(|m| m.lines().next()).unwrap_or("").to_owned()
}

/// Parses `90s`, `10m`, `2h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 =
        digits.parse().map_err(|_| format!("{text:?} isn't a duration such as 90s, 10m or 2h"))?;
    let factor = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("{unit:?} isn't a unit: use s, m or h")),
    };
    number
        .checked_mul(factor)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?} is too long"))
}

/// Whether a row has all of these `key=value` fields.
pub(crate) fn matches(row: &Value, filters: &[(String, String)]) -> bool {
    filters.iter().all(|(key, want)| {
        cell(row.pointer(&format!("/{}", key.replace('.', "/"))).unwrap_or(&Value::Null)) == *want
    })
}

/// Parses `key=value`.
pub(crate) fn filter(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} isn't KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "x", "5d", "99999999999999999999h", "18446744073709551615h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(short(Duration::from_millis(1234)), "1.2s");
        assert_eq!(short(Duration::from_secs(305)), "5m05s");
    }
}
