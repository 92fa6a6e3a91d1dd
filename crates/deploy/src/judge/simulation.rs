//! Simulated traffic: what the judge must not abort, and what it must catch. Everything is seeded.

use pipeyard_model::{
    Timestamp,
    fleet::{ArmReport, LatencyHistogram, TrafficReport},
    plan::HealthLimit,
};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

use super::*;

/// How one arm behaves.
#[derive(Clone, Copy)]
struct Behaviour {
    /// Share of errors in the long run.
    errors: f64,
    /// Errors come so many in a row.
    burst: u32,
    /// Median latency in milliseconds.
    median_ms: f64,
}

const HEALTHY: Behaviour = Behaviour { errors: 0.005, burst: 1, median_ms: 40.0 };

struct Arm {
    behaviour: Behaviour,
    failing: u32,
    requests: u64,
    errors: u64,
    latency: Vec<u64>,
    sum_us: u64,
    /// Factors of the median: log-normal, p95 is 2.27.
    shape: std::rc::Rc<[f64]>,
}

impl Arm {
    fn new(behaviour: Behaviour) -> Self {
        thread_local!(static SHAPE: std::rc::Rc<[f64]> = shape());
        let latency = vec![0; LatencyHistogram::BUCKETS];
        let shape = SHAPE.with(Clone::clone);
        Self { behaviour, failing: 0, requests: 0, errors: 0, latency, sum_us: 0, shape }
    }

    fn answer(&mut self, rng: &mut StdRng) {
        let b = self.behaviour;
        if self.failing == 0 && rng.random::<f64>() < b.errors / f64::from(b.burst) {
            self.failing = b.burst;
        }
        self.requests += 1;
        if self.failing > 0 {
            self.failing -= 1;
            self.errors += 1;
        }
        let us = (b.median_ms * 1000.0 * self.shape[rng.random_range(0..self.shape.len())]) as u64;
        self.latency[LatencyHistogram::index(us)] += 1;
        self.sum_us += us;
    }

    fn report(&self, weight: u8) -> ArmReport {
        ArmReport {
            id: "d-1".into(),
            weight,
            addresses: vec![],
            requests: self.requests,
            errors: self.errors,
            in_flight: 0,
            latency: LatencyHistogram::from_counts(&self.latency, self.sum_us),
        }
    }
}

/// Draws of a log-normal distribution, seeded.
fn shape() -> std::rc::Rc<[f64]> {
    let mut rng = StdRng::seed_from_u64(0);
    let normal = |rng: &mut StdRng| (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
    (0..4096).map(|_| (0.5 * normal(&mut rng)).exp()).collect()
}

struct Run {
    rate: u32,
    weight: u8,
    seconds: u64,
    /// Seconds between two readings.
    every: u64,
    old: Behaviour,
    new: Behaviour,
    limits: Vec<HealthLimit>,
}

impl Run {
    /// When the judge decided against it, and why.
    fn broken_after(&self, seed: u64) -> Option<(u64, Finding)> {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut old, mut new) = (Arm::new(self.old), Arm::new(self.new));
        let mut judge = Judge::new(&self.limits, rng.next_u64());
        let start = Timestamp::from_seconds(1_000);
        for second in 0..=self.seconds {
            if second > 0 {
                for _ in 0..self.rate {
                    let canary = rng.random_range(0..100) < self.weight;
                    let arm = if canary { &mut new } else { &mut old };
                    arm.answer(&mut rng);
                }
            }
            if second % self.every != 0 {
                continue;
            }
            let at = start + Duration::from_secs(second);
            let report = TrafficReport {
                deployment: Some("d-1".into()),
                intended: self.weight,
                measured: None,
                measured_requests: 0,
                since: start,
                at,
                boot: "1".into(),
                stable: Some(old.report(100 - self.weight)),
                canary: Some(new.report(self.weight)),
            };
            if let (Ruling::Broken(finding), _) = judge.observe(&report) {
                return Some((second, finding));
            }
        }
        None
    }

    fn aborts(&self, seeds: std::ops::Range<u64>) -> Vec<(u64, u64, Finding)> {
        seeds.filter_map(|s| self.broken_after(s).map(|(t, f)| (s, t, f))).collect()
    }

    fn median_seconds(&self, seeds: std::ops::Range<u64>) -> u64 {
        let mut times: Vec<u64> =
            seeds.map(|s| self.broken_after(s).map_or(u64::MAX, |(t, _)| t)).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }
}

fn limits() -> Vec<HealthLimit> {
    let latency = HealthLimit::LatencyMs { percentile: 95, below: 300.0 };
    vec![HealthLimit::ErrorRate(0.01), latency]
}

fn run(new: Behaviour) -> Run {
    let old = Behaviour { burst: new.burst, ..HEALTHY };
    Run { rate: 50, weight: 10, seconds: 600, every: 1, old, new, limits: limits() }
}

#[test]
fn at_most_one_percent_of_200_healthy_canaries_are_aborted() {
    let aborts = Run { every: 5, ..run(HEALTHY) }.aborts(0..200);
    println!("independent errors: {} of 200 aborted", aborts.len());
    assert!(aborts.len() <= 2, "{aborts:?}");
}

#[test]
fn at_most_one_percent_of_200_healthy_canaries_with_errors_in_bursts_are_aborted() {
    let bursts = run(Behaviour { burst: 10, ..HEALTHY });
    let aborts = Run { every: 5, ..bursts }.aborts(1_000..1_200);
    println!("bursts of 10: {} of 200 aborted", aborts.len());
    assert!(aborts.len() <= 2, "{aborts:?}");
}

#[test]
fn a_canary_with_ten_times_the_errors_is_caught_within_90_seconds_in_the_median() {
    let old = Behaviour { errors: 0.01, ..HEALTHY };
    let new = Behaviour { errors: 0.10, ..HEALTHY };
    let limits = vec![HealthLimit::ErrorRate(0.02)];
    let with_limit = Run { rate: 50, weight: 10, seconds: 600, every: 1, old, new, limits };
    let compared_only = Run { limits: vec![], ..Run { ..with_limit_copy(&with_limit) } };
    let (a, b) = (with_limit.median_seconds(0..51), compared_only.median_seconds(0..51));
    println!("1 -> 10 % at 50/s and 10 %: {a} s with a limit of 2 %, {b} s by comparison alone");
    assert!(a <= 90 && b <= 90, "{a} s, {b} s");
}

fn with_limit_copy(run: &Run) -> Run {
    Run { limits: run.limits.clone(), ..*run }
}

#[test]
fn a_bad_canary_of_a_size_that_the_judge_does_not_know_is_caught() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed ^ 0xBAD);
        let errors = rng.random_range(0.04..0.6);
        let mut run = run(Behaviour { errors, ..HEALTHY });
        run.rate = rng.random_range(40..300);
        let caught = run.broken_after(seed);
        assert!(caught.is_some(), "seed {seed}: {errors:.3} errors at {} per second", run.rate);
    }
}

#[test]
fn a_slow_canary_is_caught_by_its_limit_and_by_comparison() {
    // p95 is some 2.27 times the median: 410 ms against 300.
    let slow = run(Behaviour { median_ms: 180.0, ..HEALTHY });
    let (seconds, finding) = slow.broken_after(1).unwrap();
    assert!(seconds <= 120, "{seconds} s");
    assert!(finding.message.contains("p95_ms"), "{}", finding.message);
    // Below the limit, but four times as slow as before.
    let slower = run(Behaviour { median_ms: 130.0, ..HEALTHY });
    let (_, finding) = slower.broken_after(1).unwrap();
    assert_eq!(finding.code, "worse_than_before", "{}", finding.message);
}

#[test]
fn a_canary_that_only_fails_is_caught_within_seconds() {
    let dead = run(Behaviour { errors: 1.0, ..HEALTHY });
    let (seconds, finding) = dead.broken_after(1).unwrap();
    assert!(seconds <= 6, "{seconds} s");
    assert_eq!(finding.code, "mostly_errors");
}

#[test]
fn an_outage_of_both_releases_is_not_the_new_ones_fault() {
    let outage = Behaviour { errors: 0.9, burst: 1, median_ms: 40.0 };
    let both = Run { old: outage, limits: vec![], ..run(outage) };
    assert!(both.aborts(0..10).is_empty());
}

#[test]
fn a_finding_says_why_in_words_and_numbers() {
    let (_, finding) = run(Behaviour { errors: 0.08, ..HEALTHY }).broken_after(3).unwrap();
    let words = ["error_rate ", " % (", " of ", ") exceeds 1 %: lower bound ", ", after "];
    for word in words {
        assert!(finding.message.contains(word), "{}", finding.message);
    }
    println!("{}", finding.message);
}

#[test]
fn a_judge_goes_on_from_its_row_and_over_a_restart_of_the_proxy() {
    let mut judge = Judge::new(&limits(), 1);
    let mut arm = Arm::new(Behaviour { errors: 0.2, ..HEALTHY });
    let mut rng = StdRng::seed_from_u64(5);
    let mut broken = false;
    for second in 0..60 {
        if second == 20 {
            arm = Arm::new(arm.behaviour);
        }
        for _ in 0..5 {
            arm.answer(&mut rng);
        }
        let report = TrafficReport {
            deployment: None,
            intended: 10,
            measured: None,
            measured_requests: 0,
            since: Timestamp::from_seconds(0),
            at: Timestamp::from_seconds(second),
            boot: if second < 20 { "a" } else { "b" }.into(),
            stable: Some(Arm::new(HEALTHY).report(90)),
            canary: Some(arm.report(10)),
        };
        broken |= judge.observe(&report).0 != Ruling::Goes;
        let row = serde_json::to_string(&judge).unwrap();
        judge = serde_json::from_str(&row).unwrap();
    }
    assert!(broken);
    assert_eq!(judge.requests(), 59 * 5);
}

#[test]
fn a_release_that_is_away_for_a_reading_is_not_counted_twice() {
    let mut judge = Judge::new(&limits(), 1);
    let mut arm = Arm::new(HEALTHY);
    let mut rng = StdRng::seed_from_u64(5);
    for second in 0..30 {
        for _ in 0..5 {
            arm.answer(&mut rng);
        }
        let away = (10..15).contains(&second);
        let report = TrafficReport {
            deployment: None,
            intended: 10,
            measured: None,
            measured_requests: 0,
            since: Timestamp::from_seconds(0),
            at: Timestamp::from_seconds(second),
            boot: "a".into(),
            stable: Some(Arm::new(HEALTHY).report(90)),
            canary: (!away).then(|| arm.report(10)),
        };
        judge.observe(&report);
    }
    assert_eq!(judge.requests(), 29 * 5);
}

#[test]
fn a_step_does_not_pass_on_too_little_data() {
    let judge = Judge::new(&limits(), 1);
    let missing = judge.enough().unwrap_err();
    assert_eq!(missing, "too little data for error_rate < 1 %: 0 of 100 requests");
}

#[test]
fn a_step_does_not_pass_while_what_was_measured_exceeds_a_limit() {
    let mut judge = Judge::new(&limits(), 1);
    let (mut old, mut new) = (Arm::new(HEALTHY), Arm::new(HEALTHY));
    // Three errors of 120 are more than 1 %, and prove nothing; of 1,200 they are less.
    for (second, (requests, errors)) in [(0, 0), (120, 3), (1_080, 0)].into_iter().enumerate() {
        for arm in [&mut old, &mut new] {
            arm.requests += requests;
            arm.latency[LatencyHistogram::index(40_000)] += requests;
            arm.sum_us += requests * 40_000;
        }
        new.errors += errors;
        let at = Timestamp::from_seconds(1_000 + i64::try_from(second).unwrap());
        let report = TrafficReport {
            deployment: Some("d-1".into()),
            intended: 50,
            measured: None,
            measured_requests: 0,
            since: at,
            at,
            boot: "1".into(),
            stable: Some(old.report(50)),
            canary: Some(new.report(50)),
        };
        let (ruling, _) = judge.observe(&report);
        assert!(!matches!(ruling, Ruling::Broken(_)), "{ruling:?}");
        if errors > 0 {
            let missing = judge.enough().unwrap_err();
            let expected = "error_rate is 2.5 % where 1 % is the limit, without proof either way \
                            (120 requests)";
            assert_eq!(missing, expected);
        }
    }
    assert_eq!(judge.enough(), Ok(()));
}
