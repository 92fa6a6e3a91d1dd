//! Deployments: the judge, and the provider's side.
//!
//! - [`judge`]: is the new release worse than it may be? Pure.
//! - [`provider`]: who carries a deployment out: the traits `Provider` and `TrafficControl`.
//! - [`codedeploy`]: the one CodeDeploy client; [`control`]: the fleet's own resources beside it.
//! - [`fake`]: a provider in memory with faults, for tests.
//!
//! What a deployment is and how it moves is `pipeyard_model::deployment`; who calls all this is the
//! server's deploy task. AWS is known here and nowhere else.

pub mod codedeploy;
pub mod control;
pub mod fake;
pub mod judge;
pub mod provider;

/// An error with its causes, outermost first; what a cause only repeats is left out.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text.chars().take(300).collect()
}
