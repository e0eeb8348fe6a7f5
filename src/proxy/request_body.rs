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
        self.progress.upload.pass(bytes);
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
