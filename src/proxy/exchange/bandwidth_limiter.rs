//! The bandwidth limit of one response (`bandwidthLimit`): the pieces of its body, and the pauses between them.
//!
//! Guarantees:
//! - The numbers are those of nginx (`limit_rate` and `limit_rate_after`, `ngx_http_write_filter`): at a time `t` after
//!   the arrival of the command, at most `after + rate * (t + 1 s)` bytes were handed over; and each piece is followed
//!   by a pause, which is as long as its bytes beyond `after` take at the rate.
//! - A pause that ended late by at most [`CATCH_UP_MAX`] makes the next one shorter, so that the rate does not depend
//!   on the precision of timers.
//! - At most the rest of one frame is held. A limited response has one timer.
//!
//! Leaves to others: the frames, their metering, and timeouts (`response_body`, `gzip`).

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;
use tokio::time::Instant;

use crate::model::BandwidthLimit;
use crate::proxy::io::deadline_timer::DeadlineTimer;

/// The longest delay of a pause that is made up for.
const CATCH_UP_MAX: Duration = Duration::from_millis(100);
/// The least number of bytes that are read ahead at once.
const READ_AHEAD_MIN: usize = 1024;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Hands over the frames of one body at the rate of its limit.
#[derive(Debug)]
pub(crate) struct BandwidthLimiter {
    limit: BandwidthLimit,
    arrived_at: Instant,
    /// The bytes handed over.
    sent: u64,
    /// The rest of the last frame.
    held: Bytes,
    paused_until: Option<Instant>,
    timer: DeadlineTimer,
}

impl BandwidthLimiter {
    /// The limiter of the response to a command that arrived at this time.
    pub(crate) fn new(limit: BandwidthLimit, arrived_at: Instant) -> Self {
        Self { limit, arrived_at, sent: 0, held: Bytes::new(), paused_until: None, timer: DeadlineTimer::default() }
    }

    /// Ready when the next piece may be handed over.
    pub(crate) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.paused_until {
            Some(end) if end > Instant::now() => self.timer.poll_at(context, end),
            _ => Poll::Ready(()),
        }
    }

    /// The bytes that are held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// The most bytes that are worth a read: what a quarter of a second sends.
    pub(crate) fn read_ahead_max(&self) -> usize {
        usize::try_from(self.limit.rate.get() / 4).unwrap_or(usize::MAX).max(READ_AHEAD_MIN)
    }

    /// The next piece of the bytes that are held, if there are any. Called when the limiter is ready.
    pub(crate) fn take_held(&mut self) -> Option<Frame<Bytes>> {
        let held = std::mem::take(&mut self.held);
        (!held.is_empty()).then(|| self.take_piece(held, Instant::now()))
    }

    /// The first piece of a frame; the rest is held. Trailers are handed over whole. Called when the limiter is ready
    /// and holds nothing.
    pub(crate) fn limit_frame(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        match frame.into_data() {
            Ok(data) => self.take_piece(data, Instant::now()),
            Err(frame) => frame,
        }
    }

    fn take_piece(&mut self, mut data: Bytes, now: Instant) -> Frame<Bytes> {
        let length = usize::try_from(self.allowance(now)).unwrap_or(usize::MAX).clamp(1, data.len().max(1));
        self.held = data.split_off(length.min(data.len()));
        let before = self.sent.max(self.limit.after);
        self.sent = self.sent.saturating_add(data.len() as u64);
        self.pause_for(self.sent.saturating_sub(before), now);
        Frame::data(data)
    }

    /// The number of bytes that may be handed over now.
    fn allowance(&self, now: Instant) -> u64 {
        let nanos = now.saturating_duration_since(self.arrived_at).as_nanos() + NANOS_PER_SECOND;
        let by_rate = u128::from(self.limit.rate.get()).saturating_mul(nanos) / NANOS_PER_SECOND;
        let all = by_rate.saturating_add(self.limit.after.into());
        u64::try_from(all.saturating_sub(self.sent.into())).unwrap_or(u64::MAX)
    }

    /// Pauses for the time that these bytes take at the rate.
    fn pause_for(&mut self, bytes: u64, now: Instant) {
        if bytes == 0 {
            return;
        }
        let nanos = (u128::from(bytes) * NANOS_PER_SECOND).div_ceil(self.limit.rate.get().into());
        let pause = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let on_time = self.paused_until.filter(|end| now.saturating_duration_since(*end) <= CATCH_UP_MAX);
        self.paused_until = Some(on_time.unwrap_or(now) + pause);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::task::Waker;

    use http::HeaderMap;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(rate: u64, after: u64, arrived_at: Instant) -> BandwidthLimiter {
        BandwidthLimiter::new(BandwidthLimit { rate: NonZeroU64::new(rate).expect("a rate"), after }, arrived_at)
    }

    /// The pieces of frames of these lengths, each with the time since the arrival, of a caller that takes all at once.
    /// The first frame is available at `first`.
    fn pieces(limiter: &mut BandwidthLimiter, first: Duration, frames: &[usize]) -> Vec<(usize, Duration)> {
        let (mut now, mut pieces) = (limiter.arrived_at + first, Vec::new());
        for length in frames {
            limiter.held = vec![7; *length].into();
            while limiter.held_bytes() > 0 {
                now = limiter.paused_until.map_or(now, |end| end.max(now));
                let held = std::mem::take(&mut limiter.held);
                let piece = limiter.take_piece(held, now).into_data().expect("data");
                pieces.push((piece.len(), now - limiter.arrived_at));
            }
        }
        pieces
    }

    #[test]
    fn pieces_are_those_of_nginx() {
        let millis = Duration::from_millis;
        for (rate, after, first, frames, expected) in [
            // A frame longer than a second's bytes is split.
            (1000, 0, 0, &[2500][..], &[(1000, 0), (1000, 1000), (500, 2000)][..]),
            // Short frames are each followed by the time that they take.
            (1000, 0, 0, &[500, 100, 400], &[(500, 0), (100, 500), (400, 600)]),
            // The beginning is free; a frame that crosses its end pays for the rest alone.
            (1000, 600, 0, &[500, 500, 100], &[(500, 0), (500, 0), (100, 400)]),
            (1000, 5000, 0, &[500, 4500, 100, 1], &[(500, 0), (4500, 0), (100, 0), (1, 100)]),
            // A server that took two seconds to respond: the rate holds from the arrival of the command.
            (1000, 0, 2000, &[5000], &[(3000, 2000), (2000, 5000)]),
            // No limit is too large.
            (u64::MAX, u64::MAX, 0, &[70_000, 70_000], &[(70_000, 0), (70_000, 0)]),
            // The smallest limit.
            (1, 0, 0, &[3], &[(1, 0), (1, 1000), (1, 2000)]),
        ] {
            let mut limiter = limiter(rate, after, Instant::now());
            let expected: Vec<_> = expected.iter().map(|(length, at)| (*length, millis(*at))).collect();
            assert_eq!(pieces(&mut limiter, millis(first), frames), expected, "{rate} after {after}: {frames:?}");
        }
    }

    #[test]
    fn short_delays_are_made_up_for_and_long_ones_are_not() {
        let begun = Instant::now();
        for (late, pause) in [(50, 950), (100, 900), (101, 1000), (60_000, 1000)] {
            let mut limiter = limiter(1000, 0, begun);
            let _first = limiter.take_piece(Bytes::from_static(&[7; 1000]), begun);
            let now = begun + SECOND + Duration::from_millis(late);
            let _second = limiter.take_piece(Bytes::from_static(&[7; 1000]), now);
            assert_eq!(limiter.paused_until.map(|end| end - now), Some(Duration::from_millis(pause)), "{late} ms late");
        }
    }

    #[test]
    fn trailers_and_empty_frames_cost_nothing() {
        let mut limiter = limiter(1, 0, Instant::now());
        assert!(limiter.limit_frame(Frame::trailers(HeaderMap::new())).is_trailers());
        assert_eq!(limiter.limit_frame(Frame::data(Bytes::new())).into_data().expect("data"), "");
        assert!(limiter.take_held().is_none());
        assert!(limiter.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
        assert!(!limiter.timer.is_set() && limiter.paused_until.is_none());
    }

    #[tokio::test]
    async fn a_pause_ends_at_its_time() {
        let begun = Instant::now();
        let mut limiter = limiter(1000, 0, begun);
        for sent in [20, 40] {
            let frame = Frame::data(Bytes::from_static(&[7; 20]));
            assert_eq!(limiter.limit_frame(frame).into_data().expect("data").len(), 20);
            assert!(limiter.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending());
            std::future::poll_fn(|context| limiter.poll_ready(context)).await;
            assert!(begun.elapsed() >= Duration::from_millis(sent), "{sent} bytes take {sent} ms");
        }
    }
}
