//! Slow start: a server that has just become healthy counts with a part of its weight (Envoy's `slow_start_config`).
//!
//! Guarantees: pure. The weight grows from `SLOW_START_MIN` to `FULL_WEIGHT` within the configured time, never 0.
//!
//! Leaves to others: the start of a server's healthy period (`outlier_ejection`), and the choice of a server
//! (`load_balancing`).

use std::time::Duration;

/// The slow-start weight of a server with its full share.
pub(crate) const FULL_WEIGHT: u64 = 1000;

/// The slow-start weight at the beginning, of [`FULL_WEIGHT`]; Envoy's `min_weight_percent`.
pub(crate) const SLOW_START_MIN: u64 = 100;

/// The weight of a server that has been healthy for `elapsed_ms`: `elapsed / slow_start` of [`FULL_WEIGHT`], at least
/// [`SLOW_START_MIN`].
pub(crate) fn weight_after(elapsed_ms: u64, slow_start: Duration) -> u64 {
    let whole = u64::try_from(slow_start.as_millis()).unwrap_or(u64::MAX).max(1);
    (elapsed_ms.saturating_mul(FULL_WEIGHT) / whole).clamp(SLOW_START_MIN, FULL_WEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_grows_linearly_within_its_bounds() {
        let weights = [0, 500, 1_000, 5_000, 10_000, 60_000].map(|ms| weight_after(ms, Duration::from_secs(10)));
        assert_eq!(weights, [100, 100, 100, 500, 1000, 1000]);
        assert_eq!(weight_after(1, Duration::ZERO), FULL_WEIGHT);
    }
}
