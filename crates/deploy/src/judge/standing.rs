//! How limits and comparisons stand: what people see, and what a step needs to pass.

use pipeyard_model::{
    Timestamp,
    deployment::{Health, HealthState, limit_text, short, trimmed},
    plan::HealthLimit,
};

use super::{
    Counts, DOUBT, Judge, MATTERS,
    evidence::SignTest,
    limits::{counted, needed},
    ruling::{factor, percent},
};

/// Requests of the new release that a comparison needs.
const COMPARED: u64 = 100;

/// A limit that what was measured exceeds. That alone proves nothing, and nothing is aborted for it;
/// but more users than now are not sent there before it has gone or is proven.
fn over(standing: &Health) -> Option<String> {
    let (limit, value) = (standing.limit?, standing.value?);
    let (limit, value, words) = match limit {
        HealthLimit::ErrorRate(share) => (share, value, (percent(value), percent(share))),
        HealthLimit::LatencyMs { below, .. } => (below, value, (trimmed(value), trimmed(below))),
    };
    (value >= limit && value > 0.0).then(|| {
        let name = standing.text.split(' ').next().unwrap_or_default();
        format!(
            "{name} is {} where {} is the limit, without proof either way ({} requests)",
            words.0, words.1, standing.requests
        )
    })
}

impl Judge {
    /// Whether there is enough data, and no doubt, to let a step pass; otherwise what is missing.
    ///
    /// # Errors
    /// In words: what is missing.
    pub fn enough(&self) -> Result<(), String> {
        for standing in self.standings() {
            if standing.requests < standing.needed {
                return Err(format!(
                    "too little data for {}: {} of {} requests",
                    standing.text, standing.requests, standing.needed
                ));
            }
            if let Some(over) = over(&standing) {
                return Err(over);
            }
            let matters = standing.limit.is_some()
                || standing.value.unwrap_or_default()
                    >= standing.baseline.unwrap_or_default() * MATTERS;
            if standing.evidence >= DOUBT && matters {
                return Err(format!(
                    "{} is in doubt: evidence {} against it, where {} is enough",
                    standing.text,
                    factor(standing.evidence),
                    factor(standing.evidence_limit)
                ));
            }
        }
        Ok(())
    }

    /// How every limit and comparison stands.
    #[must_use]
    pub fn standings(&self) -> Vec<Health> {
        let (new, old) = (&self.canary, &self.stable);
        let mut all: Vec<Health> = self
            .limits
            .iter()
            .map(|(limit, test)| {
                let value = |counts: &Counts| match limit {
                    HealthLimit::ErrorRate(_) => counts.error_share(),
                    HealthLimit::LatencyMs { percentile, .. } => counts.percentile_ms(*percentile),
                };
                let (requests, needed) = (counted(limit, new), needed(limit));
                Health {
                    limit: Some(*limit),
                    text: limit_text(limit),
                    state: HealthState::of(test.broken(), requests, needed),
                    value: value(new),
                    baseline: value(old),
                    lower_bound: test.lower_bound(),
                    requests,
                    needed,
                    evidence: test.evidence(),
                    evidence_limit: test.enough(),
                }
            })
            .collect();
        let broken = self.worse("").is_some();
        let compared = |text: &str, test: &SignTest, value: fn(&Counts) -> Option<f64>| Health {
            limit: None,
            text: text.to_owned(),
            state: HealthState::of(broken && test.broken(), new.requests, COMPARED),
            value: value(new),
            baseline: value(old),
            lower_bound: None,
            requests: new.requests,
            needed: COMPARED,
            evidence: test.evidence(),
            evidence_limit: test.enough(),
        };
        let errors = "error_rate against the old release";
        all.push(compared(errors, &self.errors, Counts::error_share));
        if let Some(test) = &self.latency {
            let p95 = |counts: &Counts| counts.percentile_ms(95);
            all.push(compared("p95_ms against the old release", test, p95));
        }
        all
    }

    /// Why it passes, in words and numbers.
    #[must_use]
    pub fn why_it_passes(&self, now: Timestamp) -> String {
        let new = &self.canary;
        let errors = percent(new.error_share().unwrap_or_default());
        let p95 = new.percentile_ms(95).map(trimmed).unwrap_or_else(|| "?".into());
        format!(
            "all limits held: error_rate {errors} ({} of {}), p95_ms {p95}, after {}",
            new.errors,
            new.requests,
            short(self.age(now))
        )
    }
}
