//! The body of an HTTP/2 response.
//!
//! Guarantees:
//! - An error that is already known prevents the forwarding of the response's head ([`Http2Body::check_buffered`]).
//! - An error is delayed by one poll behind the data before it, so that the caller gets that data.
//! - The stream of a response with complete content is read to its end instead of being reset, also if the caller has
//!   disconnected.
//!
//! Leaves to [`MessageBody`]: the end of a message, and the wait for END_STREAM.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::runtime::Handle;

use crate::proxy::message::message_body::MessageBody;
use crate::proxy::upstream::endpoint::delayed_error::DelayedError;
use crate::proxy::upstream::endpoint::error::ConnectionError;

use super::StreamBody;

/// The body of a response on an HTTP/2 stream.
pub(crate) struct Http2Body {
    /// The stream; taken only by `drop`.
    stream: Option<MessageBody<StreamBody>>,
    /// A frame that was read ahead.
    lookahead: Option<Frame<Bytes>>,
    delayed_error: DelayedError,
}

impl Http2Body {
    pub(crate) fn new(body: MessageBody<StreamBody>) -> Self {
        Self { stream: Some(body), lookahead: None, delayed_error: DelayedError::default() }
    }

    /// Checks the data that arrived with the head: a response that contradicts itself there counts as no response.
    pub(crate) fn check_buffered(mut self) -> Result<Self, ConnectionError> {
        if self.is_end_stream() {
            return Ok(self);
        }
        // A no-op waker suffices: the future that reads the response polls again and registers its own waker.
        match self.poll_stream(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Err(error))) => Err(error),
            Poll::Ready(Some(Ok(frame))) => {
                self.lookahead = Some(frame);
                Ok(self)
            }
            Poll::Ready(None) | Poll::Pending => Ok(self),
        }
    }

    /// Bytes that were read ahead and are not handed over. Flow control bounds the bytes that h2 has buffered.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.lookahead.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len)
    }

    /// Whether all content has been handed over.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_drained() && self.stream.as_ref().is_none_or(MessageBody::is_complete)
    }

    fn is_drained(&self) -> bool {
        self.lookahead.is_none() && !self.delayed_error.is_pending()
    }

    fn poll_stream(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ConnectionError>>> {
        let Some(body) = &mut self.stream else { return Poll::Ready(None) };
        Pin::new(body).poll_frame(context).map_err(ConnectionError::from)
    }
}

impl HttpBody for Http2Body {
    type Data = Bytes;
    type Error = ConnectionError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ConnectionError>>> {
        let this = self.get_mut();
        if let Some(frame) = this.lookahead.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = this.delayed_error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = this.poll_stream(context);
        this.delayed_error.delay(polled, context)
    }

    fn is_end_stream(&self) -> bool {
        self.is_drained() && self.stream.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.buffered_bytes() as u64;
        match self.stream.as_ref().map(HttpBody::size_hint) {
            Some(hint) => hint.exact().map_or_else(SizeHint::default, |left| SizeHint::with_exact(left + ahead)),
            None => SizeHint::with_exact(ahead),
        }
    }
}

impl Drop for Http2Body {
    fn drop(&mut self) {
        let whole = self.stream.take().filter(|body| body.is_complete() && !body.has_ended());
        // Without a runtime the worker is ending, and the session with it.
        if let (Some(stream), Ok(_)) = (whole, Handle::try_current()) {
            tokio::task::spawn_local(read_to_end(stream));
        }
    }
}

/// Reads END_STREAM, and trailers that are no longer needed. Content beyond the end is an error, and the stream is
/// reset.
async fn read_to_end(mut body: MessageBody<StreamBody>) {
    while let Some(Ok(_)) = body.frame().await {}
}
