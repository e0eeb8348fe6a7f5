//! Slow start: a server that has just become healthy counts with a part of its weight (Envoy's `slow_start_config`).
//!
//! Guarantees: pure. The weight grows from `SLOW_START_MIN` to `FULL_WEIGHT` within the configured time, never 0.
//!
//! Leaves to others: the start of a server's healthy period (`health`), and the choice of a server (`load_balancing`).

/// The slow-start weight of a server with its full share.
pub(crate) const FULL_WEIGHT: u64 = 1000;

/// The slow-start weight at the beginning, of [`FULL_WEIGHT`]; Envoy's `min_weight_percent`.
pub(crate) const SLOW_START_MIN: u64 = 100;
