//! Environments, deployments, incidents and DORA metrics, as people see and change them. The same
//! JSON feeds the web UI and `pipectl`.
//!
//! | call | answer |
//! |---|---|
//! | `GET /api/environments` | array of [`EnvironmentView`], by name |
//! | `PUT /api/environments?dry_run=` [`EnvironmentsFile`] | [`Applied`]; the whole file, idempotent; administrators only |
//! | `POST /api/environments/{env}/accepts` [`Accept`](pipeyard_model::environment::Accept) | [`Allowed`]; one more rule; administrators only |
//! | `GET /api/environments/{env}/check?repo=&branch=&tag=&event=&approve=` | [`DeployCheck`]; what would come of a deploy |
//! | `GET /api/deployments?env=&service=&active=&limit=&before=` | [`Page`](crate::views::Page) of [`DeploymentView`], newest first |
//! | `GET /api/deployments/{id}` (`latest` is allowed) | [`DeploymentDetail`] |
//! | `POST /api/deployments/{id}/approve` [`Decide`] | [`DeploymentView`]; one approval; whom the environment names |
//! | `POST /api/deployments/{id}/abort` [`Decide`] | [`DeploymentView`]; before its start: cancelled, after it: back to the old release |
//! | `POST /api/deployments/{id}/promote` [`Decide`] | [`DeploymentView`]; ends the judging: all traffic to the new release |
//! | `POST /api/environments/{env}/{service}/rollback` [`RollBack`] | [`DeploymentView`] of the new deployment |
//! | `GET /api/dora?env=&service=&since=&until=&by=` | [`DoraView`]; `by` is `day`, `week` or `month`; `since` is `7d`, `4w` or a time |
//! | `GET /api/incidents?env=&service=&open=` | array of [`IncidentView`], newest first; `open` is `true`, `false` (restored) or absent (all) |
//! | `POST /api/incidents` [`OpenIncident`] | [`IncidentView`] |
//! | `POST /api/incidents/{id}/close` [`CloseIncident`] | [`IncidentView`] |
//!
//! Every change answers the thing as it is afterwards; a change that the state doesn't allow is 409
//! with a code that says why (`deployment_finished`, `not_waiting_for_approval`, `not_judging`,
//! `deployment_active`, `no_release_to_roll_back_to`, `incident_closed`).

mod deployment;
mod dora;
mod environments;
mod incidents;
mod progress;

pub use deployment::*;
pub use dora::*;
pub use environments::*;
pub use incidents::*;
pub use progress::*;

pub use pipeyard_model::deployment::{Health, HealthState};

pub use crate::runner::ReasonView;
