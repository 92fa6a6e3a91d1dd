//! Scenarios over the real binaries: what a user does, and what a bad day does.

mod backup;
mod bad_days;
mod bad_input_files;
mod bad_input_hooks;
mod bad_input_steps;
mod deploys;
mod deploys_sick;
mod docs;
mod homes;
mod pushes;
mod slim_hook;
mod tests_of_jobs;
mod upgrade;
