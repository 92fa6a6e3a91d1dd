//! The Docker executor with a real Docker.

mod checkout;
mod daemon;
mod egress;
mod hostile;
mod lease;
mod leftovers;
mod limits;
mod pull;
mod services;
mod steps;
mod support;
