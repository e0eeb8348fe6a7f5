//! A connection to a server, and what was read from it ahead of need.
//!
//! Guarantees: reads are made only when something is waited for; the buffer is used again once nobody holds a piece of it.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWrite, ReadHalf, WriteHalf, split};

use crate::proxy::socket::Socket;

use super::super::health::Health;

/// Room for a read; most answers fit.
const READ_MIN: usize = 8 * 1024;
/// Room for a read while a large body is coming.
const READ_MAX: usize = 64 * 1024;

/// An open connection.
pub(in crate::proxy::upstream) struct Wire {
    stream: Stream,
    buffer: BytesMut,
    room: usize,
    /// What was read and not yet looked at.
    pub(super) read: Bytes,
    _counted: Counted,
}

enum Stream {
    Whole(Socket),
    /// The other half still sends a request whose answer came early.
    Reading(ReadHalf<Socket>),
    /// Between the two.
    Gone,
}

/// Counts the connection as long as it is open.
struct Counted(Arc<Health>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.stats.connections.down();
    }
}

impl Wire {
    pub(in crate::proxy::upstream) fn new(socket: Socket, health: &Arc<Health>) -> Self {
        health.stats.connections.up();
        Self {
            stream: Stream::Whole(socket),
            buffer: BytesMut::new(),
            room: READ_MIN,
            read: Bytes::new(),
            _counted: Counted(Arc::clone(health)),
        }
    }

    /// Whether the server has neither closed nor said anything unasked. Costs no system call as long as tokio has not heard
    /// of an event.
    pub(in crate::proxy::upstream) fn is_quiet(&mut self) -> bool {
        self.read.is_empty() && self.poll_fill(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Reads what has come, behind what is there already. `Ok(false)` is the end.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.buffer.reserve(self.room);
        let count = match &mut self.stream {
            Stream::Whole(socket) => ready!(pin!(socket.read_buf(&mut self.buffer)).poll(context))?,
            Stream::Reading(half) => ready!(pin!(half.read_buf(&mut self.buffer)).poll(context))?,
            Stream::Gone => 0,
        };
        self.room = if count >= self.room { READ_MAX } else { READ_MIN };
        let fresh = self.buffer.split().freeze();
        self.read = if self.read.is_empty() { fresh } else { [&self.read[..], &fresh[..]].concat().into() };
        Poll::Ready(Ok(count > 0))
    }

    /// Writes pieces; tells how many bytes went.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Whole(socket) => Pin::new(socket).poll_write_vectored(context, pieces),
            Stream::Reading(_) | Stream::Gone => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Takes the half that writes, for a request that is longer than its answer took. Such a connection is not used again.
    pub(super) fn split(&mut self) -> Option<WriteHalf<Socket>> {
        let Stream::Whole(socket) = std::mem::replace(&mut self.stream, Stream::Gone) else { return None };
        let (reading, writing) = split(socket);
        self.stream = Stream::Reading(reading);
        Some(writing)
    }
}
