//! Histograms of durations with one writer each.
//!
//! Guarantees:
//! - Recording costs two plain loads and stores. It needs no lock and no atomic read-modify-write, because only the
//!   worker that owns a histogram writes it.
//! - A scrape sums the histograms of all workers.
//! - Durations are summed as whole nanoseconds and converted to seconds only for display.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of `command_duration_seconds`, in nanoseconds: half a millisecond to a minute.
pub(crate) const COMMAND_BOUNDS: &[u64] = &[
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Upper bounds of the buckets of `gateway_duration_seconds`, in nanoseconds: 20 microseconds to a second.
pub(crate) const GATEWAY_BOUNDS: &[u64] = &[
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
];

/// One worker's histogram.
#[derive(Debug)]
pub(crate) struct DurationHistogram {
    bounds: &'static [u64],
    counts: Box<[AtomicU64]>, // one per bound, and one for durations beyond the last bound
    sum_ns: AtomicU64,
}

/// The distribution that a scrape shows: the sum over all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DurationDistribution {
    /// Pairs of an upper bound and the number of durations up to it (cumulative), without the `+Inf` bucket.
    pub(crate) buckets: Vec<(Duration, u64)>,
    /// The number of durations.
    pub(crate) count: u64,
    /// The sum of all durations.
    pub(crate) sum: Duration,
}

impl DurationHistogram {
    /// An empty histogram over `bounds`, which must ascend.
    pub(crate) fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum_ns: AtomicU64::new(0) }
    }

    /// Records one duration. Only the owning worker calls this.
    pub(crate) fn record(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|bound| *bound < ns);
        add_relaxed(&self.counts[bucket], 1);
        add_relaxed(&self.sum_ns, ns);
    }

    /// Sums histograms that have the same bounds.
    pub(crate) fn sum_workers<'a>(bounds: &[u64], workers: impl Iterator<Item = &'a Self>) -> DurationDistribution {
        let mut counts = vec![0_u64; bounds.len() + 1];
        let mut sum_ns = 0_u64;
        for worker in workers {
            for (total, count) in counts.iter_mut().zip(&worker.counts) {
                *total += count.load(Ordering::Relaxed);
            }
            sum_ns = sum_ns.saturating_add(worker.sum_ns.load(Ordering::Relaxed));
        }
        cumulate(bounds, &counts, Duration::from_nanos(sum_ns))
    }
}

fn cumulate(bounds: &[u64], counts: &[u64], sum: Duration) -> DurationDistribution {
    let mut count = 0;
    let mut buckets = Vec::with_capacity(bounds.len());
    for (bound, in_bucket) in bounds.iter().zip(counts) {
        count += in_bucket;
        buckets.push((Duration::from_nanos(*bound), count));
    }
    let beyond = counts.last().copied().unwrap_or(0);
    DurationDistribution { buckets, count: count + beyond, sum }
}

fn add_relaxed(number: &AtomicU64, more: u64) {
    number.store(number.load(Ordering::Relaxed).saturating_add(more), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_falls_into_the_first_bucket_with_a_bound_at_least_as_large() {
        for (ns, bucket) in [(0, 0), (20_000, 0), (20_001, 1), (1_000_000_000, 10), (1_000_000_001, 11)] {
            let histogram = DurationHistogram::new(GATEWAY_BOUNDS);
            histogram.record(Duration::from_nanos(ns));
            let filled = histogram.counts.iter().position(|count| count.load(Ordering::Relaxed) == 1);
            assert_eq!(filled, Some(bucket), "{ns} ns");
        }
    }

    #[test]
    fn workers_are_summed_and_buckets_are_cumulative() {
        let (one, other) = (DurationHistogram::new(GATEWAY_BOUNDS), DurationHistogram::new(GATEWAY_BOUNDS));
        one.record(Duration::from_micros(10));
        other.record(Duration::from_micros(30));
        other.record(Duration::from_secs(2));
        let seen = DurationHistogram::sum_workers(GATEWAY_BOUNDS, [&one, &other].into_iter());
        assert_eq!(seen.buckets[0], (Duration::from_micros(20), 1));
        assert_eq!(seen.buckets[1], (Duration::from_micros(50), 2));
        assert_eq!(seen.buckets[10], (Duration::from_secs(1), 2));
        assert_eq!((seen.count, seen.sum), (3, Duration::from_micros(2_000_040)));
    }

    #[test]
    fn bounds_are_ascending() {
        for bounds in [COMMAND_BOUNDS, GATEWAY_BOUNDS] {
            assert!(bounds.is_sorted_by(|a, b| a < b));
        }
    }
}
