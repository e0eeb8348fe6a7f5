//! The caller's body on its way to the subsystem: it streams, it counts, it ends with its command.
//!
//! Guarantees: never more than one frame is held; a body does not outgrow its limit, nor outlast its silence or its command.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use super::fields::without_claims;
use super::progress::{BodyFault, Progress};
use super::silence::Silence;

/// How much of a refused request's body is read, and for how long: enough for a caller that sends before it listens to get
/// its answer, instead of a connection that is reset under it.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Reads what a refused caller is still sending, to nobody's use. What is left after that ends the connection.
pub(super) async fn linger(mut body: Incoming) {
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

/// The caller's body on its way to the subsystem. Most commands have none, and every request is moved often: so it is small
/// where there is nothing in it.
pub(super) struct RequestBody(Option<Box<Passing>>);

struct Passing {
    incoming: Incoming,
    progress: Rc<Progress>,
    max: u64,
    seen: u64,
    patience: Duration,
    silence: Silence,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, progress: &Rc<Progress>, max: u64, patience: Duration) -> Self {
        let is_empty = incoming.is_end_stream();
        progress.complete.set(is_empty);
        let progress = Rc::clone(progress);
        let passing = || Passing { incoming, progress, max, seen: 0, patience, silence: Silence::default() };
        Self((!is_empty).then(|| Box::new(passing())))
    }
}

impl Passing {
    fn stop(&self, fault: BodyFault) -> io::Error {
        self.progress.fault.set(Some(fault));
        io::Error::other(match fault {
            BodyFault::TooLarge => "the request body is larger than this command allows",
            BodyFault::Idle => "the caller sent nothing for too long",
            BodyFault::Broken => "the caller broke its request off",
            BodyFault::Over => "the command was over before its body",
        })
    }

    /// Counts a frame. Trailers are heads too: what a caller claims in them about itself stays behind.
    fn count(&mut self, mut frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyFault> {
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.seen += bytes;
        if self.seen > self.max {
            return Err(BodyFault::TooLarge);
        }
        if let Some(trailers) = frame.trailers_mut() {
            without_claims(trailers);
        }
        self.progress.bytes.set(self.progress.bytes.get() + bytes);
        self.progress.last.set(Instant::now());
        self.progress.complete.set(frame.is_trailers() || self.incoming.is_end_stream());
        Ok(frame)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.progress.is_over(context) && !self.progress.complete.get() {
            return Poll::Ready(Some(Err(self.stop(BodyFault::Over))));
        }
        let next = Pin::new(&mut self.incoming).poll_frame(context);
        self.progress.waiting.set(next.is_pending());
        let Poll::Ready(next) = next else {
            ready!(self.silence.poll(context, self.patience));
            return Poll::Ready(Some(Err(self.stop(BodyFault::Idle))));
        };
        self.silence.broken();
        Poll::Ready(match next {
            Some(Ok(frame)) => Some(self.count(frame).map_err(|fault| self.stop(fault))),
            Some(Err(_)) => Some(Err(self.stop(BodyFault::Broken))),
            None => {
                self.progress.complete.set(true);
                None
            }
        })
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.get_mut().0 {
            Some(passing) => passing.poll(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|passing| passing.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), |passing| passing.incoming.size_hint())
    }
}
