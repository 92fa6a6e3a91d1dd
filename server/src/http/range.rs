//! The `Range` header: one range of bytes; several at once are answered with the whole.

use std::ops::Range;

/// What a client wants of `size` bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// No range, one that isn't understood, or several.
    Whole,
    /// From start to before end.
    Part(Range<u64>),
    /// Nothing that is there.
    Unsatisfiable,
}

/// Reads the header's value.
pub(crate) fn parse(value: Option<&str>, size: u64) -> Wanted {
    let Some(set) = value.and_then(|value| value.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    let Some((first, last)) = set.split_once('-') else { return Wanted::Whole };
    let (first, last) = (first.trim(), last.trim());
    let number = |text: &str| text.parse::<u64>().ok();
    let part = match (first.is_empty(), last.is_empty()) {
        (false, true) => number(first).map(|first| first..size),
        (false, false) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => {
                Some(first..size.min(last.saturating_add(1)))
            }
            _ => None,
        },
        (true, false) => number(last).map(|count| size.saturating_sub(count)..size),
        (true, true) => None,
    };
    match part {
        None => Wanted::Whole,
        Some(part) if part.start >= part.end => Wanted::Unsatisfiable,
        Some(part) => Wanted::Part(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (value, wanted) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-", Wanted::Part(2..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-30", Wanted::Part(0..10)),
            ("bytes=5-100", Wanted::Part(5..10)),
            ("bytes=5-18446744073709551615", Wanted::Part(5..10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=0-1,4-5", Wanted::Whole),
            ("bytes=x-", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
        ] {
            assert_eq!(parse(Some(value), 10), wanted, "{value}");
        }
        assert_eq!(parse(None, 10), Wanted::Whole);
        assert_eq!(parse(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }
}
