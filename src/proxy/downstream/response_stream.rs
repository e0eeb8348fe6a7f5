//! An answer on its way out of one connection: its command is open until it is gone, and what its caller does not take is
//! bounded.
//!
//! Guarantees: nothing more is asked of a subsystem while the caller takes nothing, and little while the connection's streams hold
//! all they may ([`super::h2_send_budget`]); a stream of which nothing is taken for too long can be told by its [`StreamProgress`]. Leaves a
//! connection that takes nothing to [`crate::proxy::io::write_timeout`].

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::h2_send_budget::{CountedChunk, SendBudget, StreamBudget, UnsentBytes};
use crate::proxy::exchange::response_body::ResponseBody;
use crate::proxy::exchange::tunnel::PendingTunnel;
use crate::proxy::io::connection_activity::ActiveRequest;

/// Whose turn it is on one HTTP/2 stream, and what it becomes.
#[derive(Default)]
pub(crate) struct StreamProgress {
    /// What the caller has not taken.
    unsent: Rc<UnsentBytes>,
    /// The tunnel that the stream is to be once its answer has left.
    pub(crate) tunnel: PendingTunnel,
}

impl StreamProgress {
    /// Since when the caller has had something to take; nothing, if it is not its turn.
    pub(crate) fn blocked_on_client_since(&self) -> Option<Instant> {
        self.unsent.unsent_since()
    }

    /// What keeps the caller from taking is not this stream: its time begins anew.
    pub(crate) fn restart_timeout(&self, now: Instant) {
        self.unsent.note_sent(now);
    }

    /// More of the answer is asked for: by hyper, or only because somebody has woken the stream.
    fn resume(&self, now: Instant) {
        if self.unsent.is_empty() {
            self.unsent.note_sent(now);
        }
    }
}

/// See the module.
pub(crate) struct ResponseStream {
    body: ResponseBody,
    /// The command is open as long as this lives.
    active_request: ActiveRequest,
    stream: Option<H2StreamState>,
}

/// One HTTP/2 stream among others.
pub(crate) struct H2StreamState {
    budget: StreamBudget,
    progress: Rc<StreamProgress>,
}

impl ResponseStream {
    /// Over HTTP/1.1 a caller that takes nothing holds one piece, and the connection has its own patience.
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
        ready!(self.active_request.poll_writable(context)); // whatever windows are open: h2 would keep it, for each stream
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
