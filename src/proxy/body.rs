//! The body of an answer: it streams, it counts, and it carries the account to its end.
//!
//! Guarantees: never more than one frame is held; a subsystem's silence has a limit; the account is settled the moment the
//! last frame is handed over, not when somebody comes round to ask again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::model::Finished;

use super::account::Account;
use super::silence::Silence;
use super::upstream::{AnswerBody, Lease};

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

/// The subsystem's answer on its way to the caller.
pub(super) struct Metered {
    incoming: AnswerBody,
    open: Option<(Account, Lease)>,
    finished: Finished,
    patience: Duration,
    silence: Silence,
}

impl Metered {
    /// `finished` is the outcome once the whole body has passed.
    pub(super) fn new(incoming: AnswerBody, open: (Account, Lease), finished: Finished, patience: Duration) -> Self {
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
            lease.give_back(&mut self.incoming);
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
