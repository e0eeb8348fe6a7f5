//! Slow start: the part of its weight that counts for a server that has just become healthy (Envoy's
//! `slow_start_config`).
//!
//! Guarantees: pure; the weight grows from `SLOW_START_MIN` to `FULL_WEIGHT` within the configured time, and is never
//! 0.
//! Leaves to others: since when a server is healthy (`health`), and the choice of a server (`load_balancing`).

/// The whole weight counts.
pub(crate) const FULL_WEIGHT: u64 = 1000;

/// The share that a server starts slowly with, of a thousand; Envoy's `min_weight_percent`.
pub(crate) const SLOW_START_MIN: u64 = 100;
