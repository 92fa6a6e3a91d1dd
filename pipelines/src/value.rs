//! The small languages inside of values: durations, shares, health limits, batches, paths.

use std::time::Duration;

use pipeyard_model::plan::{Batch, CanaryStep, HealthLimit};

use crate::MAX_SECONDS;

/// Parses `90s`, `10m`, `1h30m`; the error completes "… is not a duration: ".
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const BOUNDS: &str = "it must be from 1s to 24h";
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("it needs a unit; write `{text}s`, `{text}m` or `{text}h`"));
    }
    let mut rest = text;
    let mut seconds: u64 = 0;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let mut chars = tail.chars();
        let unit = match chars.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            _ => return Err("write it like `30s`, `10m` or `1h30m`".into()),
        };
        if number.is_empty() || unit >= last {
            return Err("write it like `30s`, `10m` or `1h30m`".into());
        }
        last = unit;
        let number: u64 = number.parse().map_err(|_| BOUNDS.to_owned())?;
        seconds = seconds.saturating_add(number.saturating_mul(unit));
        rest = chars.as_str();
    }
    if (1..=MAX_SECONDS).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(BOUNDS.into())
    }
}

/// Parses `10% for 5m`.
pub(crate) fn canary_step(text: &str) -> Result<CanaryStep, String> {
    let form = "write it like `10% for 5m`";
    let mut words = text.split_whitespace();
    let (Some(share), Some("for"), Some(hold), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(form.into());
    };
    let weight = share.strip_suffix('%').ok_or(form)?;
    let weight = whole(weight)
        .filter(|w| (1..=99).contains(w))
        .ok_or("the share must be from 1% to 99%; all of the traffic follows the last step")?;
    let hold = duration(hold).map_err(|why| format!("`{hold}` is not a duration: {why}"))?;
    Ok(CanaryStep { weight: u8::try_from(weight).unwrap_or(99), hold })
}

/// Parses `25% at a time` and `1 at a time`.
pub(crate) fn batch(text: &str) -> Result<Batch, &'static str> {
    let form = "write it like `25% at a time` or `1 at a time`";
    let words: Vec<&str> = text.split_whitespace().collect();
    let [size, "at", "a", "time"] = words[..] else { return Err(form) };
    match size.strip_suffix('%') {
        Some(share) => {
            let share = whole(share)
                .filter(|n| (1..=100).contains(n))
                .ok_or("the share must be from 1% to 100%")?;
            Ok(Batch::Percent(u8::try_from(share).unwrap_or(100)))
        }
        None => {
            let count = whole(size).ok_or(form)?;
            let count = u32::try_from(count).ok().filter(|n| (1..=10_000).contains(n));
            Ok(Batch::Count(count.ok_or("the number must be from 1 to 10000")?))
        }
    }
}

/// The names that a health limit may start with.
pub(crate) const MEASURES: &[&str] = &["error_rate", "p50_ms", "p90_ms", "p95_ms", "p99_ms"];

/// Why a health limit can't be read.
pub(crate) enum BadLimit {
    /// Its first word isn't one of [`MEASURES`].
    Measure(String),
    /// Anything else, in words.
    Form(String),
}

/// Parses `error_rate < 1%` and `p95_ms < 300`.
pub(crate) fn health_limit(text: &str) -> Result<HealthLimit, BadLimit> {
    let form = |why: &str| BadLimit::Form(why.to_owned());
    let at = text
        .find(['<', '>', '='])
        .ok_or_else(|| form("write it like `error_rate < 1%` or `p95_ms < 300`"))?;
    let (measure, rest) = text.split_at(at);
    let measure = measure.trim();
    if !MEASURES.contains(&measure) {
        return Err(BadLimit::Measure(measure.to_owned()));
    }
    let Some(limit) = rest.strip_prefix('<').filter(|rest| !rest.starts_with('=')) else {
        return Err(form("a limit is written with `<`"));
    };
    let limit = limit.trim();
    if measure == "error_rate" {
        let share = limit
            .strip_suffix('%')
            .ok_or_else(|| form("an error rate has a `%`, such as `error_rate < 1%`"))?;
        let share = decimal(share).filter(|share| *share > 0.0 && *share < 100.0);
        let share = share.ok_or_else(|| form("the rate must be above 0% and below 100%"))?;
        return Ok(HealthLimit::ErrorRate(share / 100.0));
    }
    let percentile = measure[1..3].parse().unwrap_or(95);
    let below = decimal(limit).ok_or_else(|| {
        form("a latency is a plain number of milliseconds, such as `p95_ms < 300`")
    })?;
    if !(below > 0.0 && below <= 600_000.0) {
        return Err(form("the latency must be above 0 and at most 600000 milliseconds"));
    }
    Ok(HealthLimit::LatencyMs { percentile, below })
}

fn whole(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Digits with at most one point; none of the words and exponents that floating point knows.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && text.len() <= 12;
    plain.then(|| text.parse().ok()).flatten()
}

/// Checks a path or pattern relative to the workspace; the error completes "… can't be kept: ".
pub(crate) fn workspace_path(text: &str, glob: bool) -> Result<(), String> {
    if text.len() > 1024 {
        return Err("it has more than 1024 bytes".into());
    }
    if text.starts_with(['/', '~']) {
        return Err("it is not relative to the workspace".into());
    }
    if text.chars().any(|c| c.is_control() || c == '\\') {
        return Err("it holds a control character or a backslash".into());
    }
    if text.split('/').any(|part| part == "..") {
        return Err("`..` leads out of the workspace".into());
    }
    if text.split('/').all(|part| part.is_empty() || part == ".") {
        return Err("it names the whole workspace".into());
    }
    if glob {
        path_glob(text).map_err(|error| format!("as a pattern, {}", error.kind()))?;
    }
    Ok(())
}

/// Parses a pattern of artifacts: `*` stops at a slash, `**` doesn't.
pub(crate) fn path_glob(pattern: &str) -> Result<globset::Glob, globset::Error> {
    globset::GlobBuilder::new(pattern).literal_separator(true).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_in_falling_order_and_bounds() {
        for (text, seconds) in
            [("1s", 1), ("10m", 600), ("1h30m", 5400), ("24h", 86_400), ("1h0m5s", 3605)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in [
            "",
            "0s",
            "0",
            "10",
            "-1s",
            "1.5h",
            "25h",
            "86401s",
            "5m1h",
            "1m1m",
            "m",
            "1d",
            "10 m",
            "99999999999999999999s",
            "9999999999999999h",
        ] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_limit_says_what_is_wrong_with_it() {
        assert!(
            matches!(health_limit("error_rate<0.5%"), Ok(HealthLimit::ErrorRate(r)) if (r - 0.005).abs() < 1e-12)
        );
        assert!(matches!(
            health_limit("p99_ms < 250.5"),
            Ok(HealthLimit::LatencyMs { percentile: 99, .. })
        ));
        for bad in [
            "error_rate < 1",
            "error_rate <= 1%",
            "error_rate > 1%",
            "error_rate < 0%",
            "error_rate < nan%",
            "p95_ms < inf",
            "p95_ms < 1e3",
            "p95_ms < 300ms",
            "p95_ms",
            "latency < 3",
            "p42_ms < 1",
        ] {
            assert!(health_limit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_stays_in_the_workspace() {
        for good in ["shop.tar.gz", "dist/**/*.js", "./a", "a b"] {
            assert_eq!(workspace_path(good, true), Ok(()), "{good}");
        }
        for bad in
            ["/etc/passwd", "../x", "a/../../b", "~/.ssh", ".", "./", "a\\b", "a\nb", "[", "a{b"]
        {
            assert!(workspace_path(bad, true).is_err(), "{bad:?}");
        }
    }
}
