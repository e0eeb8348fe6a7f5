//! A write timeout: ends a connection whose caller stops reading.
//!
//! Guarantees:
//! - A write, flush or shutdown without progress for `response_idle` fails with `TimedOut`. That ends the connection
//!   and settles its open commands.
//! - Also counts the received bytes, which shows a caller that has sent nothing.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::telemetry::{LimitHit, Telemetry};

use super::deadline_timer::DeadlineTimer;

/// A stream with a write timeout.
pub(crate) struct WriteTimeout<S> {
    stream: S,
    timeout: Duration,
    /// Runs while a write is stalled.
    idle_timer: DeadlineTimer,
    received: Rc<Cell<u64>>,
    telemetry: Arc<Telemetry>,
}

impl<S: Unpin> WriteTimeout<S> {
    /// `telemetry` counts the timeouts.
    pub(crate) fn new(stream: S, timeout: Duration, telemetry: &Arc<Telemetry>) -> Self {
        Self {
            stream,
            timeout,
            idle_timer: DeadlineTimer::default(),
            received: Rc::default(),
            telemetry: Arc::clone(telemetry),
        }
    }

    /// The number of bytes received from the caller.
    pub(crate) fn received_bytes(&self) -> &Rc<Cell<u64>> {
        &self.received
    }

    fn check_progress<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.idle_timer.clear();
            return polled;
        }
        ready!(self.idle_timer.poll_idle(context, self.timeout));
        self.telemetry.count_limit_hit(LimitHit::ResponseIdle);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "write timeout: the client stopped reading")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream_pin = self.get_mut();
        let before = out.filled().len();
        let polled = Pin::new(&mut stream_pin.stream).poll_read(context, out);
        let received = out.filled().len() - before;
        stream_pin.received.set(stream_pin.received.get() + received as u64);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream_pin = self.get_mut();
        let polled = Pin::new(&mut stream_pin.stream).poll_write(context, bytes);
        stream_pin.check_progress(context, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream_pin = self.get_mut();
        let polled = Pin::new(&mut stream_pin.stream).poll_write_vectored(context, pieces);
        stream_pin.check_progress(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream_pin = self.get_mut();
        let polled = Pin::new(&mut stream_pin.stream).poll_flush(context);
        stream_pin.check_progress(context, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream_pin = self.get_mut();
        let polled = Pin::new(&mut stream_pin.stream).poll_shutdown(context);
        stream_pin.check_progress(context, polled)
    }
}
