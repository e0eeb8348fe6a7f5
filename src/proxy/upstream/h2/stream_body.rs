//! The body of an HTTP/2 response as h2 delivers it.
//!
//! Guarantees:
//! - The flow-control window is opened by the number of bytes that were handed over.
//! - A stream that is reset with NO_ERROR ends without an error.
//!
//! Leaves to [`crate::proxy::message::message_body`]: whether such a stream was complete.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::session::SessionPermit;

/// The received data and trailers of one stream.
pub(crate) struct StreamBody {
    stream: RecvStream,
    /// The length that the head announces, or 0 if nothing follows the head.
    content_length: Option<u64>,
    has_data: bool,
    permit: SessionPermit,
}

impl StreamBody {
    /// The body that follows this head.
    pub(crate) fn new(stream: RecvStream, head: &HeaderMap, permit: SessionPermit) -> Self {
        let length = content_length(head).or_else(|| stream.is_end_stream().then_some(0));
        Self { stream, content_length: length, has_data: true, permit }
    }

    fn poll_trailers(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        self.has_data = false;
        match ready!(self.stream.poll_trailers(context)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(stream_end(error)),
        }
    }
}

/// h2 has verified that all lengths in a head are equal.
fn content_length(head: &HeaderMap) -> Option<u64> {
    head.get(CONTENT_LENGTH).map(HeaderValue::to_str)?.ok()?.parse().ok()
}

fn stream_end(error: h2::Error) -> Option<Result<Frame<Bytes>, h2::Error>> {
    (error.reason() != Some(Reason::NO_ERROR)).then_some(Err(error))
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let body = self.get_mut();
        if !body.has_data {
            return body.poll_trailers(context);
        }
        match ready!(body.stream.poll_data(context)) {
            Some(Ok(bytes)) => {
                body.permit.note_received();
                // The bytes are handed over right here.
                let _ = body.stream.flow_control().release_capacity(bytes.len());
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Err(error)) => Poll::Ready(stream_end(error)),
            None => body.poll_trailers(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content_length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
