//! The suite that every database passes: one module by aggregate, called by each store crate with
//! a fresh, empty store.

pub mod people;
