//! The pipeline language: from the text of `.pipeyard.yml` to a [`Plan`] that a runner executes.
//!
//! [`compile`] is the whole of it. It is pure: no file is read, no clock asked, no network used. It
//! never stops halfway: it answers with everything that it found out and every diagnostic at once,
//! each with its place in the file. There is a plan if and only if no diagnostic is an error.
//!
//! The stages are `yaml` (text to a tree that remembers where each key and value stood), `check`
//! (tree to jobs and deploys, by the tables in [`keys`]), `graph` (names, cycles, releases) and the
//! choice of deploys for the event. Absent on purpose: expressions, includes and templates. The only
//! thing that is filled in is `${commit.…}`, and never into what is executed.

mod check;
mod code;
mod compile;
mod context;
mod deploy;
mod diagnostic;
mod files;
mod graph;
mod image;
mod interpolate;
mod job;
pub mod keys;
mod render;
mod trigger;
mod value;
mod when;
mod yaml;

pub use code::{Code, explain};
pub use compile::{Compiled, LeftOut, compile};
pub use context::{Context, Event};
pub use diagnostic::{Diagnostic, Severity};
pub use files::{Source, missing_file, pipeline_files, pipeline_name};
pub use pipeyard_model::plan::Plan;
pub use render::render;
pub use trigger::{Branches, DeployRule, Trigger};

/// The most bytes that a pipeline file may have.
pub const MAX_BYTES: usize = 1 << 20;
/// The most jobs and deploys in one file.
pub const MAX_NODES: usize = 10_000;
/// The most steps in one job.
pub const MAX_STEPS: usize = 1_000;
/// The longest timeout and the longest hold of a canary step, in seconds.
pub const MAX_SECONDS: u64 = 24 * 60 * 60;
/// The timeout of a job that names none, in seconds.
pub const DEFAULT_TIMEOUT_SECONDS: u64 = 60 * 60;
/// The most automatic retries of a job.
pub const MAX_RETRY: u64 = 10;
