//! Bodies: they stream, they count, and the answer's body carries the account to its end.
//!
//! Guarantees: never more than one frame is held; a body never outlives its limits of size and silence; the account is
//! settled the moment the last frame is handed over, not when somebody comes round to ask again.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::model::Finished;

use super::account::{Account, BodyFault, Progress};
use super::headers::without_claims;
use super::upstream::Lease;

/// The body of an answer.
pub(super) enum Body {
    /// Our own words.
    Whole(Full<Bytes>),
    /// The subsystem's, metered. Boxed, because hyper moves answers often.
    Metered(Box<Metered>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(full) => Pin::new(full).poll_frame(context).map_err(|never| match never {}),
            Self::Metered(metered) => metered.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(full) => full.is_end_stream(),
            Self::Metered(metered) => metered.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(full) => full.size_hint(),
            Self::Metered(metered) => metered.incoming.size_hint(),
        }
    }
}

/// Ends a wait in silence. The timer is made only when there is something to wait for.
#[derive(Default)]
struct Silence(Option<Pin<Box<Sleep>>>);

impl Silence {
    /// Ready when nothing came for `patience`.
    fn poll(&mut self, context: &mut Context<'_>, patience: Duration) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        sleep.as_mut().poll(context)
    }

    /// Something came.
    fn broken(&mut self) {
        self.0 = None;
    }
}

/// The subsystem's answer on its way to the caller.
pub(super) struct Metered {
    incoming: Incoming,
    open: Option<(Account, Lease)>,
    finished: Finished,
    patience: Duration,
    silence: Silence,
}

impl Metered {
    /// `finished` is the outcome once the whole body has passed.
    pub(super) fn new(incoming: Incoming, open: (Account, Lease), finished: Finished, patience: Duration) -> Self {
        Self { incoming, open: Some(open), finished, patience, silence: Silence::default() }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Poll::Ready(next) = Pin::new(&mut self.incoming).poll_frame(context) else {
            ready!(self.silence.poll(context, self.patience));
            self.fail(Finished::Timeout);
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        };
        self.silence.broken();
        Poll::Ready(match next {
            Some(Ok(frame)) => {
                self.count(&frame);
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.fail(Finished::UpstreamFailed);
                Some(Err(io::Error::other(error)))
            }
            None => {
                self.end();
                None
            }
        })
    }

    fn count(&mut self, frame: &Frame<Bytes>) {
        if let (Some((account, _)), Some(data)) = (&mut self.open, frame.data_ref()) {
            account.add_response_bytes(data.len() as u64);
        }
        if frame.is_trailers() || self.incoming.is_end_stream() {
            self.end(); // hyper does not ask again after the last frame
        }
    }

    fn end(&mut self) {
        if let Some((account, lease)) = self.open.take() {
            lease.give_back(account.progress().complete.get());
            account.settle(self.finished);
        }
    }

    /// The answer broke off: by the subsystem's doing, unless the request body had broken first.
    fn fail(&mut self, finished: Finished) {
        let Some((account, lease)) = self.open.take() else { return };
        if account.fault().is_some() {
            return account.settle(Finished::Aborted);
        }
        lease.fail(finished);
        account.settle(finished);
    }
}

impl Drop for Metered {
    /// An answer without a body is never polled: it is whole when it is dropped. Any other is cut off by its caller, and
    /// dropping the account says so.
    fn drop(&mut self) {
        if self.incoming.is_end_stream() {
            self.end();
        }
    }
}

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

/// The caller's body on its way to the subsystem.
pub(super) struct RequestBody {
    incoming: Incoming,
    progress: Rc<Progress>,
    max: u64,
    seen: u64,
    patience: Duration,
    silence: Silence,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, progress: &Rc<Progress>, max: u64, patience: Duration) -> Self {
        progress.complete.set(incoming.is_end_stream());
        Self { incoming, progress: Rc::clone(progress), max, seen: 0, patience, silence: Silence::default() }
    }

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
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.progress.is_over(context) && !this.progress.complete.get() {
            return Poll::Ready(Some(Err(this.stop(BodyFault::Over))));
        }
        let next = Pin::new(&mut this.incoming).poll_frame(context);
        this.progress.waiting.set(next.is_pending());
        let Poll::Ready(next) = next else {
            ready!(this.silence.poll(context, this.patience));
            return Poll::Ready(Some(Err(this.stop(BodyFault::Idle))));
        };
        this.silence.broken();
        Poll::Ready(match next {
            Some(Ok(frame)) => Some(this.count(frame).map_err(|fault| this.stop(fault))),
            Some(Err(_)) => Some(Err(this.stop(BodyFault::Broken))),
            None => {
                this.progress.complete.set(true);
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
