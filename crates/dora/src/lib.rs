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
//! What a deployment or incident adds to the metrics is its [`Contribution`], decided once, in [`Role`].
//! [`Totals`] add contributions up and every number is read from them, whether they come from the facts
//! of a window ([`Report::new`]) or from [`Cell`]s that were kept by day, month and place
//! ([`Report::of_sums`]). The facts also give the rows: each with the reason why it counts or doesn't.
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
mod rhythm;
mod role;
mod rows;
mod sorted;
mod totals;
mod words;

pub use attribution::{ATTRIBUTION_WINDOW, attribute};
pub use calendar::{BadWindow, By, Window};
pub use cell::{Cell, CellKey, Drift, Piece, Tier, cell_keys, pieces};
pub use contribution::{
    Contribution, Counts, Failure, Source, contribution, failure_of, incident_contribution,
};
pub use fact::{
    CommitFact, Confidence, DeploymentFact, FailureLink, IncidentFact, Kind, Method, Outcome,
    RangeStatus,
};
pub use histogram::{Histogram, MAX_RELATIVE_ERROR};
pub use lead::{LeadStart, MAX_SKEW, NoLead, lead_time};
pub use report::{Bucket, Facts, Metric, MetricName, Report, Scope, Sums, Unit};
pub use rhythm::Rhythm;
pub use role::Role;
pub use rows::{Row, Standing};
pub use totals::{Samples, Totals};
