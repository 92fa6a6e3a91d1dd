//! The Docker executor with a real Docker.

mod steps;
mod support;
