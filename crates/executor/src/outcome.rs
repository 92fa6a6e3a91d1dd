//! From what is known at the end of a session to the job's outcome. Pure.

use pipeyard_model::{Conclusion, plan::JobSpec};

use crate::{JobOutcome, Reason, protocol::Exit, session::Ending};

/// Why a job was made to end from outside, as far as the executor knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// Nobody did.
    None,
    /// The token was cancelled.
    Cancelled,
    /// Its time was over.
    TimedOut,
}

impl JobOutcome {
    pub(crate) fn success() -> Self {
        Self { conclusion: Conclusion::Success, reason: None }
    }

    pub(crate) fn of(conclusion: Conclusion, code: &str, message: impl Into<String>) -> Self {
        let reason = Reason { code: code.to_owned(), message: message.into() };
        Self { conclusion, reason: Some(reason) }
    }

    pub(crate) fn cancelled() -> Self {
        Self::of(Conclusion::Cancelled, "cancelled", "The job was cancelled.")
    }

    pub(crate) fn job_timeout(spec: &JobSpec) -> Self {
        let limit = spec.timeout.as_secs();
        let message = format!("The job ran longer than its timeout of {limit} s: raise `timeout`.");
        Self::of(Conclusion::TimedOut, "job_timeout", message)
    }
}

impl From<Reason> for JobOutcome {
    fn from(reason: Reason) -> Self {
        Self { conclusion: Conclusion::Error, reason: Some(reason) }
    }
}

/// Judges a session. `lost` explains an end without sentinel; it is asked for only then.
///
/// The order is the order of what people need to know first: why it was ended, then what could not
/// be done, then what failed, then what is missing.
pub(crate) fn judge(spec: &JobSpec, ending: &Ending, pressure: Pressure) -> Verdict {
    if let Some((number, exit)) = ending.steps.iter().find(|(_, exit)| *exit != Exit::Code(0)) {
        let name = step_name(spec, *number);
        return Verdict::Is(match *exit {
            Exit::Cancelled => match pressure {
                Pressure::TimedOut => JobOutcome::job_timeout(spec),
                Pressure::None if ending.unheard => unheard(),
                Pressure::None | Pressure::Cancelled => JobOutcome::cancelled(),
            },
            Exit::JobTimedOut => JobOutcome::job_timeout(spec),
            Exit::StepTimedOut => JobOutcome::of(
                Conclusion::TimedOut,
                "step_timeout",
                format!("{name} ran longer than its timeout: raise the step's `timeout`."),
            ),
            Exit::Code(code) => JobOutcome::of(
                Conclusion::Failure,
                "step_failed",
                format!("{name} exited with {code}."),
            ),
            Exit::Signal(signal) => JobOutcome::of(
                Conclusion::Failure,
                "step_killed",
                format!("{name} was ended by signal {signal}."),
            ),
        });
    }
    if let Some(fault) = &ending.fault {
        return Verdict::Is(fault.clone().into());
    }
    let is_whole = ending.steps.len() == spec.steps.len();
    if ending.confirmed && is_whole {
        return Verdict::Is(JobOutcome::success());
    }
    match pressure {
        Pressure::Cancelled => Verdict::Is(JobOutcome::cancelled()),
        Pressure::TimedOut => Verdict::Is(JobOutcome::job_timeout(spec)),
        Pressure::None if ending.unheard => Verdict::Is(unheard()),
        Pressure::None => Verdict::Lost,
    }
}

/// What [`judge`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Is(JobOutcome),
    /// It ended without its sentinel and nobody asked for that: an error, never a success.
    Lost,
}

fn unheard() -> JobOutcome {
    let message = "The runner stopped taking the job's output, so the job was ended.";
    JobOutcome::of(Conclusion::Error, "output_unheard", message)
}

/// `Step 2 (cargo test)`, in one line of bounded length.
pub(crate) fn step_name(spec: &JobSpec, number: u16) -> String {
    let step = usize::from(number).checked_sub(1).and_then(|index| spec.steps.get(index));
    match step {
        Some(step) => {
            let line = step.name.lines().next().unwrap_or_default();
            let short: String = line.chars().take(60).collect();
            format!("Step {number} ({short})")
        }
        None => format!("Step {number}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use pipeyard_model::plan::StepSpec;

    use super::*;

    fn spec(steps: usize) -> JobSpec {
        let step = |number| StepSpec {
            name: format!("step {number}\nmore"),
            run: String::new(),
            image: None,
            env: BTreeMap::new(),
            timeout: None,
        };
        JobSpec {
            image: "x".to_owned(),
            steps: (1..=steps).map(step).collect(),
            env: BTreeMap::new(),
            secrets: Vec::new(),
            services: Vec::new(),
            timeout: Duration::from_secs(60),
            artifacts: Vec::new(),
            tests: vec![],
            retry: 0,
            once: false,
            labels: Vec::new(),
        }
    }

    fn conclusion(verdict: Verdict) -> (Conclusion, String) {
        match verdict {
            Verdict::Is(outcome) => {
                (outcome.conclusion, outcome.reason.map(|r| r.code).unwrap_or_default())
            }
            Verdict::Lost => (Conclusion::Error, "lost".to_owned()),
        }
    }

    #[test]
    fn only_every_step_and_the_sentinel_make_a_success() {
        let good = [(1, Exit::Code(0)), (2, Exit::Code(0))];
        for (steps, confirmed, expected) in [
            (&good[..], true, Conclusion::Success),
            (&good[..], false, Conclusion::Error),
            (&good[..1], true, Conclusion::Error),
            (&[], true, Conclusion::Error),
        ] {
            let ending = Ending { steps: steps.to_vec(), confirmed, ..Ending::default() };
            let verdict = judge(&spec(2), &ending, Pressure::None);
            assert_eq!(conclusion(verdict).0, expected, "{steps:?} {confirmed}");
        }
    }

    #[test]
    fn a_cancel_that_comes_after_the_last_step_changes_nothing() {
        let ending =
            Ending { steps: vec![(1, Exit::Code(0))], confirmed: true, ..Ending::default() };
        let verdict = judge(&spec(1), &ending, Pressure::Cancelled);
        assert_eq!(conclusion(verdict).0, Conclusion::Success);
    }

    #[test]
    fn each_end_has_its_conclusion_and_code() {
        for (exit, pressure, expected) in [
            (Exit::Code(3), Pressure::None, (Conclusion::Failure, "step_failed")),
            (Exit::Signal(9), Pressure::None, (Conclusion::Failure, "step_killed")),
            (Exit::StepTimedOut, Pressure::None, (Conclusion::TimedOut, "step_timeout")),
            (Exit::JobTimedOut, Pressure::TimedOut, (Conclusion::TimedOut, "job_timeout")),
            (Exit::Cancelled, Pressure::Cancelled, (Conclusion::Cancelled, "cancelled")),
        ] {
            let ending = Ending { steps: vec![(1, exit)], confirmed: true, ..Ending::default() };
            let (conclusion, code) = conclusion(judge(&spec(1), &ending, pressure));
            assert_eq!((conclusion, code.as_str()), expected, "{exit:?}");
        }
    }

    #[test]
    fn a_reason_names_the_step_in_one_line() {
        assert_eq!(step_name(&spec(2), 2), "Step 2 (step 2)");
    }
}
