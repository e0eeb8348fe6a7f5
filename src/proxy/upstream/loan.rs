//! The body of a request over HTTP/2, lent to a stream: it can be taken back if the server has processed nothing of the
//! request (RFC 9113 section 8.7), and sent again on another stream.
//!
//! Guarantees: a body is taken back whole or not at all; at most [`HELD_MAX`] bytes of a body are held, in a buffer of their
//! own, and only until the answer's head has come.
//! Leaves to [`super::Upstreams`] when a request is sent again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::proxy::request_body::RequestBody;

/// How much of a body is held so that it can be sent again: what a caller may send unasked on one stream.
const HELD_MAX: usize = 64 * 1024;

/// The body as the stream has it. Most requests have none.
pub(in crate::proxy) struct LentBody(Option<Box<Loan>>);

struct Loan {
    body: RequestBody,
    held: Held,
}

/// What was taken of a body.
struct Held {
    bytes: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// How much of `bytes` this stream has got.
    given: usize,
    /// Whether this stream has got the trailers.
    gave_trailers: bool,
    /// Whether all that was taken is here.
    is_whole: bool,
}

impl Held {
    fn nothing() -> Self {
        Self { bytes: Vec::new(), trailers: None, given: 0, gave_trailers: false, is_whole: true }
    }

    /// The next piece for a stream that begins anew.
    fn next(&mut self) -> Option<Frame<Bytes>> {
        let rest = &self.bytes[self.given..];
        if !rest.is_empty() {
            let data = Bytes::copy_from_slice(rest);
            self.given = self.bytes.len();
            return Some(Frame::data(data));
        }
        let trailers = self.trailers.clone().filter(|_| !self.gave_trailers)?;
        self.gave_trailers = true;
        Some(Frame::trailers(trailers))
    }

    fn is_given(&self) -> bool {
        self.given == self.bytes.len() && (self.gave_trailers || self.trailers.is_none())
    }

    /// Keeps a copy: a frame may be one byte of a large buffer that it would keep.
    fn note(&mut self, frame: &Frame<Bytes>) {
        if !self.is_whole {
            return;
        }
        if let Some(data) = frame.data_ref() {
            if self.bytes.len() + data.len() > HELD_MAX {
                return self.let_go();
            }
            self.bytes.extend_from_slice(data);
            self.given = self.bytes.len();
        }
        if let Some(trailers) = frame.trailers_ref() {
            (self.trailers, self.gave_trailers) = (Some(trailers.clone()), true);
        }
    }

    /// Another stream begins with it.
    fn give_again(&mut self) {
        (self.given, self.gave_trailers) = (0, false);
    }

    fn let_go(&mut self) {
        *self = Self { is_whole: false, ..Self::nothing() };
    }
}

impl LentBody {
    /// Lends a body.
    pub(super) fn new(body: RequestBody) -> Self {
        Self((!body.is_none()).then(|| Box::new(Loan { body, held: Held::nothing() })))
    }

    /// There is none.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Whether there is none.
    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// The server has taken the request up: nothing is held any more.
    pub(super) fn let_go(&mut self) {
        if let Some(loan) = &mut self.0 {
            loan.held.let_go();
        }
    }

    /// Takes the body back from its stream, for another one; nothing, if more was taken than is held.
    pub(super) fn take_back(self) -> Option<Self> {
        let Some(mut loan) = self.0 else { return Some(Self::none()) };
        loan.held.give_again();
        loan.held.is_whole.then_some(Self(Some(loan)))
    }
}

impl Loan {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(frame) = self.held.next() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let next = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &next {
            self.held.note(frame);
        }
        Poll::Ready(next)
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, held) = (self.body.size_hint(), (self.held.bytes.len() - self.held.given) as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(held));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }
}

impl HttpBody for LentBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.get_mut().0.as_mut().map_or(Poll::Ready(None), |loan| loan.poll(context))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|loan| loan.held.is_given() && loan.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |loan| loan.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn lent(body: &'static [u8]) -> LentBody {
        LentBody::new(RequestBody::whole(Bytes::from_static(body)))
    }

    fn next(body: &mut LentBody) -> Option<Result<Bytes, String>> {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok().map(Ok),
            Poll::Ready(Some(Err(error))) => Some(Err(error.to_string())),
            Poll::Ready(None) => None,
            Poll::Pending => panic!("it is here already"),
        }
    }

    #[test]
    fn a_body_that_was_taken_is_sent_again_from_its_beginning_as_often_as_needed() {
        let mut body = lent(b"a body");
        for _ in 0..3 {
            assert_eq!(body.size_hint().exact(), Some(6));
            assert!(!body.is_end_stream());
            assert_eq!(next(&mut body), Some(Ok(Bytes::from_static(b"a body"))));
            assert!(body.is_end_stream());
            body = body.take_back().expect("all of it is held");
        }
    }

    #[test]
    fn a_body_of_which_nothing_was_taken_comes_back_whatever_its_length() {
        static LARGE: [u8; HELD_MAX + 1] = [7; HELD_MAX + 1];
        let body = lent(&LARGE);
        let mut again = body.take_back().expect("nothing of it was taken");
        assert_eq!(next(&mut again).map(|data| data.map(|data| data.len())), Some(Ok(LARGE.len())));
        assert!(again.take_back().is_none(), "more than is held was taken");
    }

    #[test]
    fn what_the_server_has_taken_up_does_not_come_back() {
        let mut body = lent(b"a body");
        assert!(next(&mut body).is_some());
        body.let_go();
        assert!(body.take_back().is_none());
        assert!(LentBody::new(RequestBody::none()).take_back().is_some(), "no body is always whole");
    }
}
