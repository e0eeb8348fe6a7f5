//! The caller's body on its way to the subsystem: it streams, it counts, it ends with its command.
//!
//! Guarantees: never more than one frame is held; a body does not outgrow its limit, nor outlast its silence or its command; one
//! that stops before its end ([`super::message_body`]), or is cut off by the gateway, never looks whole to the subsystem.
//! What is left of it when nobody needs it any more is heard out for a moment, so that its caller hears the answer.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::{Request, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::body_rate::{BodyRateMeter, MinBodyRate};
use super::grammar::{HeadLimits, check_trailers};
use super::header_rules::sanitize_request_trailers;
use super::message_body::MessageBody;
use super::upload_progress::{RequestBodyError, UploadProgress};
use crate::proxy::exchange::mirror::ShadowRequest;
use crate::proxy::worker::peer::DownstreamPeer;

/// How much of a body that nobody needs is read, and for how long: enough for a caller that sends before it listens to get
/// its answer, instead of a connection or a stream that is reset under it (curl then drops the answer it has).
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Reads what a caller is still sending, to nobody's use. What is left after that ends the connection or the stream.
async fn discard_body<B: HttpBody<Data = Bytes> + Unpin>(mut body: B) {
    let drain = async {
        let mut left = LINGER_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_TIME, drain).await; // either way it is over
}

/// Lets a caller that is not forwarded finish its sentence, unless it waits over HTTP/1.1 to be asked for it
/// (`Expect: 100-continue`).
pub(crate) fn discard_request_body(request: Request<Incoming>) {
    if !expects_continue(&request) && !request.body().is_end_stream() {
        tokio::task::spawn_local(discard_body(request.into_body()));
    }
}

/// Whether a caller sends its body only once it is asked for. Over HTTP/2 nobody is asked: hyper has no way to.
fn expects_continue(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11 && request.headers().contains_key(EXPECT)
}

/// The caller's body on its way to the subsystem. Most commands have none, and every request is moved often: so it is small
/// where there is nothing in it.
pub(crate) struct RequestBody(BodySource);

enum BodySource {
    Empty,
    /// The caller's, as it comes.
    Streaming(Box<StreamingBody>),
    /// A copy that is here already.
    Buffered(Box<Bytes>),
}

struct StreamingBody {
    /// Taken only by the drop.
    incoming: Option<MessageBody>,
    progress: Rc<UploadProgress>,
    caller: Rc<DownstreamPeer>,
    bytes_max: u64,
    trailer_limits: HeadLimits,
    received: u64,
    rate_meter: BodyRateMeter,
    /// Whether the caller waits to be asked for it (`Expect: 100-continue`): reading it is asking.
    awaits_continue: bool,
    /// What is copied of it on the way.
    body_tap: Option<Box<ShadowRequest>>,
}

impl RequestBody {
    /// There is none.
    pub(crate) fn empty() -> Self {
        Self(BodySource::Empty)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.0, BodySource::Empty)
    }

    /// The body of a caller's request, at most `max` bytes of it and trailers within their limits, and of its copy.
    pub(crate) fn new(
        request: Request<Incoming>,
        (caller, progress): (&Rc<DownstreamPeer>, &Rc<UploadProgress>),
        (max, tempo, trailers): (u64, MinBodyRate, HeadLimits),
        tap: Option<ShadowRequest>,
    ) -> Self {
        let unasked = !request.body().is_end_stream() && expects_continue(&request);
        let incoming = MessageBody::for_request(request);
        progress.is_complete.set(incoming.is_complete());
        if incoming.is_complete() {
            if let Some(tap) = tap {
                tap.dispatch();
            }
            if !incoming.has_ended() {
                tokio::task::spawn_local(discard_body(incoming)); // for its END_STREAM
            }
            return Self(BodySource::Empty);
        }
        Self(BodySource::Streaming(Box::new(StreamingBody {
            awaits_continue: unasked,
            incoming: Some(incoming),
            progress: Rc::clone(progress),
            caller: Rc::clone(caller),
            bytes_max: max,
            trailer_limits: trailers,
            received: 0,
            rate_meter: BodyRateMeter::new(tempo),
            body_tap: tap.map(Box::new),
        })))
    }

    /// Whether all of its content has been handed over. END_STREAM and trailers may still follow.
    pub(crate) fn is_complete(&self) -> bool {
        match &self.0 {
            BodySource::Streaming(passing) => passing.is_complete(),
            BodySource::Buffered(body) => body.is_empty(),
            BodySource::Empty => true,
        }
    }

    /// A body that is here already.
    pub(crate) fn buffered(body: Bytes) -> Self {
        Self(if body.is_empty() { BodySource::Empty } else { BodySource::Buffered(Box::new(body)) })
    }
}

impl StreamingBody {
    fn fail(&self, fault: RequestBodyError) -> io::Error {
        self.progress.error.set(Some(fault));
        io::Error::other(match fault {
            RequestBodyError::TooLarge => "the request body is larger than this command allows",
            RequestBodyError::TooSlow => "the caller sent nothing, or too little, for too long",
            RequestBodyError::Aborted => "the caller broke its request off",
            RequestBodyError::Trailers(detail) => detail,
        })
    }

    /// Counts a frame. Trailers are heads too: they have the same grammar over both protocols, and what a caller claims in them
    /// about itself stays behind.
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
            tap.dispatch();
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
                return Poll::Pending; // only its END_STREAM is waited for
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

    /// No more comes. Over HTTP/1.1 hyper says so too when the gateway drops the connection of a caller that is cut off.
    fn check_end(&mut self) -> io::Result<()> {
        if self.caller.is_cut_off() && !self.progress.is_complete.get() {
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
    /// The subsystem failed, or answered before it had heard everything; or all has gone on but END_STREAM, without which the
    /// caller's stream would be reset.
    fn drop(&mut self) {
        self.progress.waits_for_caller.set(false);
        let error = self.progress.error.get() == Some(RequestBodyError::Aborted);
        let left = self.incoming.take().filter(|left| !error && !self.awaits_continue && !left.has_ended());
        // Without a runtime the worker is ending, and the connection with it.
        if let (Some(left), Ok(_)) = (left, Handle::try_current()) {
            tokio::task::spawn_local(discard_body(left));
        }
    }
}
