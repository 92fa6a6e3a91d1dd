//! When a release is broken, and the words for it.

use pipeyard_model::{
    Timestamp,
    deployment::{short, trimmed},
    plan::HealthLimit,
};

use super::{
    Finding, HARD_FOR, HARD_REQUESTS, Judge, MATTERS, Ruling,
    counts::as_bad,
    evidence::{MeanTest, SignTest},
    limits::{against, allowed, counted},
};

impl Judge {
    /// What follows from everything that was counted so far.
    pub(super) fn rule(&self, now: Timestamp) -> Ruling {
        let after = short(self.age(now));
        let all = &self.canary;
        let go_on = self.first_error.is_some_and(|first| now.since(first) >= HARD_FOR);
        let half = all.requests >= HARD_REQUESTS && all.errors * 2 >= all.requests;
        if (half && go_on && !as_bad(all, &self.stable)) || self.mostly_errors >= 2 {
            let message = format!(
                "{} of {} answers of the new release were errors, after {after}",
                all.errors, all.requests
            );
            return Ruling::Broken(Finding { code: "mostly_errors", message });
        }
        if let Some((limit, test)) = self.limits.iter().find(|(_, test)| test.broken()) {
            let message = self.exceeds(limit, test, &after);
            return Ruling::Broken(Finding { code: "limit_broken", message });
        }
        if let Some(message) = self.worse(&after) {
            return Ruling::Broken(Finding { code: "worse_than_before", message });
        }
        Ruling::Goes
    }

    fn exceeds(&self, limit: &HealthLimit, test: &MeanTest, after: &str) -> String {
        let all = &self.canary;
        let (bad, total) = (against(limit, all), counted(limit, all));
        let found = percent(bad as f64 / total.max(1) as f64);
        let bound = percent(test.lower_bound().unwrap_or_default());
        match limit {
            HealthLimit::ErrorRate(share) => format!(
                "error_rate {found} ({bad} of {total}) exceeds {}: lower bound {bound}, after {after}",
                percent(*share),
            ),
            HealthLimit::LatencyMs { percentile, below } => format!(
                "p{percentile}_ms {} exceeds {}: {found} of requests ({bad} of {total}) took longer, \
                 where {} may; lower bound {bound}, after {after}",
                all.percentile_ms(*percentile).map(trimmed).unwrap_or_default(),
                trimmed(*below),
                percent(allowed(limit)),
            ),
        }
    }

    /// Why it is worse than the old release, if it is.
    pub(super) fn worse(&self, after: &str) -> Option<String> {
        if !self.errors.broken() && !self.latency.as_ref().is_some_and(SignTest::broken) {
            return None;
        }
        let (new, old) = (&self.canary, &self.stable);
        let (new_share, old_share) = (new.error_share()?, old.error_share()?);
        if self.errors.broken()
            && new_share >= old_share * MATTERS
            && new_share - old_share >= 0.005
        {
            return Some(format!(
                "error_rate {} ({} of {}) is worse than {} of the old release over the same time: \
                 evidence {}, where {} is enough, after {after}",
                percent(new_share),
                new.errors,
                new.requests,
                percent(old_share),
                factor(self.errors.evidence()),
                factor(self.errors.enough()),
            ));
        }
        let test = self.latency.as_ref()?;
        let (new_p95, old_p95) = (new.percentile_ms(95)?, old.percentile_ms(95)?);
        if test.broken() && new_p95 >= old_p95 * MATTERS && new_p95 - old_p95 >= 20.0 {
            return Some(format!(
                "p95_ms {} ({} requests) is worse than {} of the old release over the same time: \
                 evidence {}, where {} is enough, after {after}",
                trimmed(new_p95),
                new.requests,
                trimmed(old_p95),
                factor(test.evidence()),
                factor(test.enough()),
            ));
        }
        None
    }
}

pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

pub(super) fn factor(evidence: f64) -> String {
    if evidence >= 1e6 { format!("{evidence:.0e}") } else { format!("{evidence:.0}") }
}
