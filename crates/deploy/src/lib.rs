//! Deployments: the judge, and the provider's side.
//!
//! - [`judge`]: is the new release worse than it may be? Pure.
//!
//! What a deployment is and how it moves is `pipeyard_model::deployment`; who calls all this is the
//! server's deploy task. AWS is known here and nowhere else.

pub mod judge;
