//! The Docker executor with a real Docker.

mod checkout;
mod daemon;
mod hostile;
mod leftovers;
mod pull;
mod services;
mod steps;
mod support;
