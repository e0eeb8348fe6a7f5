//! How fast a caller must send its body.
//!
//! Guarantees: a caller that says nothing for `idle` is late; so is one that has been waited for longer than that
//! altogether and brought less than `rate` bytes for each second of it. Only waiting for the caller counts: a subsystem that
//! takes its time does not make a caller slow.

use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use crate::config::Capacity;

use super::grpc;
use super::silence::Silence;

/// What a caller must keep to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tempo {
    idle: Duration,
    /// Bytes a second; 0 for no limit.
    rate: u64,
}

impl Tempo {
    /// The stream of a gRPC call may say little for long; its silence still has a limit.
    pub(super) fn of(headers: &HeaderMap, capacity: &Capacity) -> Self {
        Self { idle: capacity.body_idle, rate: if grpc::is_spoken(headers) { 0 } else { capacity.body_rate } }
    }
}

/// Follows one body.
pub(super) struct Pace {
    tempo: Tempo,
    silence: Silence,
    waits_since: Option<Instant>,
    waited: Duration,
    heard: u64,
}

impl Pace {
    pub(super) fn new(tempo: Tempo) -> Self {
        Self { tempo, silence: Silence::default(), waits_since: None, waited: Duration::ZERO, heard: 0 }
    }

    /// Nothing has come. Ready when the caller is late.
    pub(super) fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.waits_since.get_or_insert_with(Instant::now);
        self.silence.poll(context, self.tempo.idle)
    }

    /// So many bytes have come; whether that is often enough.
    pub(super) fn hear(&mut self, bytes: u64, now: Instant) -> bool {
        self.silence.broken();
        self.heard += bytes;
        if let Some(since) = self.waits_since.take() {
            self.waited += now.saturating_duration_since(since);
        }
        self.waited <= self.tempo.idle || self.heard >= self.tempo.least_after(self.waited)
    }
}

impl Tempo {
    fn least_after(self, waited: Duration) -> u64 {
        let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        self.rate.saturating_mul(millis) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_caller_that_is_waited_for_too_much_is_slow() {
        let mut pace = Pace::new(Tempo { idle: seconds(10), rate: 100 });
        let begun = Instant::now();
        let late_after = (1..=20).find(|second| {
            pace.waits_since = Some(begun + seconds(second - 1));
            !pace.hear(99, begun + seconds(*second))
        });
        assert_eq!(late_after, Some(11));
    }

    #[test]
    fn time_in_which_nobody_waits_for_the_caller_does_not_count() {
        let mut pace = Pace::new(Tempo { idle: seconds(1), rate: 1000 });
        let begun = Instant::now();
        assert!((1..=10).all(|minute| pace.hear(1, begun + seconds(60 * minute))));
    }

    #[test]
    fn a_grpc_stream_has_no_least_rate_and_everything_else_has() {
        let capacity = Capacity::default();
        let rate = |kind: &'static str| {
            let kind = (http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
            Tempo::of(&[kind].into_iter().collect(), &capacity).rate
        };
        assert_eq!(Tempo::of(&HeaderMap::new(), &capacity).rate, capacity.body_rate);
        for grpc in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
            assert_eq!(rate(grpc), 0, "{grpc}");
        }
        for other in ["application/grpc-web", "application/grpc-web+proto", "application/grpcx"] {
            assert_eq!(rate(other), capacity.body_rate, "{other}: a slow upload must not escape by its name");
        }
    }
}
