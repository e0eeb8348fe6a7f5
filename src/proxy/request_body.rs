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

use super::fields::without_claims;
use super::message_body::MessageBody;
use super::mirror::Copy;
use super::pace::{Pace, Tempo};
use super::peer::Peer;
use super::progress::{BodyFault, Progress};
use super::wire::{HeadLimits, check_trailers};

/// How much of a body that nobody needs is read, and for how long: enough for a caller that sends before it listens to get
/// its answer, instead of a connection or a stream that is reset under it (curl then drops the answer it has).
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Reads what a caller is still sending, to nobody's use. What is left after that ends the connection or the stream.
async fn linger<B: HttpBody<Data = Bytes> + Unpin>(mut body: B) {
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
pub(super) fn hear_out(request: Request<Incoming>) {
    if !waits_to_be_asked(&request) && !request.body().is_end_stream() {
        tokio::task::spawn_local(linger(request.into_body()));
    }
}

/// Whether a caller sends its body only once it is asked for. Over HTTP/2 nobody is asked: hyper has no way to.
fn waits_to_be_asked(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11 && request.headers().contains_key(EXPECT)
}

/// The caller's body on its way to the subsystem. Most commands have none, and every request is moved often: so it is small
/// where there is nothing in it.
pub(super) struct RequestBody(Source);

enum Source {
    None,
    /// The caller's, as it comes.
    Passing(Box<Passing>),
    /// A copy that is here already.
    Whole(Box<Bytes>),
}

struct Passing {
    /// Taken only by the drop.
    incoming: Option<MessageBody>,
    progress: Rc<Progress>,
    caller: Rc<Peer>,
    max: u64,
    trailers: HeadLimits,
    seen: u64,
    pace: Pace,
    /// Whether the caller waits to be asked for it (`Expect: 100-continue`): reading it is asking.
    unasked: bool,
    /// What is copied of it on the way.
    copy: Option<Box<Copy>>,
}

impl RequestBody {
    /// There is none.
    pub(super) fn none() -> Self {
        Self(Source::None)
    }

    /// Whether there is none.
    pub(super) fn is_none(&self) -> bool {
        matches!(self.0, Source::None)
    }

    /// The body of a caller's request, at most `max` bytes of it and trailers within their limits, and of its copy.
    pub(super) fn new(
        request: Request<Incoming>,
        (caller, progress): (&Rc<Peer>, &Rc<Progress>),
        (max, tempo, trailers): (u64, Tempo, HeadLimits),
        copy: Option<Copy>,
    ) -> Self {
        let unasked = !request.body().is_end_stream() && waits_to_be_asked(&request);
        let incoming = MessageBody::of_request(request);
        progress.complete.set(incoming.is_whole());
        if incoming.is_whole() {
            if let Some(copy) = copy {
                copy.send();
            }
            if !incoming.has_ended() {
                tokio::task::spawn_local(linger(incoming)); // for its END_STREAM
            }
            return Self(Source::None);
        }
        Self(Source::Passing(Box::new(Passing {
            unasked,
            incoming: Some(incoming),
            progress: Rc::clone(progress),
            caller: Rc::clone(caller),
            max,
            trailers,
            seen: 0,
            pace: Pace::new(tempo),
            copy: copy.map(Box::new),
        })))
    }

    /// Whether all of its content has been handed over. END_STREAM and trailers may still follow.
    pub(super) fn is_whole(&self) -> bool {
        match &self.0 {
            Source::Passing(passing) => passing.is_whole(),
            Source::Whole(body) => body.is_empty(),
            Source::None => true,
        }
    }

    /// A body that is here already.
    pub(super) fn whole(body: Bytes) -> Self {
        Self(if body.is_empty() { Source::None } else { Source::Whole(Box::new(body)) })
    }
}

impl Passing {
    fn stop(&self, fault: BodyFault) -> io::Error {
        self.progress.fault.set(Some(fault));
        io::Error::other(match fault {
            BodyFault::TooLarge => "the request body is larger than this command allows",
            BodyFault::Slow => "the caller sent nothing, or too little, for too long",
            BodyFault::Broken => "the caller broke its request off",
            BodyFault::Trailers(detail) => detail,
        })
    }

    /// Counts a frame. Trailers are heads too: they have the same grammar over both protocols, and what a caller claims in them
    /// about itself stays behind.
    fn count(&mut self, mut frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyFault> {
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.seen += bytes;
        if self.seen > self.max {
            return Err(BodyFault::TooLarge);
        }
        let now = Instant::now();
        if !self.pace.hear(bytes, now) {
            return Err(BodyFault::Slow);
        }
        if let Some(trailers) = frame.trailers_mut() {
            check_trailers(trailers, self.trailers).map_err(|fault| BodyFault::Trailers(fault.detail))?;
            without_claims(trailers);
        }
        self.progress.pass(bytes);
        self.progress.last.set(now);
        self.copy.take_if(|copy| frame.data_ref().is_some_and(|data| !copy.add(data)));
        if self.is_whole() {
            self.complete();
        }
        Ok(frame)
    }

    fn complete(&mut self) {
        self.progress.complete.set(true);
        if let Some(copy) = self.copy.take() {
            copy.send();
        }
    }

    fn is_whole(&self) -> bool {
        self.incoming.as_ref().is_none_or(MessageBody::is_whole)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.unasked = false;
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let next = Pin::new(incoming).poll_frame(context);
        self.progress.waiting.set(next.is_pending() && !self.is_whole());
        let Poll::Ready(next) = next else {
            if self.is_whole() {
                return Poll::Pending; // only its END_STREAM is waited for
            }
            ready!(self.pace.wait(context));
            return Poll::Ready(Some(Err(self.stop(BodyFault::Slow))));
        };
        Poll::Ready(match next {
            Some(Ok(frame)) => Some(self.count(frame).map_err(|fault| self.stop(fault))),
            Some(Err(_)) => Some(Err(self.stop(BodyFault::Broken))),
            None => self.end().err().map(Err),
        })
    }

    /// No more comes. Over HTTP/1.1 hyper says so too when the gateway drops the connection of a caller that is cut off.
    fn end(&mut self) -> io::Result<()> {
        if self.caller.is_cut_off() && !self.progress.complete.get() {
            return Err(self.stop(BodyFault::Broken));
        }
        self.complete();
        Ok(())
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.get_mut().0 {
            Source::Passing(passing) => passing.poll(context),
            Source::Whole(body) if !body.is_empty() => Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut **body))))),
            Source::Whole(_) | Source::None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Passing(passing) => passing.is_end_stream(),
            Source::Whole(body) => body.is_empty(),
            Source::None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Passing(passing) => {
                passing.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
            }
            Source::Whole(body) => SizeHint::with_exact(body.len() as u64),
            Source::None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Passing {
    /// The subsystem failed, or answered before it had heard everything; or all has gone on but END_STREAM, without which the
    /// caller's stream would be reset.
    fn drop(&mut self) {
        self.progress.waiting.set(false);
        let broken = self.progress.fault.get() == Some(BodyFault::Broken);
        let left = self.incoming.take().filter(|left| !broken && !self.unasked && !left.has_ended());
        // Without a runtime the worker is ending, and the connection with it.
        if let (Some(left), Ok(_)) = (left, Handle::try_current()) {
            tokio::task::spawn_local(linger(left));
        }
    }
}
