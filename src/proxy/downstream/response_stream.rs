//! A response body on its way to the caller. Its command stays open until the body is dropped, and the unsent bytes are
//! bounded.
//!
//! Guarantees:
//! - Backpressure: while the caller does not read, nothing more is read from a subsystem. While the streams of an
//!   HTTP/2 connection hold their whole send budget, little is read ([`super::h2_send_budget`]).
//! - [`StreamProgress`] shows since when the caller has read nothing of a stream.
//!
//! Leaves to others: a connection on which nothing is written at all ([`crate::proxy::io::write_timeout`]).

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use crate::proxy::exchange::response_body::ResponseBody;
use crate::proxy::exchange::tunnel::UpgradeTunnel;
use crate::proxy::io::connection_activity::ActiveRequest;

use super::h2_send_budget::{CountedChunk, SendBudget, StreamBudget, UnsentBytes};

/// The progress of one HTTP/2 stream, and the tunnel that the stream becomes.
#[derive(Default)]
pub(crate) struct StreamProgress {
    /// The bytes that the caller has not read.
    unsent: Rc<UnsentBytes>,
    /// The tunnel that the stream becomes after its response head.
    pub(crate) tunnel: Cell<Option<Box<UpgradeTunnel>>>,
}

impl StreamProgress {
    /// Since when unsent bytes wait for the caller. `None` if nothing waits.
    pub(crate) fn blocked_on_client_since(&self) -> Option<Instant> {
        self.unsent.unsent_since()
    }

    /// Restarts the write timeout, because another stream is what keeps the caller from reading.
    pub(crate) fn restart_timeout(&self, now: Instant) {
        self.unsent.note_sent(now);
    }

    /// hyper polls for more of the response. The poll may also be a spurious wake-up of the stream.
    fn resume(&self, now: Instant) {
        if self.unsent.is_empty() {
            self.unsent.note_sent(now);
        }
    }
}

/// The body that hyper sends to the caller: a [`ResponseBody`] with backpressure and an open command.
pub(crate) struct ResponseStream {
    body: ResponseBody,
    /// The command is open until this value is dropped.
    active_request: ActiveRequest,
    stream: Option<H2StreamState>,
}

/// The state of an HTTP/2 response: its share of the connection's send budget, and its progress.
pub(crate) struct H2StreamState {
    budget: StreamBudget,
    progress: Rc<StreamProgress>,
}

impl ResponseStream {
    /// A response over HTTP/1.1. Such a connection holds at most one unsent chunk, and the connection itself has a
    /// write timeout.
    pub(crate) fn over_http1(body: ResponseBody, active_request: ActiveRequest) -> Self {
        Self { body, active_request, stream: None }
    }

    pub(crate) fn over_http2(
        body: ResponseBody,
        active_request: ActiveRequest,
        send_budget: Rc<SendBudget>,
        progress: Rc<StreamProgress>,
    ) -> Self {
        let share = StreamBudget::new(send_budget, Rc::clone(&progress.unsent), body.buffered_bytes());
        Self { body, active_request, stream: Some(H2StreamState { budget: share, progress }) }
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<CountedChunk>>>> {
        let Some(stream) = &mut self.stream else {
            ready!(self.active_request.poll_writable(context));
            let polled = Pin::new(&mut self.body).poll_frame(context);
            return polled.map_ok(|frame| frame.map_data(CountedChunk::from));
        };
        // Checked before the flow-control windows: h2 would buffer the bytes of each stream.
        ready!(self.active_request.poll_writable(context));
        stream.progress.resume(self.active_request.now());
        self.body.set_read_ahead_max(ready!(stream.budget.poll_available(context)));
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let ahead = self.body.buffered_bytes();
        if !matches!(&polled, Poll::Ready(Some(Ok(frame))) if frame.is_data()) {
            stream.budget.release_unused(ahead);
        }
        polled.map_ok(|frame| frame.map_data(|bytes| stream.budget.send_chunk(bytes, ahead)))
    }
}

impl HttpBody for ResponseStream {
    type Data = CountedChunk;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<CountedChunk>>>> {
        self.get_mut().poll_chunk(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
