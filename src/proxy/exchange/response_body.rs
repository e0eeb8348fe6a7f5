//! The response body: it streams, counts bytes, and carries the command's account to its end.
//!
//! Guarantees:
//!
//! - At most one frame is held.
//! - An idle timeout bounds the silence of a subsystem.
//! - A bandwidth limit splits frames and pauses between pieces. A piece is counted when it is handed over. A pause is
//!   no silence of the subsystem.
//! - A deadline of the configuration is checked before each frame. The deadline of a gRPC caller is checked only while
//!   no frame is available.
//! - The account is settled as soon as the last byte of content is handed over, or the trailers where they determine
//!   the outcome. Settling does not depend on one more poll.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Response;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use crate::model::Finished;
use crate::proxy::io::deadline_timer::DeadlineTimer;
use crate::proxy::message::grpc;
use crate::proxy::message::header_rules::sanitize_response_trailers;
use crate::proxy::upstream::{ServerLease, UpstreamBody};

use super::bandwidth_limiter::BandwidthLimiter;
use super::gzip::GzipBody;
use super::in_flight_command::InFlightCommand;
use super::tunnel::UpgradeTunnel;

/// The body of a response.
pub(crate) enum ResponseBody {
    /// The body of a local response.
    Local(Full<Bytes>),
    /// The subsystem's body, metered. Boxed, because hyper moves responses often.
    Metered(Box<MeteredBody>),
    /// The subsystem's body, metered and compressed.
    Gzip(Box<GzipBody>),
    /// No body: the connection or the stream becomes this tunnel once the head of the response is sent.
    Upgrade(Option<Box<UpgradeTunnel>>),
}

impl ResponseBody {
    /// The tunnel that the connection or the stream becomes, for the code that runs it.
    pub(crate) fn take_tunnel(&mut self) -> Option<Box<UpgradeTunnel>> {
        match self {
            Self::Upgrade(tunnel) => tunnel.take(),
            _ => None,
        }
    }

    /// Limits the bytes read ahead from now on.
    pub(crate) fn set_read_ahead_max(&mut self, bytes: usize) {
        let below = match self {
            Self::Local(_) | Self::Upgrade(_) => return,
            Self::Metered(metered) => metered,
            Self::Gzip(compressed) => &mut compressed.body,
        };
        let limited = below.limiter.as_ref().map_or(usize::MAX, |limiter| limiter.read_ahead_max());
        below.upstream_body.set_read_ahead_max(bytes.min(limited));
    }

    /// Bytes that were read and not handed over yet.
    pub(crate) fn buffered_bytes(&self) -> usize {
        match self {
            Self::Local(_) | Self::Upgrade(_) => 0,
            Self::Metered(metered) => metered.upstream_body.buffered_bytes() + metered.held_bytes(),
            Self::Gzip(compressed) => compressed.body.upstream_body.buffered_bytes() + compressed.held_bytes(),
        }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Local(full) => Pin::new(full).poll_frame(context).map_err(|never| match never {}),
            Self::Metered(metered) => metered.poll_metered(context),
            Self::Gzip(compressed) => compressed.poll_compressed(context),
            Self::Upgrade(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(full) => full.is_end_stream(),
            Self::Metered(metered) => metered.upstream_body.is_end_stream() && metered.held_bytes() == 0,
            Self::Gzip(compressed) => compressed.is_end_stream(),
            Self::Upgrade(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(full) => full.size_hint(),
            Self::Metered(metered) => metered.size_hint(),
            Self::Gzip(_) => SizeHint::default(),
            Self::Upgrade(_) => SizeHint::with_exact(0),
        }
    }
}

/// The subsystem's response body on its way to the caller, metered.
pub(crate) struct MeteredBody {
    upstream_body: UpstreamBody,
    unsettled: Option<(InFlightCommand, ServerLease)>,
    outcome: OutcomeSource,
    limits: BodyTimeLimits,
    limiter: Option<Box<BandwidthLimiter>>,
    idle_timer: DeadlineTimer,
    deadline_timer: DeadlineTimer,
}

/// The time limits of a response body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyTimeLimits {
    /// The idle timeout of the subsystem.
    pub(crate) idle_timeout: Duration,
    /// The end of the command or of its attempt, whichever comes first.
    pub(crate) deadline: Option<Instant>,
    /// Whether the command has timeouts of the configuration.
    pub(crate) is_configured: bool,
    /// Whether the caller gets a gRPC status at the deadline. Any other response is cut off.
    pub(crate) is_grpc: bool,
}

impl BodyTimeLimits {
    /// Whether the deadline has passed, even if a frame is available: a subsystem that never pauses, or a caller that
    /// reads slowly, does not extend it.
    fn is_strictly_over(&self) -> bool {
        self.is_configured && self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// The source of the outcome, once the whole body has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutcomeSource {
    /// The head determines the outcome.
    Head(Finished),
    /// The trailers determine the outcome (`grpc-status`). A response without them has failed.
    Trailers,
}

impl MeteredBody {
    /// A metered body.
    pub(crate) fn new(
        incoming: UpstreamBody,
        open: (InFlightCommand, ServerLease),
        verdict: OutcomeSource,
        limits: BodyTimeLimits,
    ) -> Self {
        Self {
            upstream_body: incoming,
            unsettled: Some(open),
            outcome: verdict,
            limits,
            limiter: None,
            idle_timer: DeadlineTimer::default(),
            deadline_timer: DeadlineTimer::new(limits.deadline),
        }
    }

    /// The same body, with a bandwidth limit.
    pub(crate) fn limited_by(mut self, limiter: Option<BandwidthLimiter>) -> Self {
        self.limiter = limiter.map(Box::new);
        self
    }

    pub(crate) fn poll_metered(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.unsettled.is_some() && self.limits.is_strictly_over() {
            return Poll::Ready(self.end_at_deadline());
        }
        if let Some(limiter) = &mut self.limiter {
            if limiter.poll_ready(context).is_pending() {
                return self.poll_deadline(context);
            }
            if let Some(piece) = limiter.take_held() {
                self.count_frame(&piece);
                return Poll::Ready(Some(Ok(piece)));
            }
        }
        let Poll::Ready(next) = Pin::new(&mut self.upstream_body).poll_frame(context) else {
            return self.poll_idle(context);
        };
        self.idle_timer.clear();
        Poll::Ready(match next {
            Some(Ok(mut frame)) => {
                frame.trailers_mut().into_iter().for_each(sanitize_response_trailers);
                if let Some(limiter) = &mut self.limiter {
                    frame = limiter.limit_frame(frame);
                }
                self.count_frame(&frame);
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.fail_noting(Finished::UpstreamFailed, |lease| lease.note_connection_error(&error));
                Some(Err(io::Error::other(error)))
            }
            None => {
                self.settle();
                None
            }
        })
    }

    /// Polls the deadline alone, while the bandwidth limit pauses the body.
    pub(crate) fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.unsettled.is_none() {
            return Poll::Pending; // the command has ended
        }
        ready!(self.deadline_timer.poll_elapsed(context));
        Poll::Ready(self.end_at_deadline())
    }

    /// Polls the deadline and the idle timeout while no frame is available.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.unsettled.is_none() {
            return Poll::Pending; // only END_STREAM or trailers are missing, and not for long
        }
        if let ended @ Poll::Ready(_) = self.poll_deadline(context) {
            return ended;
        }
        ready!(self.idle_timer.poll_idle(context, self.limits.idle_timeout));
        while self.waits_for_request_body() {
            self.idle_timer.clear(); // `bodyIdle` bounds that wait
            ready!(self.idle_timer.poll_idle(context, self.limits.idle_timeout));
        }
        self.fail(Finished::Timeout);
        Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
    }

    /// Whether the gateway waits for the next piece of the request body. A subsystem that streams responses to a
    /// streamed request is not idle then.
    fn waits_for_request_body(&self) -> bool {
        self.unsettled.as_ref().is_some_and(|(in_flight, _)| in_flight.progress().waits_for_caller.get())
    }

    fn count_frame(&mut self, frame: &Frame<Bytes>) {
        if let (Some((in_flight, _)), Some(data)) = (&mut self.unsettled, frame.data_ref()) {
            in_flight.add_response_bytes(data.len() as u64);
        }
        if let Some(trailers) = frame.trailers_ref()
            && self.outcome == OutcomeSource::Trailers
        {
            self.outcome = grpc::grpc_outcome(trailers).map_or(OutcomeSource::Trailers, OutcomeSource::Head);
        }
        if frame.is_trailers() || self.is_complete() {
            self.settle(); // hyper need not poll again
        }
    }

    /// Whether everything that the outcome depends on has arrived and was handed over.
    fn is_complete(&self) -> bool {
        let is_known = matches!(self.outcome, OutcomeSource::Head(_));
        let has_arrived = self.upstream_body.is_end_stream() || (is_known && self.upstream_body.is_complete());
        has_arrived && self.held_bytes() == 0
    }

    /// The bytes that the bandwidth limit holds.
    fn held_bytes(&self) -> usize {
        self.limiter.as_ref().map_or(0, |limiter| limiter.held_bytes())
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.upstream_body.size_hint();
        match hint.exact() {
            Some(left) => SizeHint::with_exact(left + self.held_bytes() as u64),
            None => hint,
        }
    }

    fn settle(&mut self) {
        if let Some((in_flight, lease)) = self.unsettled.take() {
            lease.return_connection(&mut self.upstream_body);
            in_flight.settle(match self.outcome {
                OutcomeSource::Head(finished) => finished,
                OutcomeSource::Trailers => Finished::ServerError,
            });
        }
    }

    /// The deadline has passed: settles the command, and sends the status of a gRPC call in trailers or cuts the
    /// response off. That is no failure of the server: its caller may have been slow.
    fn end_at_deadline(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        let (in_flight, _) = self.unsettled.take()?;
        in_flight.settle(Finished::Timeout);
        if !self.limits.is_grpc {
            return Some(Err(io::ErrorKind::TimedOut.into()));
        }
        let mut trailers = HeaderMap::new();
        grpc::put_status(&mut trailers, grpc::DEADLINE_EXCEEDED, "the deadline of this call is exceeded");
        Some(Ok(Frame::trailers(trailers)))
    }

    /// The response broke off. The subsystem is at fault, unless the request body had broken off first.
    fn fail(&mut self, finished: Finished) {
        self.fail_noting(finished, |lease| lease.note_failure(finished));
    }

    /// Like [`Self::fail`], where `note` records the failure in the server's health.
    fn fail_noting(&mut self, finished: Finished, note: impl FnOnce(&ServerLease)) {
        let Some((in_flight, lease)) = self.unsettled.take() else { return };
        if in_flight.body_error().is_some() {
            return in_flight.settle(Finished::Aborted);
        }
        if !in_flight.progress().is_caller_at_fault() {
            note(&lease);
        }
        in_flight.settle(finished);
    }
}

impl Drop for MeteredBody {
    /// Settles a complete body. A response without content is never polled: it is complete when it is dropped. The same
    /// holds if the caller disconnects after the last byte of content.
    ///
    /// Any other body was cut off by its caller. Dropping the account then counts the command as aborted.
    fn drop(&mut self) {
        if self.is_complete() {
            self.settle();
        }
    }
}

/// Every command has a response, whatever the outcome. No other error may reach hyper from here.
pub(crate) type ExchangeResult = Result<Response<ResponseBody>, Infallible>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_deadline_of_the_configuration_holds_while_frames_are_available() {
        let now = Instant::now();
        let later = now + Duration::from_secs(3600);
        for (deadline, is_configured, is_over) in
            [(None, true, false), (Some(later), true, false), (Some(now), true, true), (Some(now), false, false)]
        {
            let limits = BodyTimeLimits { idle_timeout: Duration::ZERO, deadline, is_configured, is_grpc: false };
            assert_eq!(limits.is_strictly_over(), is_over, "{limits:?}");
        }
    }
}
