//! An answer on its way out of one connection: its command is open until it is gone, and what its caller does not take is
//! bounded.
//!
//! Guarantees: nothing more is asked of a subsystem while the caller takes nothing, and little while the connection's streams hold
//! all they may ([`super::untaken`]); a stream of which nothing is taken for too long can be told by its [`Turn`]. Leaves a
//! connection that takes nothing to [`super::patient`].

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::body::Body;
use super::pulse::Beat;
use super::tunnel::Doorstep;
use super::untaken::{Handed, Piece, Share, Untaken};

/// Whose turn it is on one HTTP/2 stream, and what it becomes.
#[derive(Default)]
pub(super) struct Turn {
    /// What the caller has not taken.
    handed: Rc<Handed>,
    /// The tunnel that the stream is to be once its answer has left.
    pub(super) tunnel: Doorstep,
}

impl Turn {
    /// Since when the caller has had something to take; nothing, if it is not its turn.
    pub(super) fn callers_since(&self) -> Option<Instant> {
        self.handed.untaken_since()
    }

    /// What keeps the caller from taking is not this stream: its time begins anew.
    pub(super) fn begin_anew(&self, now: Instant) {
        self.handed.note_taken(now);
    }

    /// More of the answer is asked for: by hyper, or only because somebody has woken the stream.
    fn go_on(&self, now: Instant) {
        if self.handed.is_nothing() {
            self.handed.note_taken(now);
        }
    }
}

/// See the module.
pub(super) struct Departing {
    body: Body,
    /// The command is open as long as this lives.
    beat: Beat,
    stream: Option<Stream>,
}

/// One HTTP/2 stream among others.
pub(super) struct Stream {
    share: Share,
    turn: Rc<Turn>,
}

impl Departing {
    /// Over HTTP/1.1 a caller that takes nothing holds one piece, and the connection has its own patience.
    pub(super) fn over_http1(body: Body, beat: Beat) -> Self {
        Self { body, beat, stream: None }
    }

    pub(super) fn over_http2(body: Body, beat: Beat, untaken: Rc<Untaken>, turn: Rc<Turn>) -> Self {
        let share = Share::new(untaken, Rc::clone(&turn.handed), body.read_ahead());
        Self { body, beat, stream: Some(Stream { share, turn }) }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Piece>>>> {
        let Some(stream) = &mut self.stream else {
            ready!(self.beat.poll_taken(context));
            let polled = Pin::new(&mut self.body).poll_frame(context);
            return polled.map_ok(|frame| frame.map_data(Piece::from));
        };
        ready!(self.beat.poll_taken(context)); // whatever windows are open: h2 would keep it, for each stream
        stream.turn.go_on(self.beat.now());
        self.body.read_at_most(ready!(stream.share.poll_room(context)));
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let ahead = self.body.read_ahead();
        if !matches!(&polled, Poll::Ready(Some(Ok(frame))) if frame.is_data()) {
            stream.share.came_to_nothing(ahead);
        }
        polled.map_ok(|frame| frame.map_data(|bytes| stream.share.hand_over(bytes, ahead)))
    }
}

impl HttpBody for Departing {
    type Data = Piece;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Piece>>>> {
        self.get_mut().poll(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
