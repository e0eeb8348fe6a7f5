//! An answer on its way out of one connection: its command is open until it is gone, and what its caller does not take is
//! bounded.
//!
//! Guarantees: one connection holds at most [`UNTAKEN_MAX`] bytes, and what two pieces are, of answers that its caller does
//! not take, however many streams it opens; a stream whose caller takes nothing for too long can be told by its [`Turn`].

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::body::Body;
use super::pulse::Beat;
use super::tunnel::Doorstep;
use super::waiters::{Place, Waiters};

/// Bytes of answers that one connection holds because its caller does not take them.
const UNTAKEN_MAX: usize = 512 * 1024;

/// What the answers of one HTTP/2 connection share.
#[derive(Debug, Default)]
pub(super) struct Counter {
    untaken: Cell<usize>,
    /// Answers that may not go on before others were taken.
    waiting: Waiters,
}

/// Whose turn it is on one HTTP/2 stream, and what it becomes.
#[derive(Default)]
pub(super) struct Turn {
    callers_since: Cell<Option<Instant>>,
    /// The tunnel that the stream is to be once its answer has left.
    pub(super) tunnel: Doorstep,
}

impl Turn {
    /// Since when the caller has had something to take; nothing, if it is not its turn.
    pub(super) fn callers_since(&self) -> Option<Instant> {
        self.callers_since.get()
    }
}

/// See the module.
pub(super) struct Departing {
    body: Body,
    /// The command is open as long as this lives.
    beat: Beat,
    stream: Option<Stream>,
}

/// One HTTP/2 stream's part in what is not taken.
pub(super) struct Stream {
    counter: Rc<Counter>,
    turn: Rc<Turn>,
    /// The last two pieces handed over: the one before may still be on its way out.
    last: usize,
    before: usize,
    held: usize,
    /// While it may not go on.
    place: Place,
}

impl Departing {
    /// Over HTTP/1.1 a caller that takes nothing holds one piece, and the connection has its own patience.
    pub(super) fn over_http1(body: Body, beat: Beat) -> Self {
        Self { body, beat, stream: None }
    }

    pub(super) fn over_http2(body: Body, beat: Beat, counter: Rc<Counter>, turn: Rc<Turn>) -> Self {
        Self {
            body,
            beat,
            stream: Some(Stream { counter, turn, last: 0, before: 0, held: 0, place: Place::default() }),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(stream) = &mut self.stream else {
            ready!(self.beat.poll_taken(context));
            return Pin::new(&mut self.body).poll_frame(context);
        };
        if self.beat.poll_taken(context).is_pending() {
            stream.wait_for_caller(self.beat.now());
            return Poll::Pending; // whatever windows are open: h2 would keep it, for each stream
        }
        stream.taken();
        if stream.must_wait(context) {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let now = self.beat.now();
            stream.hand_over(frame.data_ref().map_or(0, Bytes::len), now);
        }
        polled
    }
}

impl Stream {
    /// hyper asks for more: what was handed over has been taken.
    fn taken(&mut self) {
        self.turn.callers_since.set(None);
        let held = std::mem::take(&mut self.held);
        self.counter.untaken.set(self.counter.untaken.get().saturating_sub(held));
        if held > 0 {
            self.counter.waiting.wake_all();
        }
    }

    /// The connection takes no more for now: it is the caller's turn on this stream too.
    fn wait_for_caller(&self, now: Instant) {
        if self.turn.callers_since.get().is_none() {
            self.turn.callers_since.set(Some(now));
        }
    }

    fn must_wait(&self, context: &Context<'_>) -> bool {
        let must_wait = self.counter.untaken.get() >= UNTAKEN_MAX;
        match must_wait {
            true => self.counter.waiting.wait(&self.place, context.waker()),
            false => self.counter.waiting.leave(&self.place),
        }
        must_wait
    }

    fn hand_over(&mut self, bytes: usize, now: Instant) {
        self.before = std::mem::replace(&mut self.last, bytes);
        self.held = self.before + self.last;
        self.counter.untaken.set(self.counter.untaken.get() + self.held);
        self.turn.callers_since.set(Some(now));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.taken();
        self.counter.waiting.leave(&self.place);
    }
}

impl HttpBody for Departing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.get_mut().poll(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
