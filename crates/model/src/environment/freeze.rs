//! Weekly windows in which nothing starts.

use std::{fmt, str::FromStr, time::Duration};

use jiff::{
    ToSpan as _, Zoned,
    civil::{DateTime, Weekday},
    tz::TimeZone,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::BadRule;
use crate::{Timestamp, deployment::Reason};

/// A moment of the week: `Fri 17:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WeekTime {
    day: Weekday,
    hour: i8,
    minute: i8,
}

const DAYS: [(&str, &str, Weekday); 7] = [
    ("Mon", "Monday", Weekday::Monday),
    ("Tue", "Tuesday", Weekday::Tuesday),
    ("Wed", "Wednesday", Weekday::Wednesday),
    ("Thu", "Thursday", Weekday::Thursday),
    ("Fri", "Friday", Weekday::Friday),
    ("Sat", "Saturday", Weekday::Saturday),
    ("Sun", "Sunday", Weekday::Sunday),
];

impl WeekTime {
    /// The last such moment of the zone's calendar that isn't after `local`, as a calendar time.
    fn last_before(self, local: DateTime) -> Option<DateTime> {
        let back = i64::from(self.day.until(local.weekday()));
        let at = local.date().checked_sub(back.days()).ok()?.at(self.hour, self.minute, 0, 0);
        if at > local { at.checked_sub(7.days()).ok() } else { Some(at) }
    }

    /// The first such moment after `at`.
    fn next_after(self, at: DateTime) -> Option<DateTime> {
        let on = i64::from(at.weekday().until(self.day));
        let next = at.date().checked_add(on.days()).ok()?.at(self.hour, self.minute, 0, 0);
        if next <= at { next.checked_add(7.days()).ok() } else { Some(next) }
    }
}

impl fmt::Display for WeekTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short =
            DAYS.iter().find(|(_, _, day)| *day == self.day).map_or("", |(short, ..)| short);
        write!(f, "{short} {:02}:{:02}", self.hour, self.minute)
    }
}

impl FromStr for WeekTime {
    type Err = BadRule;
    fn from_str(text: &str) -> Result<Self, BadRule> {
        let bad = || {
            let shown: String = text.chars().take(40).collect();
            BadRule(format!(
                "{shown:?} is no time of the week; write a day and a time from 00:00 to 23:59, \"Fri 17:00\""
            ))
        };
        let (day, time) = text.trim().split_once(' ').ok_or_else(bad)?;
        let (_, _, day) = DAYS
            .into_iter()
            .find(|(short, long, _)| {
                day.eq_ignore_ascii_case(short) || day.eq_ignore_ascii_case(long)
            })
            .ok_or_else(bad)?;
        let (hour, minute) = time.trim().split_once(':').ok_or_else(bad)?;
        let number = |text: &str, below: i8| {
            let plain = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|n| plain && *n < below).ok_or_else(bad)
        };
        Ok(Self { day, hour: number(hour, 24)?, minute: number(minute, 60)? })
    }
}

impl TryFrom<String> for WeekTime {
    type Error = BadRule;
    fn try_from(text: String) -> Result<Self, BadRule> {
        text.parse()
    }
}

impl From<WeekTime> for String {
    fn from(time: WeekTime) -> Self {
        time.to_string()
    }
}

/// A zone by its name in the time zone database. Whether there is one of this name is checked when
/// a rule is written, not when it is read: a database may lose a zone later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Zone(String);

impl Zone {
    /// A zone of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    fn find(&self) -> Option<TimeZone> {
        TimeZone::get(&self.0).ok().filter(|zone| !zone.is_unknown())
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A weekly window in which nothing starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// Its first moment, `Fri 17:00`.
    #[schema(value_type = String)]
    pub begin: WeekTime,
    /// The first moment after it, `Mon 08:00`; it may lie in the next week.
    #[schema(value_type = String)]
    pub end: WeekTime,
    /// Whose clock is meant, `Asia/Seoul`.
    pub zone: Zone,
}

impl Freeze {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.begin == self.end {
            return Err(format!(
                "end: is {}, as `begin`; whether the whole week is meant or nothing isn't said",
                self.end
            ));
        }
        if self.zone.find().is_none() {
            let shown: String = self.zone.as_str().chars().take(80).collect();
            return Err(format!(
                "zone: {shown:?} is no time zone that this server knows; write a name of the time zone database, like Asia/Seoul, Europe/Berlin or UTC"
            ));
        }
        Ok(())
    }

    /// `Fri 17:00 to Mon 08:00 Asia/Seoul`.
    #[must_use]
    pub fn words(&self) -> String {
        format!("{} to {} {}", self.begin, self.end, self.zone.as_str())
    }

    /// Where this window covers `now`: its end.
    fn covers(&self, zone: &TimeZone, now: Timestamp) -> Option<Zoned> {
        let moment = now.to_jiff();
        // The window that began last by the calendar, and the one before: where the clock goes back,
        // the last one by the calendar may not have begun yet.
        let local = moment.to_zoned(zone.clone()).datetime().checked_add(3.hours()).ok()?;
        let last = self.begin.last_before(local)?;
        let before = last.checked_sub(7.days()).ok()?;
        [last, before].into_iter().find_map(|begin| {
            let end = self.end.next_after(begin)?;
            // A time that the clock shows twice, or never: the window is rather longer than shorter.
            let begins = zone.to_ambiguous_zoned(begin).earlier().ok()?;
            let ends = zone.to_ambiguous_zoned(end).later().ok()?;
            (begins.timestamp() <= moment && moment < ends.timestamp()).then_some(ends)
        })
    }
}

/// Nothing may start now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// The first moment after it; none when it isn't known or never comes.
    pub until: Option<Timestamp>,
    /// In words.
    pub reason: Reason,
}

/// Windows that follow each other without a gap are one; after so long it is without end.
const LONGEST: Duration = Duration::from_secs(9 * 24 * 3600);

/// Whether one of these windows covers `now`. Where it can't be known, it is frozen.
#[must_use]
pub fn frozen(windows: &[Freeze], now: Timestamp) -> Option<Frozen> {
    let mut first: Option<&Freeze> = None;
    let mut end: Option<Zoned> = None;
    let mut at = now;
    loop {
        let mut further: Option<Zoned> = None;
        for window in windows {
            let Some(zone) = window.zone.find() else {
                let text = format!(
                    "nothing can start: the time zone {:?} of the freeze {} isn't known to this server; install the time zone database or change the rule",
                    window.zone.as_str(),
                    window.words()
                );
                return Some(Frozen { until: None, reason: Reason::new("deploy_frozen", text) });
            };
            if let Some(ends) = window.covers(&zone, at)
                && further.as_ref().is_none_or(|end| ends.timestamp() > end.timestamp())
            {
                first.get_or_insert(window);
                further = Some(ends);
            }
        }
        let Some(ends) = further else { break };
        at = Timestamp::from(ends.timestamp());
        end = Some(ends);
        if at.since(now) > LONGEST {
            let text = "nothing can start: the freeze leaves no time open".to_owned();
            return Some(Frozen { until: None, reason: Reason::new("deploy_frozen", text) });
        }
    }
    let (window, end) = (first?, end?);
    let text = format!(
        "frozen until {} {} ({})",
        end.strftime("%a %Y-%m-%d %H:%M"),
        end.time_zone().iana_name().unwrap_or_else(|| window.zone.as_str()),
        window.words()
    );
    let until = Some(Timestamp::from(end.timestamp()));
    Some(Frozen { until, reason: Reason::new("deploy_frozen", text) })
}

#[cfg(test)]
#[path = "freeze_tests.rs"]
mod tests;
