//! A job's steps as the shim is told of them.

use std::collections::BTreeMap;

use pipeyard_model::plan::StepSpec;

use crate::{
    JobRun,
    protocol::{Command, Step},
    session::millis,
};

/// Where a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// With the job's other steps.
    Here,
    /// In an image of its own.
    Elsewhere,
}

fn place(run: &JobRun, step: &StepSpec) -> Place {
    match &step.image {
        Some(image) if *image != run.spec.image => Place::Elsewhere,
        Some(_) | None => Place::Here,
    }
}

/// All steps, for the job's own shim. Those in an image of their own carry neither their command nor
/// their environment: it has no use for them.
pub(crate) fn all(run: &JobRun) -> Vec<Step> {
    numbered(run)
        .map(|(number, spec)| match place(run, spec) {
            Place::Here => step(run, number, spec),
            Place::Elsewhere => {
                Step { number, timeout_ms: 0, command: Command::Elsewhere, env: Vec::new() }
            }
        })
        .collect()
}

/// All steps in one place: for an executor that has no images.
pub(crate) fn all_here(run: &JobRun) -> Vec<Step> {
    numbered(run).map(|(number, spec)| step(run, number, spec)).collect()
}

/// The image and command of a step in an image of its own.
pub(crate) fn elsewhere(run: &JobRun, number: u16) -> Option<(&str, Step)> {
    let (_, spec) = numbered(run).find(|(candidate, _)| *candidate == number)?;
    match place(run, spec) {
        Place::Here => None,
        Place::Elsewhere => Some((spec.image.as_deref()?, step(run, number, spec))),
    }
}

fn numbered(run: &JobRun) -> impl Iterator<Item = (u16, &StepSpec)> {
    (1..=u16::MAX).zip(&run.spec.steps)
}

fn step(run: &JobRun, number: u16, spec: &StepSpec) -> Step {
    // Later ones win: Pipeyard's, the job's, the step's, and the secrets that the job asks for.
    let mut env: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, value) in run.env.iter().chain(&run.spec.env).chain(&spec.env) {
        env.insert(name, value);
    }
    for (name, value) in &run.secrets {
        env.insert(name.as_str(), &value.0);
    }
    Step {
        number,
        timeout_ms: spec.timeout.map_or(0, millis),
        command: Command::Shell(spec.run.clone()),
        env: env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}
