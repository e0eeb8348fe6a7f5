//! The body of a request over HTTP/2, lent to a stream: it can be taken back if the server has processed nothing of the
//! request (RFC 9113 section 8.7), and sent again on another stream.
//!
//! Guarantees: a body is taken back whole or not at all; at most [`HELD_MAX`] bytes of a body are held, in a buffer of their
//! own, and only until the answer's head has come; a stream whose body was taken back gets no more of it.
//! Leaves to [`super::Upstreams`] when a request is sent again.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::proxy::request_body::RequestBody;

/// How much of a body is held so that it can be sent again: what a caller may send unasked on one stream.
const HELD_MAX: usize = 64 * 1024;

/// The body as the stream has it. Most requests have none.
pub(in crate::proxy) struct LentBody(Option<Rc<RefCell<Loan>>>);

/// The other end of a loan.
pub(super) struct Lender(Option<Rc<RefCell<Loan>>>);

struct Loan {
    /// Nothing, once it was taken back.
    body: Option<RequestBody>,
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

    fn let_go(&mut self) {
        *self = Self { is_whole: false, ..Self::nothing() };
    }
}

impl LentBody {
    /// Lends a body.
    pub(super) fn new(body: RequestBody) -> Self {
        Self((!body.is_none()).then(|| Rc::new(RefCell::new(Loan { body: Some(body), held: Held::nothing() }))))
    }

    /// Whether there is none.
    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// The end that can take the body back.
    pub(super) fn lender(&self) -> Lender {
        Lender(self.0.clone())
    }

    fn with<T>(&self, of_none: T, look: impl FnOnce(&Loan) -> T) -> T {
        self.0.as_ref().map_or(of_none, |loan| look(&loan.borrow()))
    }
}

impl Lender {
    /// Whether there is a body at all.
    pub(super) fn has_body(&self) -> bool {
        self.0.is_some()
    }

    /// The server has taken the request up: nothing is held any more.
    pub(super) fn let_go(&self) {
        if let Some(loan) = &self.0 {
            loan.borrow_mut().held.let_go();
        }
    }

    /// Takes the body back from its stream, for another one; nothing, if more was taken than is held.
    pub(super) fn take_back(self) -> Option<LentBody> {
        let Some(loan) = self.0 else { return Some(LentBody(None)) };
        let mut loan = loan.borrow_mut();
        if !loan.held.is_whole {
            return None;
        }
        let held = std::mem::replace(&mut loan.held, Held { is_whole: false, ..Held::nothing() });
        let held = Held { given: 0, gave_trailers: false, ..held };
        let again = Loan { body: Some(loan.body.take()?), held };
        Some(LentBody(Some(Rc::new(RefCell::new(again)))))
    }
}

impl Loan {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Some(Err(io::Error::other("the request goes on another stream"))));
        };
        if let Some(frame) = self.held.next() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let next = ready!(Pin::new(body).poll_frame(context));
        if let Some(Ok(frame)) = &next {
            self.held.note(frame);
        }
        Poll::Ready(next)
    }
}

impl HttpBody for LentBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &self.0 {
            Some(loan) => loan.borrow_mut().poll(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.with(true, |loan| loan.held.is_given() && loan.body.as_ref().is_some_and(hyper::body::Body::is_end_stream))
    }

    fn size_hint(&self) -> SizeHint {
        self.with(SizeHint::with_exact(0), |loan| {
            let Some(body) = &loan.body else { return SizeHint::default() };
            let (rest, held) = (body.size_hint(), (loan.held.bytes.len() - loan.held.given) as u64);
            let mut hint = SizeHint::new();
            hint.set_lower(rest.lower().saturating_add(held));
            if let Some(upper) = rest.upper() {
                hint.set_upper(upper.saturating_add(held));
            }
            hint
        })
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
            let lender = body.lender();
            assert_eq!(next(&mut body), Some(Ok(Bytes::from_static(b"a body"))));
            assert!(body.is_end_stream());
            let mut again = lender.take_back().expect("all of it is held");
            assert!(next(&mut body).is_some_and(|end| end.is_err()), "the old stream gets no more of it");
            std::mem::swap(&mut body, &mut again);
        }
    }

    #[test]
    fn a_body_of_which_nothing_was_taken_comes_back_whatever_its_length() {
        static LARGE: [u8; HELD_MAX + 1] = [7; HELD_MAX + 1];
        let body = lent(&LARGE);
        let mut again = body.lender().take_back().expect("nothing of it was taken");
        assert_eq!(next(&mut again).map(|data| data.map(|data| data.len())), Some(Ok(LARGE.len())));
        assert!(again.lender().take_back().is_none(), "more than is held was taken");
    }

    #[test]
    fn what_the_server_has_taken_up_does_not_come_back() {
        let mut body = lent(b"a body");
        let lender = body.lender();
        assert!(next(&mut body).is_some());
        lender.let_go();
        assert!(lender.take_back().is_none());
        assert!(LentBody::new(RequestBody::none()).lender().take_back().is_some(), "no body is always whole");
    }
}
