//! The lines of the gateway's log on their way: how often a line may come, and the queue of the thread that writes
//! them.
//!
//! Leaves to `logging`: formats and levels.

pub(super) mod log_queue;
pub(super) mod log_throttle;
