//! The body of an answer on a stream of an HTTP/2 session.
//!
//! Guarantees: what is already known to be broken is known before the answer's head goes on ([`Http2Body::check_buffered`]); an error
//! comes one poll after what came before it, so that the caller gets what there is; the stream of an answer whose content has
//! come is read to its end, also when its caller has left, instead of being reset. Leaves to [`MessageBody`] where a message
//! ends, and how long END_STREAM is waited for.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::runtime::Handle;

use crate::proxy::message::message_body::MessageBody;

use super::StreamBody;
use crate::proxy::upstream::endpoint::error::ConnectionError;

/// See the module.
pub(crate) struct Http2Body {
    /// Taken only by the drop.
    stream: Option<MessageBody<StreamBody>>,
    /// The frame that was looked at.
    lookahead: Option<Frame<Bytes>>,
    /// Returned by the next poll.
    pending_error: Option<ConnectionError>,
}

impl Http2Body {
    pub(crate) fn new(body: MessageBody<StreamBody>) -> Self {
        Self { stream: Some(body), lookahead: None, pending_error: None }
    }

    /// Looks at what has come with the head: an answer that contradicts itself there is none.
    pub(crate) fn check_buffered(mut self) -> Result<Self, ConnectionError> {
        if self.is_end_stream() {
            return Ok(self);
        }
        // Whoever is given the answer polls again, and then is woken.
        match self.poll_stream(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Err(error))) => Err(error),
            Poll::Ready(Some(Ok(frame))) => {
                self.lookahead = Some(frame);
                Ok(self)
            }
            Poll::Ready(None) | Poll::Pending => Ok(self),
        }
    }

    /// Bytes that were read and are not handed over; what h2 has read, its windows bound.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.lookahead.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len)
    }

    /// Whether all of its content has been handed over.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_drained() && self.stream.as_ref().is_none_or(MessageBody::is_complete)
    }

    fn is_drained(&self) -> bool {
        self.lookahead.is_none() && self.pending_error.is_none()
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
        if let Some(error) = this.pending_error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match this.poll_stream(context) {
            Poll::Ready(Some(Err(error))) => {
                this.pending_error = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            other => other,
        }
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

/// Reads END_STREAM, and trailers that nobody needs. Content beyond the end is an error, and the stream is reset.
async fn read_to_end(mut body: MessageBody<StreamBody>) {
    while let Some(Ok(_)) = body.frame().await {}
}
