//! The request body on its way to the subsystem: streamed, counted, and bound to its command.
//!
//! Guarantees:
//!
//! - At most one frame is held.
//! - A body is bounded by its size limit, its idle timeout and its command.
//! - A body that stops before its end ([`super::message_body`]), or that the gateway cuts off, never looks complete to
//!   the subsystem.
//! - The rest of an unneeded body is drained for a short time (a lingering close), so that the caller receives the
//!   response.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::EXPECT;
use http::{Request, Version};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::proxy::io::close_notice::CloseNotice;
use crate::proxy::io::lingering_close::LingeringClose;

use super::body_rate::{BodyRateMeter, MinBodyRate};
use super::grammar::{HeadLimits, check_trailers};
use super::header_rules::sanitize_request_trailers;
use super::message_body::MessageBody;
use super::upload_progress::{RequestBodyError, UploadProgress};

/// A receiver of a copy of a body. It is dropped if the body does not end, or if the receiver refuses a piece.
pub(crate) trait BodyTap {
    /// Copies a piece of the body. Returns whether the receiver takes more.
    fn add_data(&mut self, data: &[u8]) -> bool;

    /// The whole body has passed.
    fn finish(self: Box<Self>);
}

/// Drains a request body whose content is not needed. A body beyond the limits of a lingering close ends the
/// connection or the stream.
async fn discard_body<B: HttpBody<Data = Bytes> + Unpin>(mut body: B) {
    let mut linger = LingeringClose::after_response();
    let mut poll_next = |context: &mut Context<'_>| {
        let next = Pin::new(&mut body).poll_frame(context);
        next.map(|next| next?.ok().map(|frame| frame.data_ref().map_or(0, Bytes::len)))
    };
    poll_fn(|context| linger.poll_discard(context, &mut poll_next)).await;
}

/// Drains the body of a request that is not forwarded. No body comes if the caller waits over HTTP/1.1 for a `100
/// Continue` (`Expect: 100-continue`).
pub(crate) fn discard_request_body(request: Request<Incoming>) {
    if !expects_continue(&request) && !request.body().is_end_stream() {
        tokio::task::spawn_local(discard_body(request.into_body()));
    }
}

/// Whether a caller sends its body only after a `100 Continue`. False over HTTP/2, where hyper cannot send one.
fn expects_continue(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11 && request.headers().contains_key(EXPECT)
}

/// The request body on its way to the subsystem. Small when empty: most commands have no body, and every request is
/// moved often.
pub(crate) struct RequestBody(BodySource);

enum BodySource {
    Empty,
    /// The caller's body, streamed.
    Streaming(Box<StreamingBody>),
    /// A body that is completely in memory: the copy of a shadow request.
    Buffered(Box<Bytes>),
}

struct StreamingBody {
    /// Taken only by `drop`.
    incoming: Option<MessageBody>,
    progress: Rc<UploadProgress>,
    close_notice: Rc<CloseNotice>,
    bytes_max: u64,
    trailer_limits: HeadLimits,
    received: u64,
    rate_meter: BodyRateMeter,
    /// Whether the caller waits for a `100 Continue`. The first read makes hyper send it.
    awaits_continue: bool,
    body_tap: Option<Box<dyn BodyTap>>,
}

impl RequestBody {
    /// An empty body.
    pub(crate) fn empty() -> Self {
        Self(BodySource::Empty)
    }

    /// Whether the request has no body.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.0, BodySource::Empty)
    }

    /// The body of a caller's request, of at most `max` bytes and with bounded trailers. `tap` gets a copy.
    pub(crate) fn new(
        request: Request<Incoming>,
        (close_notice, progress): (&Rc<CloseNotice>, &Rc<UploadProgress>),
        (max, tempo, trailers): (u64, MinBodyRate, HeadLimits),
        tap: Option<Box<dyn BodyTap>>,
    ) -> Self {
        let is_http11 = request.version() == Version::HTTP_11; // first, for h2 takes a lock for the end of a stream
        let unasked = is_http11 && !request.body().is_end_stream() && expects_continue(&request);
        let incoming = MessageBody::for_request(request);
        progress.is_complete.set(incoming.is_complete());
        if incoming.is_complete() {
            if let Some(tap) = tap {
                tap.finish();
            }
            if !incoming.has_ended() {
                tokio::task::spawn_local(discard_body(incoming)); // drains up to END_STREAM
            }
            return Self(BodySource::Empty);
        }
        Self(BodySource::Streaming(Box::new(StreamingBody {
            awaits_continue: unasked,
            incoming: Some(incoming),
            progress: Rc::clone(progress),
            close_notice: Rc::clone(close_notice),
            bytes_max: max,
            trailer_limits: trailers,
            received: 0,
            rate_meter: BodyRateMeter::new(tempo),
            body_tap: tap,
        })))
    }

    /// Whether all content has been handed over. END_STREAM and trailers may still follow.
    pub(crate) fn is_complete(&self) -> bool {
        match &self.0 {
            BodySource::Streaming(passing) => passing.is_complete(),
            BodySource::Buffered(body) => body.is_empty(),
            BodySource::Empty => true,
        }
    }

    /// A body that is completely in memory.
    pub(crate) fn buffered(body: Bytes) -> Self {
        Self(if body.is_empty() { BodySource::Empty } else { BodySource::Buffered(Box::new(body)) })
    }
}

impl StreamingBody {
    fn fail(&self, fault: RequestBodyError) -> io::Error {
        self.progress.error.set(Some(fault));
        io::Error::other(match fault {
            RequestBodyError::TooLarge => "the request body is larger than this command allows",
            RequestBodyError::TooSlow => "the request body timed out or was too slow",
            RequestBodyError::Aborted => "the client aborted the request",
            RequestBodyError::Trailers(detail) => detail,
        })
    }

    /// Counts a frame, and enforces the limits. Trailers are subject to the same grammar as heads, over both protocols.
    /// A caller's claims of identity in trailers are removed.
    fn count_frame(&mut self, mut frame: Frame<Bytes>) -> Result<Frame<Bytes>, RequestBodyError> {
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.received += bytes;
        if self.received > self.bytes_max {
            return Err(RequestBodyError::TooLarge);
        }
        let now = Instant::now();
        if !self.rate_meter.record(bytes, now) {
            return Err(RequestBodyError::TooSlow);
        }
        if let Some(trailers) = frame.trailers_mut() {
            check_trailers(trailers, self.trailer_limits).map_err(|fault| RequestBodyError::Trailers(fault.detail))?;
            sanitize_request_trailers(trailers);
        }
        self.progress.add_bytes(bytes);
        self.progress.last_progress.set(now);
        self.body_tap.take_if(|tap| frame.data_ref().is_some_and(|data| !tap.add_data(data)));
        if self.is_complete() {
            self.mark_complete();
        }
        Ok(frame)
    }

    fn mark_complete(&mut self) {
        self.progress.is_complete.set(true);
        if let Some(tap) = self.body_tap.take() {
            tap.finish();
        }
    }

    fn is_complete(&self) -> bool {
        self.incoming.as_ref().is_none_or(MessageBody::is_complete)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.awaits_continue = false;
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let next = Pin::new(incoming).poll_frame(context);
        self.progress.waits_for_caller.set(next.is_pending() && !self.is_complete());
        let Poll::Ready(next) = next else {
            if self.is_complete() {
                return Poll::Pending; // only END_STREAM is missing
            }
            ready!(self.rate_meter.poll_too_slow(context));
            return Poll::Ready(Some(Err(self.fail(RequestBodyError::TooSlow))));
        };
        Poll::Ready(match next {
            Some(Ok(frame)) => Some(self.count_frame(frame).map_err(|fault| self.fail(fault))),
            Some(Err(_)) => Some(Err(self.fail(RequestBodyError::Aborted))),
            None => self.check_end().err().map(Err),
        })
    }

    /// Checks the end of the stream. Over HTTP/1.1 hyper reports a normal end also when the gateway cuts the connection
    /// off.
    fn check_end(&mut self) -> io::Result<()> {
        if self.close_notice.is_cut_off() && !self.progress.is_complete.get() {
            return Err(self.fail(RequestBodyError::Aborted));
        }
        self.mark_complete();
        Ok(())
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.get_mut().0 {
            BodySource::Streaming(passing) => passing.poll_data(context),
            BodySource::Buffered(body) if !body.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut **body)))))
            }
            BodySource::Buffered(_) | BodySource::Empty => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            BodySource::Streaming(passing) => passing.is_end_stream(),
            BodySource::Buffered(body) => body.is_empty(),
            BodySource::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            BodySource::Streaming(passing) => {
                passing.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
            }
            BodySource::Buffered(body) => SizeHint::with_exact(body.len() as u64),
            BodySource::Empty => SizeHint::with_exact(0),
        }
    }
}

impl Drop for StreamingBody {
    /// Drains an incomplete body: the subsystem failed, or responded before the body was complete. Also drains up to
    /// END_STREAM after complete content; without that the caller's stream would be reset.
    fn drop(&mut self) {
        self.progress.waits_for_caller.set(false);
        let error = self.progress.error.get() == Some(RequestBodyError::Aborted);
        let left = self.incoming.take().filter(|left| !error && !self.awaits_continue && !left.has_ended());
        // Without a runtime the worker is shutting down, and the connection with it.
        if let (Some(left), Ok(_)) = (left, Handle::try_current()) {
            tokio::task::spawn_local(discard_body(left));
        }
    }
}
