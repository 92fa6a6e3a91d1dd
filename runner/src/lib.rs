//! LEAD IS WRITING THIS CRATE (runner/). Engineer queue: leave it to the lead; finish the server side, its tests, the conformance suite and the queue bench.
