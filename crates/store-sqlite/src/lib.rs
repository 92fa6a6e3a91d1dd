//! The store on SQLite: the embedded default. Checked SQL and nothing else.

pub mod writer;
