//! Trouble with the provider, as people are told of it.

use serde::{Deserialize, Serialize};

use super::{Reason, State};
use crate::Timestamp;

/// The provider or the proxy doesn't answer, or refuses, while a deployment is under way. It goes
/// when they answer again, and when the deployment ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Since when, without a break.
    pub since: Timestamp,
    /// Stable: `provider_unreachable`, `provider_refused`, ...
    pub code: String,
    /// What came of asking.
    pub message: String,
    /// How things stand meanwhile.
    pub doing: String,
    /// It is asked again and again until then.
    pub until: Timestamp,
    /// What follows then.
    pub then: String,
}

impl Trouble {
    /// How many troubles of one deployment its timeline tells.
    pub const TOLD: u32 = 50;

    /// What to tell in this state. `restored`: the old release has all traffic again.
    pub(super) fn new(
        restored: bool,
        state: &State,
        problem: Reason,
        since: Timestamp,
        until: Timestamp,
    ) -> Self {
        let fails = "the deployment ends as failed";
        let (doing, then) = match state {
            State::Starting(_) | State::Ambiguous(_) => {
                ("it is looked for by its token".to_owned(), fails)
            }
            State::Preparing(_) => ("users stay with the old release".to_owned(), fails),
            State::Working(_) => ("the provider goes on by itself".to_owned(), fails),
            State::Shifting(_, shift) => (
                format!("{} % of the traffic stays with the new release", shift.weight),
                "the verdict is inconclusive",
            ),
            State::Holding(_, shift) => {
                (format!("{} % of the traffic stays with the new release", shift.weight), fails)
            }
            State::Completing(_) => {
                ("the new release gets all traffic once it answers".to_owned(), fails)
            }
            State::RollingBack(..) if restored => {
                ("the old release has all traffic".to_owned(), "the rollback counts as failed")
            }
            State::RollingBack(..) => (
                "the old release gets all traffic once it answers".to_owned(),
                "the rollback counts as failed",
            ),
            State::AwaitingApproval | State::Queued | State::Finished(_) => (String::new(), ""),
        };
        let Reason { code, message } = problem;
        Self { since, code, message, doing, until, then: then.to_owned() }
    }
}
