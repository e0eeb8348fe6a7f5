//! Begin and end: ready when every guard of the start is dropped, drained when every watcher is dropped.
//!
//! Guarantees: nothing to forget. Whoever must be waited for holds a value; dropping it is the report.

mod drain;
mod readiness;

pub use drain::{DrainTrigger, DrainWatcher, drain};
pub use readiness::{Readiness, ReadinessBlock};
