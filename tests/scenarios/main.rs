//! Scenarios over the real binaries: what a user does, and what a bad day does.

mod bad_days;
mod deploys;
mod docs;
mod pushes;
