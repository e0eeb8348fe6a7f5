//! The body of a message that hyper or h2 reads, with one definition of its end.
//!
//! Guarantees:
//!
//! - Requests and responses end at the earliest of: the last chunk (RFC 9112 section 7.1), END_STREAM (RFC 9113 section
//!   8.1), or the last byte of the announced length.
//! - A body that stops before its end is an error, whatever code its stream was reset with.
//! - After the last byte of an announced length [`END_TIMEOUT`] bounds the wait for END_STREAM or trailers.
//! - No other place corrects the end that hyper reports (`docs/decisions/hyper.md`).
//!
//! Leaves to others: the effect of a broken body on its command.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use crate::proxy::io::deadline_timer::DeadlineTimer;

/// The wait for END_STREAM or trailers after the last byte of an announced length. Servers send them with that byte or
/// right after it. A peer that never does loses only the stream, which is reset.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The body of a message: counts the announced length and checks the end.
pub(crate) struct MessageBody<B = Incoming> {
    incoming: B,
    /// Bytes still to come, if the head announced a length.
    remaining: Option<u64>,
    /// Whether the message has no content. Its END_STREAM may still be a frame of its own.
    is_head_only: bool,
    /// Whether only END_STREAM ends the body, so that the end reported by hyper must be checked.
    is_http2: bool,
    /// Whether reading has ended.
    has_ended: bool,
    end_timer: DeadlineTimer,
}

/// Why a body stopped before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageBodyError {
    /// The stream or the connection failed.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    /// The stream or its session failed.
    #[error(transparent)]
    Stream(#[from] h2::Error),
    /// The frames stopped without an end, for example by a reset of an HTTP/2 stream with NO_ERROR.
    #[error("the body ended early")]
    Truncated,
    /// The body is longer than the announced length.
    #[error("the body is longer than its Content-Length")]
    TooLong,
}

impl MessageBody {
    /// The body of a caller's request.
    pub(crate) fn for_request(request: Request<Incoming>) -> Self {
        let is_http2 = request.version() == Version::HTTP_2;
        Self::new(request.into_body(), is_http2, false)
    }
}

impl<B: HttpBody<Data = Bytes>> MessageBody<B> {
    /// The body of a subsystem's response over HTTP/2. `is_only_a_head` marks a response without content, whatever
    /// length its head announces (RFC 9110 section 6.4.1).
    pub(crate) fn for_http2_response(incoming: B, is_only_a_head: bool) -> Self {
        Self::new(incoming, true, is_only_a_head)
    }

    fn new(incoming: B, is_http2: bool, is_only_a_head: bool) -> Self {
        let left = if is_only_a_head { Some(0) } else { incoming.size_hint().exact() };
        Self {
            incoming,
            remaining: left,
            is_head_only: is_only_a_head,
            is_http2,
            has_ended: false,
            end_timer: DeadlineTimer::default(),
        }
    }

    /// Whether all content has arrived. END_STREAM and trailers may still follow.
    pub(crate) fn is_complete(&self) -> bool {
        self.remaining == Some(0) || self.has_ended()
    }

    /// Whether nothing follows, not even END_STREAM.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended || self.incoming.is_end_stream()
    }

    /// Checks an end that the inner body reports.
    fn check_end(&mut self) -> Result<(), MessageBodyError> {
        let is_marked = !self.is_http2 || self.incoming.is_end_stream();
        let is_whole = self.remaining.map_or(is_marked, |left| left == 0);
        self.has_ended = true;
        if is_whole { Ok(()) } else { Err(MessageBodyError::Truncated) }
    }

    fn count_frame(&mut self, frame: &Frame<Bytes>) -> Result<(), MessageBodyError> {
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        if let Some(left) = &mut self.remaining {
            *left = left.checked_sub(bytes).ok_or(MessageBodyError::TooLong)?;
        }
        self.has_ended = frame.is_trailers();
        Ok(())
    }

    /// Polls the wait for the end, while no frame is available. The wait is bounded only after the whole content.
    fn poll_end_timeout(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.remaining != Some(0) {
            return Poll::Pending;
        }
        ready!(self.end_timer.poll_idle(context, END_TIMEOUT));
        self.has_ended = true;
        Poll::Ready(())
    }
}

impl<B: HttpBody<Data = Bytes, Error: Into<MessageBodyError>> + Unpin> HttpBody for MessageBody<B> {
    type Data = Bytes;
    type Error = MessageBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, MessageBodyError>>> {
        let body = self.get_mut();
        if body.has_ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(next) = Pin::new(&mut body.incoming).poll_frame(context) else {
            return body.poll_end_timeout(context).map(|()| None);
        };
        Poll::Ready(match next {
            Some(Ok(frame)) => Some(body.count_frame(&frame).map(|()| frame)),
            // A reset after the last byte of an announced length loses no content.
            Some(Err(_)) if body.remaining == Some(0) => body.check_end().err().map(Err),
            Some(Err(error)) => Some(Err(error.into())),
            None => body.check_end().err().map(Err),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_head_only || self.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        match self.remaining {
            Some(left) => SizeHint::with_exact(left),
            None => self.incoming.size_hint(),
        }
    }
}
