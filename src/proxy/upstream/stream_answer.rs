//! The body of an answer on a stream of an HTTP/2 session.
//!
//! Guarantees: what is already known to be broken is known before the answer's head goes on ([`StreamAnswer::look`]); an error
//! comes one poll after what came before it, so that the caller gets what there is; the stream of an answer whose content has
//! come is read to its end, also when its caller has left, instead of being reset. Leaves to [`MessageBody`] where a message
//! ends, and how long END_STREAM is waited for.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::runtime::Handle;

use crate::proxy::message_body::MessageBody;

use super::Broken;
use super::h2::StreamBody;

/// See the module.
pub(in crate::proxy) struct StreamAnswer {
    /// Taken only by the drop.
    stream: Option<MessageBody<StreamBody>>,
    /// The frame that was looked at.
    first: Option<Frame<Bytes>>,
    /// Returned by the next poll.
    broken: Option<Broken>,
}

impl StreamAnswer {
    pub(super) fn new(body: MessageBody<StreamBody>) -> Self {
        Self { stream: Some(body), first: None, broken: None }
    }

    /// Looks at what has come with the head: an answer that contradicts itself there is none.
    pub(super) fn look(mut self) -> Result<Self, Broken> {
        if self.is_end_stream() {
            return Ok(self);
        }
        // Whoever is given the answer polls again, and then is woken.
        match self.poll_stream(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Err(broken))) => Err(broken),
            Poll::Ready(Some(Ok(frame))) => {
                self.first = Some(frame);
                Ok(self)
            }
            Poll::Ready(None) | Poll::Pending => Ok(self),
        }
    }

    /// Bytes that were read and are not handed over; what h2 has read, its windows bound.
    pub(super) fn read_ahead(&self) -> usize {
        self.first.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len)
    }

    /// Whether all of its content has been handed over.
    pub(super) fn is_whole(&self) -> bool {
        self.holds_nothing() && self.stream.as_ref().is_none_or(MessageBody::is_whole)
    }

    fn holds_nothing(&self) -> bool {
        self.first.is_none() && self.broken.is_none()
    }

    fn poll_stream(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(body) = &mut self.stream else { return Poll::Ready(None) };
        Pin::new(body).poll_frame(context).map_err(Broken::from)
    }
}

impl HttpBody for StreamAnswer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        if let Some(frame) = this.first.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(broken) = this.broken.take() {
            return Poll::Ready(Some(Err(broken)));
        }
        match this.poll_stream(context) {
            Poll::Ready(Some(Err(broken))) => {
                this.broken = Some(broken);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.holds_nothing() && self.stream.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.read_ahead() as u64;
        match self.stream.as_ref().map(HttpBody::size_hint) {
            Some(hint) => hint.exact().map_or_else(SizeHint::default, |left| SizeHint::with_exact(left + ahead)),
            None => SizeHint::with_exact(ahead),
        }
    }
}

impl Drop for StreamAnswer {
    fn drop(&mut self) {
        let whole = self.stream.take().filter(|body| body.is_whole() && !body.has_ended());
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
