//! A replayable request body over HTTP/2. It can be rewound and sent again on another stream if the server has
//! processed nothing of the request (RFC 9113 section 8.7).
//!
//! Guarantees:
//! - A body is rewound whole or not at all.
//! - At most [`REPLAY_MAX`] bytes of a body are buffered, in a buffer of its own, and only until the head of the
//!   response arrives.
//!
//! Leaves to [`crate::proxy::upstream::BackendServers`]: whether a request is resent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::proxy::message::request_body::RequestBody;

/// The maximum of buffered bytes of a body: the number of bytes that a caller may send on one stream before it needs
/// flow-control credit.
const REPLAY_MAX: usize = 64 * 1024;

/// The body of a request. Most requests have none.
pub(crate) struct ReplayableBody(Option<Box<BufferedBody>>);

struct BufferedBody {
    body: RequestBody,
    buffer: ReplayBuffer,
}

/// The part of a body that was taken by a stream.
struct ReplayBuffer {
    bytes: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// The number of bytes that the current stream has taken from `bytes`.
    replayed: usize,
    /// Whether the current stream has taken the trailers.
    trailers_replayed: bool,
    /// Whether the buffer holds everything that was taken.
    is_complete: bool,
}

impl ReplayBuffer {
    fn empty() -> Self {
        Self { bytes: Vec::new(), trailers: None, replayed: 0, trailers_replayed: false, is_complete: true }
    }

    /// The next buffered frame for a stream that replays the body.
    fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        let rest = &self.bytes[self.replayed..];
        if !rest.is_empty() {
            let data = Bytes::copy_from_slice(rest);
            self.replayed = self.bytes.len();
            return Some(Frame::data(data));
        }
        let trailers = self.trailers.clone().filter(|_| !self.trailers_replayed)?;
        self.trailers_replayed = true;
        Some(Frame::trailers(trailers))
    }

    fn is_replayed(&self) -> bool {
        self.replayed == self.bytes.len() && (self.trailers_replayed || self.trailers.is_none())
    }

    /// Copies a frame into the buffer. A frame may be one byte of a large buffer, which a reference would keep alive.
    fn record(&mut self, frame: &Frame<Bytes>) {
        if !self.is_complete {
            return;
        }
        if let Some(data) = frame.data_ref() {
            if self.bytes.len() + data.len() > REPLAY_MAX {
                return self.discard();
            }
            self.bytes.extend_from_slice(data);
            self.replayed = self.bytes.len();
        }
        if let Some(trailers) = frame.trailers_ref() {
            (self.trailers, self.trailers_replayed) = (Some(trailers.clone()), true);
        }
    }

    /// Restarts the replay for another stream.
    fn rewind(&mut self) {
        (self.replayed, self.trailers_replayed) = (0, false);
    }

    fn discard(&mut self) {
        *self = Self { is_complete: false, ..Self::empty() };
    }
}

impl ReplayableBody {
    /// Wraps a body.
    pub(crate) fn new(body: RequestBody) -> Self {
        Self((!body.is_empty()).then(|| Box::new(BufferedBody { body, buffer: ReplayBuffer::empty() })))
    }

    /// No body.
    pub(crate) fn empty() -> Self {
        Self(None)
    }

    /// Whether there is no body.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Drops the buffer, because the server has begun to process the request.
    pub(crate) fn discard(&mut self) {
        if let Some(loan) = &mut self.0 {
            loan.buffer.discard();
        }
    }

    /// Rewinds the body for another stream; `None` if more was taken than is buffered.
    pub(crate) fn rewind(self) -> Option<Self> {
        let Some(mut loan) = self.0 else { return Some(Self::empty()) };
        loan.buffer.rewind();
        loan.buffer.is_complete.then_some(Self(Some(loan)))
    }
}

impl BufferedBody {
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(frame) = self.buffer.next_frame() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let next = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &next {
            self.buffer.record(frame);
        }
        Poll::Ready(next)
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, held) = (self.body.size_hint(), (self.buffer.bytes.len() - self.buffer.replayed) as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(held));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }
}

impl HttpBody for ReplayableBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.get_mut().0.as_mut().map_or(Poll::Ready(None), |loan| loan.poll_body(context))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|loan| loan.buffer.is_replayed() && loan.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |loan| loan.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn replayable(body: &'static [u8]) -> ReplayableBody {
        ReplayableBody::new(RequestBody::buffered(Bytes::from_static(body)))
    }

    fn next(body: &mut ReplayableBody) -> Option<Result<Bytes, String>> {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok().map(Ok),
            Poll::Ready(Some(Err(error))) => Some(Err(error.to_string())),
            Poll::Ready(None) => None,
            Poll::Pending => panic!("the connection is established already"),
        }
    }

    #[test]
    fn read_body_is_replayed_from_its_beginning_any_number_of_times() {
        let mut body = replayable(b"a body");
        for _ in 0..3 {
            assert_eq!(body.size_hint().exact(), Some(6));
            assert!(!body.is_end_stream());
            assert_eq!(next(&mut body), Some(Ok(Bytes::from_static(b"a body"))));
            assert!(body.is_end_stream());
            body = body.rewind().expect("the complete body is buffered");
        }
    }

    #[test]
    fn unread_body_is_returned_whatever_its_length() {
        static LARGE: [u8; REPLAY_MAX + 1] = [7; REPLAY_MAX + 1];
        let body = replayable(&LARGE);
        let mut resendable = body.rewind().expect("no byte was read");
        assert_eq!(next(&mut resendable).map(|data| data.map(|data| data.len())), Some(Ok(LARGE.len())));
        assert!(resendable.rewind().is_none(), "more was read than the buffer holds");
    }

    #[test]
    fn discarded_body_is_not_replayed() {
        let mut body = replayable(b"a body");
        assert!(next(&mut body).is_some());
        body.discard();
        assert!(body.rewind().is_none());
        assert!(ReplayableBody::new(RequestBody::empty()).rewind().is_some(), "an empty body can always be replayed");
    }
}
