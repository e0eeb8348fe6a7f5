//! The idle timeout and the minimum rate of request bodies.
//!
//! Guarantees:
//!
//! - A caller that sends nothing for `idle` is too slow.
//! - With W the total time spent waiting for the caller: if W > `idle`, at least `rate` x W bytes must have arrived.
//! - Only the time spent waiting for the caller counts: a slow subsystem does not make a caller slow.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::CapacitySettings;
use crate::proxy::io::deadline_timer::DeadlineTimer;

/// The minimum that a caller must keep to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MinBodyRate {
    idle: Duration,
    /// Bytes per second; 0 for no limit.
    bytes_per_second: u64,
}

impl MinBodyRate {
    /// The minimum for a request. A gRPC stream may carry little data for a long time: it has an idle timeout and no
    /// minimum rate.
    pub(crate) fn for_request(is_grpc: bool, capacity: &CapacitySettings) -> Self {
        Self { idle: capacity.body_idle, bytes_per_second: if is_grpc { 0 } else { capacity.body_rate } }
    }
}

/// Measures the rate of one body.
pub(crate) struct BodyRateMeter {
    minimum: MinBodyRate,
    idle_timer: DeadlineTimer,
    waiting_since: Option<Instant>,
    waited: Duration,
    received: u64,
}

impl BodyRateMeter {
    pub(crate) fn new(minimum: MinBodyRate) -> Self {
        Self { minimum, idle_timer: DeadlineTimer::default(), waiting_since: None, waited: Duration::ZERO, received: 0 }
    }

    /// Polls the idle timeout, while no data is available. Ready when the caller is too slow.
    pub(crate) fn poll_too_slow(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        self.idle_timer.poll_at(context, since + self.minimum.idle)
    }

    /// Records arrived bytes. Returns whether the minimum rate is kept.
    pub(crate) fn record(&mut self, bytes: u64, now: Instant) -> bool {
        self.received += bytes;
        if let Some(since) = self.waiting_since.take() {
            self.waited += now.saturating_duration_since(since);
        }
        self.waited <= self.minimum.idle || self.received >= self.minimum.minimum_after(self.waited)
    }
}

impl MinBodyRate {
    fn minimum_after(self, waited: Duration) -> u64 {
        let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        self.bytes_per_second.saturating_mul(millis) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::message::grpc;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn caller_below_the_minimum_rate_is_slow() {
        let mut pace = BodyRateMeter::new(MinBodyRate { idle: seconds(10), bytes_per_second: 100 });
        let begun = Instant::now();
        let late_after = (1..=20).find(|second| {
            pace.waiting_since = Some(begun + seconds(second - 1));
            !pace.record(99, begun + seconds(*second))
        });
        assert_eq!(late_after, Some(11));
    }

    #[test]
    fn time_without_a_pending_read_does_not_count() {
        let mut pace = BodyRateMeter::new(MinBodyRate { idle: seconds(1), bytes_per_second: 1000 });
        let begun = Instant::now();
        assert!((1..=10).all(|minute| pace.record(1, begun + seconds(60 * minute))));
    }

    #[test]
    fn grpc_stream_has_no_minimum_rate_and_other_bodies_have() {
        let capacity = CapacitySettings::default();
        let rate = |kind: &'static str| {
            let kind = (http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
            MinBodyRate::for_request(grpc::is_grpc(&[kind].into_iter().collect()), &capacity).bytes_per_second
        };
        assert_eq!(MinBodyRate::for_request(false, &capacity).bytes_per_second, capacity.body_rate);
        for grpc in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
            assert_eq!(rate(grpc), 0, "{grpc}");
        }
        for other in ["application/grpc-web", "application/grpc-web+proto", "application/grpcx"] {
            assert_eq!(rate(other), capacity.body_rate, "{other}: a slow upload must not escape by its name");
        }
    }
}
