//! The labels on everything made in Docker. They are how leftovers are found again.

use std::collections::HashMap;

use pipeyard_model::{AttemptId, Epoch, InstallationId};

pub(crate) const INSTALLATION: &str = "pipeyard.installation";
pub(crate) const JOB: &str = "pipeyard.job";
pub(crate) const EPOCH: &str = "pipeyard.epoch";
/// `job`, `step` or `service`.
pub(crate) const ROLE: &str = "pipeyard.role";

pub(crate) fn installation(id: InstallationId) -> HashMap<String, String> {
    HashMap::from([(INSTALLATION.to_owned(), id.to_string())])
}

pub(crate) fn container(
    id: InstallationId,
    attempt: AttemptId,
    role: &str,
) -> HashMap<String, String> {
    let mut labels = installation(id);
    labels.insert(JOB.to_owned(), attempt.job.to_string());
    labels.insert(EPOCH.to_owned(), attempt.epoch.to_string());
    labels.insert(ROLE.to_owned(), role.to_owned());
    labels
}

/// A filter for what carries the installation's label.
pub(crate) fn filter(id: InstallationId) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{INSTALLATION}={id}")])])
}

/// The attempt that a thing was made for.
pub(crate) fn attempt(labels: &HashMap<String, String>) -> Option<AttemptId> {
    let job = labels.get(JOB)?.parse().ok()?;
    let epoch = labels.get(EPOCH)?.parse().map(Epoch).ok()?;
    Some(AttemptId { job, epoch })
}
