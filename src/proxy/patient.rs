//! A caller's stream that does not wait for ever for a caller that stops reading.
//!
//! Guarantees: a write, a flush or a goodbye that makes no progress for `stall` fails as timed out, which ends the
//! connection and settles what was being answered. Also counts what came in, to tell a caller that has said nothing.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::telemetry::LimitHit;

use super::wire::Wait;
use super::worker::Worker;

/// See the module.
pub(super) struct Patient<S> {
    stream: S,
    stall: Duration,
    stalled_since: Option<Instant>,
    wait: Wait,
    heard: Rc<Cell<u64>>,
    worker: Rc<Worker>,
}

impl<S: Unpin> Patient<S> {
    pub(super) fn new(stream: S, worker: &Rc<Worker>) -> Self {
        let (stall, worker) = (worker.capacity.answer_idle, Rc::clone(worker));
        Self { stream, stall, stalled_since: None, wait: Wait::default(), heard: Rc::default(), worker }
    }

    /// How many bytes have come from the caller.
    pub(super) fn heard(&self) -> &Rc<Cell<u64>> {
        &self.heard
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled_since = None;
            return polled;
        }
        let since = *self.stalled_since.get_or_insert_with(Instant::now);
        ready!(self.wait.poll(context, since + self.stall));
        self.worker.recorder.limit_hit(LimitHit::AnswerIdle);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the caller stopped reading")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let patient = self.get_mut();
        let before = out.filled().len();
        let polled = Pin::new(&mut patient.stream).poll_read(context, out);
        let came = out.filled().len() - before;
        patient.heard.set(patient.heard.get() + came as u64);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let patient = self.get_mut();
        let polled = Pin::new(&mut patient.stream).poll_write(context, bytes);
        patient.watch(context, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let patient = self.get_mut();
        let polled = Pin::new(&mut patient.stream).poll_write_vectored(context, pieces);
        patient.watch(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let patient = self.get_mut();
        let polled = Pin::new(&mut patient.stream).poll_flush(context);
        patient.watch(context, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let patient = self.get_mut();
        let polled = Pin::new(&mut patient.stream).poll_shutdown(context);
        patient.watch(context, polled)
    }
}
