//! Readiness at the start, and graceful shutdown (draining) at the end.
//!
//! Guarantees:
//!
//! - [`Departure`] announces the stop before the drain begins; [`AcceptingPhase`] is the time between the two.
//! - The process is ready once every [`ReadinessBlock`] is dropped, and drained once every [`DrainWatcher`] is dropped.
//! - A task that must be waited for holds such a value. The drop of the value is the report, so no report can be
//!   forgotten.

mod accepting_phase;
mod departure;
mod drain;
mod readiness;

pub use accepting_phase::{AcceptingEnd, AcceptingPhase};
pub use departure::Departure;
pub use drain::{DrainTrigger, DrainWatcher, drain};
pub use readiness::{AwaitedReason, Readiness, ReadinessBlock};
