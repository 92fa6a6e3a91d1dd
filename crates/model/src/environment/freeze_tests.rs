use super::*;

fn window(begin: &str, end: &str, zone: &str) -> Freeze {
    Freeze { begin: begin.parse().unwrap(), end: end.parse().unwrap(), zone: Zone::new(zone) }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Until when, or `open`.
fn until(windows: &[Freeze], now: &str) -> String {
    match frozen(windows, at(now)) {
        None => "open".into(),
        Some(Frozen { until: Some(until), .. }) => until.to_string(),
        Some(Frozen { until: None, reason }) => reason.message,
    }
}

#[test]
fn a_window_may_cross_the_weeks_end_and_follows_its_zone() {
    // 2026-11-27 is a Friday. Seoul is nine hours ahead.
    let weekend = [window("Fri 17:00", "Mon 08:00", "Asia/Seoul")];
    for (now, answer) in [
        ("2026-11-27T07:59:59Z", "open"),
        ("2026-11-27T08:00:00Z", "2026-11-29T23:00:00Z"),
        ("2026-11-28T12:00:00Z", "2026-11-29T23:00:00Z"),
        ("2026-11-29T22:59:59.999999Z", "2026-11-29T23:00:00Z"),
        ("2026-11-29T23:00:00Z", "open"),
        ("2026-12-03T12:00:00Z", "open"),
    ] {
        assert_eq!(until(&weekend, now), answer, "{now}");
    }
    let words = frozen(&weekend, at("2026-11-28T12:00:00Z")).unwrap().reason;
    assert_eq!(words.code, "deploy_frozen");
    assert_eq!(
        words.message,
        "frozen until Mon 2026-11-30 08:00 Asia/Seoul (Fri 17:00 to Mon 08:00 Asia/Seoul)"
    );
}

#[test]
fn a_night_inside_of_one_week_is_frozen_too() {
    let lunch = [window("Wed 12:00", "Wed 13:30", "UTC")];
    assert_eq!(until(&lunch, "2026-11-25T12:30:00Z"), "2026-11-25T13:30:00Z");
    assert_eq!(until(&lunch, "2026-11-25T13:30:00Z"), "open");
    assert_eq!(until(&lunch, "2026-11-24T12:30:00Z"), "open");
    // Ends on the day it begins, a week later.
    let long = [window("Wed 13:30", "Wed 12:00", "UTC")];
    assert_eq!(until(&long, "2026-11-25T12:30:00Z"), "open");
    assert_eq!(until(&long, "2026-11-25T13:30:00Z"), "2026-12-02T12:00:00Z");
    assert_eq!(until(&long, "2026-12-02T11:59:00Z"), "2026-12-02T12:00:00Z");
}

#[test]
fn a_clock_that_goes_back_makes_the_window_longer_and_not_two() {
    // In Berlin 2026-10-25 has 02:00 to 03:00 twice: +02:00, then +01:00.
    let night = [window("Sun 00:00", "Sun 02:30", "Europe/Berlin")];
    let end = "2026-10-25T01:30:00Z";
    for now in ["2026-10-24T22:00:00Z", "2026-10-25T00:45:00Z", "2026-10-25T01:15:00Z"] {
        assert_eq!(until(&night, now), end, "{now}");
    }
    assert_eq!(until(&night, end), "open");
    let begins = [window("Sun 02:30", "Sun 04:00", "Europe/Berlin")];
    assert_eq!(until(&begins, "2026-10-25T00:29:00Z"), "open");
    for now in ["2026-10-25T00:30:00Z", "2026-10-25T01:15:00Z", "2026-10-25T02:59:00Z"] {
        assert_eq!(until(&begins, now), "2026-10-25T03:00:00Z", "{now}");
    }
}

#[test]
fn a_clock_that_goes_on_skips_no_window() {
    // In New York 2026-03-08 has no 02:00 to 03:00.
    let night = [window("Sat 22:00", "Sun 02:30", "America/New_York")];
    assert_eq!(until(&night, "2026-03-08T06:59:00Z"), "2026-03-08T07:30:00Z");
    assert_eq!(until(&night, "2026-03-08T07:30:00Z"), "open");
    let gone = [window("Sun 02:10", "Sun 03:30", "America/New_York")];
    assert_eq!(until(&gone, "2026-03-08T07:05:00Z"), "2026-03-08T07:30:00Z");
}

#[test]
fn windows_that_touch_are_one() {
    let two = [window("Fri 17:00", "Sat 00:00", "UTC"), window("Sat 00:00", "Sun 12:00", "UTC")];
    assert_eq!(until(&two, "2026-11-27T18:00:00Z"), "2026-11-29T12:00:00Z");
    let always = [window("Mon 00:00", "Thu 00:00", "UTC"), window("Thu 00:00", "Mon 00:00", "UTC")];
    assert_eq!(
        until(&always, "2026-11-27T18:00:00Z"),
        "nothing can start: the freeze leaves no time open"
    );
}

#[test]
fn a_zone_that_is_gone_freezes_rather_than_opens() {
    let gone = [window("Wed 12:00", "Wed 13:30", "Asia/Atlantis")];
    assert!(until(&gone, "2026-11-27T18:00:00Z").contains("Asia/Atlantis"));
    assert!(gone[0].check().unwrap_err().starts_with("zone: \"Asia/Atlantis\""));
    assert!(window("Fri 17:00", "fri 17:00", "UTC").check().is_err());
}

#[test]
fn times_of_the_week_are_read_strictly() {
    for (text, shown) in
        [("Fri 17:00", "Fri 17:00"), ("friday 07:05", "Fri 07:05"), ("SUN 00:00", "Sun 00:00")]
    {
        assert_eq!(text.parse::<WeekTime>().unwrap().to_string(), shown);
    }
    for bad in [
        "",
        "Fri",
        "17:00",
        "Fri 24:00",
        "Fri 7:00",
        "Fri 17:60",
        "Fri 17",
        "Fry 17:00",
        "Fri 17:00:00",
        "Fri +1:00",
    ] {
        assert!(bad.parse::<WeekTime>().is_err(), "{bad}");
    }
}
