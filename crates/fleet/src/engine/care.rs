//! What one container of a serving set needs, and whether a service serves. Pure: what is seen and
//! the time are passed in.
//!
//! What is down is brought back at once. What goes down again and again is tried in pauses that
//! grow, by turns as it is and made anew, so that a broken program costs little and a broken
//! container doesn't stand in the way of a whole program.

use std::time::{Duration, Instant};

/// What is seen of one place of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// It answers its health check.
    Healthy,
    /// It runs and doesn't answer; here is what it did instead.
    Sick(String),
    /// It ended, and Docker is about to start it again.
    Restarting(String),
    /// It ended, and Docker leaves it so: stopped by somebody, or its start failed.
    Down(String),
    /// Frozen by somebody.
    Paused,
    /// It runs, but was taken out of its network: nobody can reach it.
    Detached,
    /// It was made and never started.
    Unstarted,
    /// There is no such container.
    Missing,
}

impl Seen {
    /// Whether a program runs there that may answer the next time.
    pub(super) const fn runs(&self) -> bool {
        matches!(self, Self::Healthy | Self::Sick(_))
    }

    /// For people; nothing about one that is well.
    pub(super) fn says(&self) -> Option<String> {
        Some(match self {
            Self::Healthy => return None,
            Self::Sick(why) => why.clone(),
            Self::Restarting(status) => {
                format!("the program keeps ending and Docker starts it again ({status})")
            }
            Self::Down(status) => format!("it is stopped ({status})"),
            Self::Paused => "it was paused".to_owned(),
            Self::Detached => "it was taken out of its network".to_owned(),
            Self::Unstarted => "it was made but never started".to_owned(),
            Self::Missing => "it was removed".to_owned(),
        })
    }
}

/// What is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mend {
    /// Start the same container.
    Start,
    /// Let it go on.
    Unpause,
    /// End its program and start it again.
    Restart,
    /// Remove what is there and make a new container from the release.
    Remake,
}

/// A program that doesn't answer for so long is started again.
const SICK: Duration = Duration::from_secs(15);
/// Well for so long: what was before is forgotten.
const WELL: Duration = Duration::from_secs(10);
/// The longest pause between two tries to bring back what is down.
const DOWN_PAUSE: Duration = Duration::from_secs(60);
/// The same for what runs and doesn't answer: the reason may lie elsewhere, say in a database.
const SICK_PAUSE: Duration = Duration::from_secs(600);

/// What is remembered of one place of a set.
#[derive(Debug, Default)]
pub(super) struct Care {
    tries: u32,
    next: Option<Instant>,
    sick: Option<Instant>,
    well: Option<Instant>,
    /// It was healthy since it was last mended.
    proven: bool,
    problem: Option<String>,
}

impl Care {
    /// What to do now; nothing while a pause lasts. `slow` is how long a program may take until it
    /// is healthy.
    pub(super) fn look(&mut self, seen: &Seen, slow: Duration, now: Instant) -> Option<Mend> {
        if *seen == Seen::Healthy {
            let since = *self.well.get_or_insert(now);
            (self.sick, self.proven) = (None, true);
            if now.duration_since(since) >= WELL {
                *self = Self { well: Some(since), proven: true, ..Self::default() };
            }
            return None;
        }
        self.well = None;
        if matches!(seen, Seen::Sick(_) | Seen::Restarting(_) | Seen::Unstarted) {
            let since = *self.sick.get_or_insert(now);
            let patience = if self.proven { SICK } else { slow.max(SICK) };
            // What Docker starts again by itself is in its hands; what was made a moment ago may be
            // about to be filled and started.
            if matches!(seen, Seen::Restarting(_)) || now.duration_since(since) < patience {
                return None;
            }
        } else {
            self.sick = None;
        }
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        let again = self.tries % 2 == 1;
        Some(match seen {
            Seen::Missing | Seen::Unstarted | Seen::Detached => Mend::Remake,
            _ if again => Mend::Remake,
            Seen::Paused => Mend::Unpause,
            Seen::Sick(_) => Mend::Restart,
            Seen::Down(_) | Seen::Healthy | Seen::Restarting(_) => Mend::Start,
        })
    }

    /// It was tried; the pause before the next try begins.
    pub(super) fn tried(&mut self, seen: &Seen, problem: Option<String>, now: Instant) {
        let longest = if matches!(seen, Seen::Sick(_)) { SICK_PAUSE } else { DOWN_PAUSE };
        let pause = Duration::from_secs(1 << self.tries.min(10)).min(longest);
        self.tries += 1;
        self.next = Some(now + pause);
        (self.sick, self.proven) = (None, false);
        self.problem = problem;
    }

    /// How it stands with bringing it back, for people; nothing before the first try.
    pub(super) fn says(&self, now: Instant) -> Option<String> {
        if self.tries == 0 {
            return None;
        }
        let next = self.next.map(|next| next.saturating_duration_since(now).as_secs());
        let when = match next {
            Some(0) | None => String::new(),
            Some(seconds) => format!(", the next try is in {seconds} s"),
        };
        let times = if self.tries == 1 { "once" } else { &format!("{} times", self.tries) };
        Some(match &self.problem {
            Some(problem) => format!("brought back {times} in vain: {problem}{when}"),
            None => format!("brought back {times}{when}"),
        })
    }
}

/// Whether users are served.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Since when nobody answers, while that isn't certain yet or is an outage.
    dead: Option<Instant>,
    /// Since when somebody answers again, while an outage isn't over yet.
    back: Option<Instant>,
    out: bool,
}

/// A change of a [`Standing`]; each says how long ago it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nobody is served.
    Out(Duration),
    /// Users are served again.
    Back(Duration),
}

impl Standing {
    /// Goes on from an outage that was open when the fleet ended.
    pub(super) fn in_outage() -> Self {
        Self { out: true, ..Self::default() }
    }

    /// One look: whether anybody answers, and whether that is `certain`: one unanswered question may
    /// be a hiccup, a set of which nothing runs is not. So two looks must agree, or one be certain.
    pub(super) fn look(&mut self, answers: bool, certain: bool, now: Instant) -> Option<Turn> {
        if answers == self.out {
            let mark = if answers { &mut self.back } else { &mut self.dead };
            let again = mark.is_some();
            let since = *mark.get_or_insert(now);
            if !again && (!certain || answers) {
                return None;
            }
            let ago = now.duration_since(since);
            *self = Self { out: !self.out, ..Self::default() };
            return Some(if answers { Turn::Back(ago) } else { Turn::Out(ago) });
        }
        (self.dead, self.back) = (None, None);
        None
    }

    /// Whether nobody is served.
    pub(super) const fn is_out(&self) -> bool {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_secs(40);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn down() -> Seen {
        Seen::Down("Exited (137) 1 second ago".into())
    }

    #[test]
    fn whatever_takes_a_container_away_is_mended_at_once() {
        let now = Instant::now();
        for (seen, mend) in [
            (down(), Mend::Start),
            (Seen::Paused, Mend::Unpause),
            (Seen::Detached, Mend::Remake),
            (Seen::Missing, Mend::Remake),
        ] {
            assert_eq!(Care::default().look(&seen, SLOW, now), Some(mend), "{seen:?}");
        }
        assert_eq!(Care::default().look(&Seen::Healthy, SLOW, now), None);
        // Somebody is at it.
        assert_eq!(Care::default().look(&Seen::Unstarted, SLOW, now), None);
        assert_eq!(Care::default().look(&Seen::Restarting("".into()), SLOW, now), None);
    }

    #[test]
    fn what_keeps_dying_is_tried_in_growing_pauses_by_turns_anew() {
        let began = Instant::now();
        let (mut care, mut now, mut mends) = (Care::default(), began, Vec::new());
        while mends.len() < 10 {
            if let Some(mend) = care.look(&down(), SLOW, now) {
                care.tried(&down(), Some("no".into()), now);
                mends.push((now.duration_since(began).as_secs(), mend));
            }
            now += seconds(1);
        }
        let at: Vec<u64> = mends.iter().map(|(at, _)| *at).collect();
        assert_eq!(at[..6], [0, 1, 3, 7, 15, 31]);
        assert!(at[9] - at[8] == 60, "never longer than a minute: {at:?}");
        assert_eq!(mends[0].1, Mend::Start);
        assert_eq!(mends[1].1, Mend::Remake);
        let says = care.says(now).unwrap();
        assert!(
            says.starts_with("brought back 10 times in vain: no, the next try is in "),
            "{says}"
        );
    }

    #[test]
    fn health_for_a_while_starts_the_pauses_over() {
        let (mut care, now) = (Care::default(), Instant::now());
        for n in 0..6 {
            care.tried(&down(), None, now + seconds(n));
        }
        assert_eq!(care.look(&down(), SLOW, now + seconds(10)), None);
        for n in 20..90 {
            assert_eq!(care.look(&Seen::Healthy, SLOW, now + seconds(n)), None);
        }
        assert_eq!(care.says(now), None);
        assert_eq!(care.look(&down(), SLOW, now + seconds(91)), Some(Mend::Start));
    }

    #[test]
    fn a_program_that_hangs_is_started_again_but_a_slow_start_is_waited_for() {
        let (sick, now) = (Seen::Sick("it answered 500".into()), Instant::now());
        let mut care = Care::default();
        care.look(&Seen::Healthy, SLOW, now);
        assert_eq!(care.look(&sick, SLOW, now), None);
        assert_eq!(care.look(&sick, SLOW, now + seconds(14)), None);
        assert_eq!(care.look(&sick, SLOW, now + seconds(15)), Some(Mend::Restart));
        care.tried(&sick, None, now + seconds(15));
        assert_eq!(care.look(&sick, SLOW, now + seconds(17)), None);
        assert_eq!(care.look(&sick, SLOW, now + seconds(17) + SLOW - seconds(1)), None);
        assert_eq!(care.look(&sick, SLOW, now + seconds(17) + SLOW), Some(Mend::Remake));
    }

    #[test]
    fn an_outage_begins_when_nobody_can_answer_or_twice_nobody_did() {
        let now = Instant::now();
        let mut sure = Standing::default();
        assert_eq!(sure.look(false, true, now), Some(Turn::Out(seconds(0))));
        assert!(sure.is_out());
        let mut hiccup = Standing::default();
        assert_eq!(hiccup.look(false, false, now), None);
        assert_eq!(hiccup.look(true, false, now + seconds(1)), None);
        assert_eq!(hiccup.look(false, false, now + seconds(2)), None);
        assert_eq!(hiccup.look(false, false, now + seconds(3)), Some(Turn::Out(seconds(1))));
        // Over when it answered twice in a row.
        assert_eq!(hiccup.look(true, false, now + seconds(4)), None);
        assert_eq!(hiccup.look(false, false, now + seconds(5)), None);
        assert_eq!(hiccup.look(true, false, now + seconds(6)), None);
        assert_eq!(hiccup.look(true, false, now + seconds(8)), Some(Turn::Back(seconds(2))));
        assert!(!hiccup.is_out());
        assert_eq!(Standing::in_outage().look(false, true, now), None);
    }
}
