//! The arithmetic of DORA's metrics, pure: facts in, numbers out, with the reason for each.
//!
//! | metric | value |
//! |---|---|
//! | deployment frequency | deployments that reached production, per calendar day |
//! | change lead time | from a commit's start to the end of the deployment that brought it; median |
//! | change fail rate | deployments that failed after users had reached them, of all that users reached |
//! | failed deployment recovery time | from such a deployment's first traffic to restored; median |
//! | rework rate | rollbacks and hotfixes, of all deployments and rollbacks |
//! | time to restore | over all incidents, whatever caused them; median |
//!
//! Two ways lead to the same numbers. A [`Report`] works on the facts of a window, is exact and lists
//! every row with the reason why it counts or doesn't. [`Cell`]s keep [`Contribution`]s added up by
//! day, month, team and service; they are for windows with more rows than one wants to read. What a
//! deployment contributes is decided once, in [`Role`], for both.
//!
//! Rules that hold everywhere: a failed deployment counts once however many incidents it has; a
//! rollback is no deployment; an empty bucket of a duration or ratio has no value; a percentile is one
//! of the samples, never a mean of aggregates; a late incident changes the bucket of the deployment
//! that failed. Absent: storage, clocks, and finding out which commits a deployment brought.

mod attribution;
mod calendar;
mod cell;
mod contribution;
mod fact;
mod histogram;
mod lead;
mod report;
mod role;
mod rows;
mod sorted;
mod words;

pub use attribution::{ATTRIBUTION_WINDOW, attribute};
pub use calendar::{BadWindow, By, Window};
pub use cell::{Cell, CellKey, Drift, Scope as CellScope, Tier, cell_keys};
pub use contribution::{Contribution, Failure, contribution, failure_of};
pub use fact::{
    CommitFact, Confidence, DeploymentFact, FailureLink, IncidentFact, Kind, Method, Outcome,
    RangeStatus,
};
pub use histogram::{Histogram, MAX_RELATIVE_ERROR};
pub use lead::{LeadStart, MAX_SKEW, NoLead, lead_time};
pub use report::{Bucket, Facts, Metric, MetricName, Report, Scope, Unit};
pub use role::Role;
pub use rows::{Row, Standing};
