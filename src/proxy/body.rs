//! The body of an answer: it streams, it counts, and it carries the account to its end.
//!
//! Guarantees: never more than one frame is held; a subsystem's silence has a limit; the account is settled the moment the
//! last byte of content is handed over, or the trailers where they tell the outcome, not when somebody comes round to ask again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::model::Finished;

use super::account::Account;
use super::compress::Compressed;
use super::fields::trailers_towards_caller;
use super::grpc;
use super::silence::Silence;
use super::upstream::{AnswerBody, Lease};

/// The body of an answer.
pub(super) enum Body {
    /// Our own words.
    Whole(Full<Bytes>),
    /// The subsystem's, metered. Boxed, because hyper moves answers often.
    Metered(Box<Metered>),
    /// The same, compressed on its way.
    Compressed(Box<Compressed>),
}

impl Body {
    /// Reads at most so many bytes ahead, from now on.
    pub(super) fn read_at_most(&mut self, bytes: usize) {
        match self {
            Self::Whole(_) => {}
            Self::Metered(metered) => metered.read_at_most(bytes),
            Self::Compressed(compressed) => compressed.read_at_most(bytes),
        }
    }

    /// Bytes that were read and are not handed over.
    pub(super) fn read_ahead(&self) -> usize {
        match self {
            Self::Whole(_) => 0,
            Self::Metered(metered) => metered.read_ahead(),
            Self::Compressed(compressed) => compressed.read_ahead(),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(full) => Pin::new(full).poll_frame(context).map_err(|never| match never {}),
            Self::Metered(metered) => metered.poll(context),
            Self::Compressed(compressed) => compressed.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(full) => full.is_end_stream(),
            Self::Metered(metered) => metered.incoming.is_end_stream(),
            Self::Compressed(compressed) => compressed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(full) => full.size_hint(),
            Self::Metered(metered) => metered.incoming.size_hint(),
            Self::Compressed(_) => SizeHint::default(),
        }
    }
}

/// The subsystem's answer on its way to the caller.
pub(super) struct Metered {
    incoming: AnswerBody,
    open: Option<(Account, Lease)>,
    verdict: Verdict,
    patience: Duration,
    silence: Silence,
    /// When a gRPC call must have ended.
    until: Option<Pin<Box<Sleep>>>,
}

/// The outcome once the whole body has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The head told it.
    Known(Finished),
    /// Trailers will tell it (`grpc-status`); an answer that ends without them has failed.
    InTrailers,
}

impl Metered {
    /// The subsystem may be silent for `patience`, and must have ended at a time, if one is given.
    pub(super) fn new(
        incoming: AnswerBody,
        open: (Account, Lease),
        verdict: Verdict,
        (patience, until): (Duration, Option<Instant>),
    ) -> Self {
        let until = until.map(|until| Box::pin(sleep_until(until)));
        Self { incoming, open: Some(open), verdict, patience, silence: Silence::default(), until }
    }

    /// See [`Body::read_at_most`].
    pub(super) fn read_at_most(&mut self, bytes: usize) {
        self.incoming.read_at_most(bytes);
    }

    /// See [`Body::read_ahead`].
    pub(super) fn read_ahead(&self) -> usize {
        self.incoming.read_ahead()
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Poll::Ready(next) = Pin::new(&mut self.incoming).poll_frame(context) else {
            return self.wait(context);
        };
        self.silence.broken();
        Poll::Ready(match next {
            Some(Ok(mut frame)) => {
                frame.trailers_mut().into_iter().for_each(trailers_towards_caller);
                self.count(&frame);
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.fail_as(Finished::UpstreamFailed, |lease| lease.broke(&error));
                Some(Err(io::Error::other(error)))
            }
            None => {
                self.end();
                None
            }
        })
    }

    /// Nothing has come.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.open.is_none() {
            return Poll::Pending; // only END_STREAM or trailers are waited for, and not for long
        }
        if self.until.as_mut().is_some_and(|until| until.as_mut().poll(context).is_ready()) {
            return Poll::Ready(self.overrun());
        }
        ready!(self.silence.poll(context, self.patience));
        while self.waits_for_its_caller() {
            self.silence.broken(); // `bodyIdle` bounds that wait
            ready!(self.silence.poll(context, self.patience));
        }
        self.fail(Finished::Timeout);
        Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
    }

    /// Whether the next piece of the request is waited for: a subsystem that answers as it is asked has nothing to say.
    fn waits_for_its_caller(&self) -> bool {
        self.open.as_ref().is_some_and(|(account, _)| account.progress().waiting.get())
    }

    fn count(&mut self, frame: &Frame<Bytes>) {
        if let (Some((account, _)), Some(data)) = (&mut self.open, frame.data_ref()) {
            account.add_response_bytes(data.len() as u64);
        }
        if let Some(trailers) = frame.trailers_ref()
            && self.verdict == Verdict::InTrailers
        {
            self.verdict = grpc::outcome(trailers).map_or(Verdict::InTrailers, Verdict::Known);
        }
        if frame.is_trailers() || self.is_whole() {
            self.end(); // hyper need not ask again
        }
    }

    /// Whether nothing is missing that the outcome depends on.
    fn is_whole(&self) -> bool {
        let is_known = matches!(self.verdict, Verdict::Known(_));
        self.incoming.is_end_stream() || (is_known && self.incoming.is_whole())
    }

    fn end(&mut self) {
        if let Some((account, lease)) = self.open.take() {
            lease.give_back(&mut self.incoming);
            account.settle(match self.verdict {
                Verdict::Known(finished) => finished,
                Verdict::InTrailers => Finished::ServerError,
            });
        }
    }

    /// The time of a gRPC call is over: its caller is told in trailers.
    fn overrun(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        let (account, _) = self.open.take()?;
        account.settle(Finished::Timeout);
        let mut trailers = HeaderMap::new();
        grpc::put_status(&mut trailers, grpc::DEADLINE_EXCEEDED, "the time this call was given is over");
        Some(Ok(Frame::trailers(trailers)))
    }

    /// The answer broke off: by the subsystem's doing, unless the request body had broken first.
    fn fail(&mut self, finished: Finished) {
        self.fail_as(finished, |lease| lease.fail(finished));
    }

    /// The same, where `note` tells the server's health what was wrong.
    fn fail_as(&mut self, finished: Finished, note: impl FnOnce(&Lease)) {
        let Some((account, lease)) = self.open.take() else { return };
        if account.fault().is_some() {
            return account.settle(Finished::Aborted);
        }
        if !account.progress().is_callers_doing() {
            note(&lease);
        }
        account.settle(finished);
    }
}

impl Drop for Metered {
    /// An answer without content is never polled: it is whole when it is dropped. So is one whose caller leaves after the last
    /// byte of its content. Any other is cut off by its caller, and dropping the account says so.
    fn drop(&mut self) {
        if self.is_whole() {
            self.end();
        }
    }
}
