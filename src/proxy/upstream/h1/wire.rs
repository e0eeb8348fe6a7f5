//! A connection to a server, and what was read from it ahead of need.
//!
//! Guarantees: reads are made only when something is waited for; the buffer is used again once nobody holds a piece of it; what was
//! read keeps alive at most twice its length of a buffer that is larger than [`READ_MIN`].

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, ReadHalf, WriteHalf, split};

use crate::proxy::load::Load;

use super::super::health::Health;
use super::super::stream::Stream;

/// Room for a read; most answers fit. While a large body is coming it is what [`Load::ahead`] says. With 8 KiB a connection of 100
/// streams that nobody reads may have more than 2 MiB (`tests/floods.rs`); with 4 larger answers cost a second read.
const READ_MIN: usize = 4 * 1024;

/// An open connection.
pub(in crate::proxy::upstream) struct Wire {
    ends: Ends,
    buffer: BytesMut,
    room: usize,
    /// What the caller's connection leaves to this answer.
    pub(super) room_max: usize,
    /// Whether it has carried a request before.
    pub(super) is_reused: bool,
    /// How long it may be kept without a request, if its server has said so.
    pub(in crate::proxy::upstream) idle_max: Option<Duration>,
    load: Rc<Load>,
    /// What was read and not yet looked at.
    pub(super) read: Bytes,
    _counted: Counted,
}

enum Ends {
    Both(Stream),
    /// The other half still sends a request whose answer came early.
    Reading(ReadHalf<Stream>),
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
    pub(in crate::proxy::upstream) fn new(stream: Stream, health: &Arc<Health>, load: &Rc<Load>) -> Self {
        health.stats.connections.up();
        Self {
            ends: Ends::Both(stream),
            buffer: BytesMut::new(),
            room: READ_MIN,
            room_max: usize::MAX,
            is_reused: false,
            idle_max: None,
            load: Rc::clone(load),
            read: Bytes::new(),
            _counted: Counted(Arc::clone(health)),
        }
    }

    /// Whether the server has neither closed nor said anything unasked. Costs no system call as long as tokio has not heard
    /// of an event.
    pub(in crate::proxy::upstream) fn is_quiet(&mut self) -> bool {
        self.read.is_empty() && self.poll_fill(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Reads no more than is still to come, if that is known.
    pub(super) fn expect(&mut self, left: Option<u64>) {
        let left = left.and_then(|left| usize::try_from(left).ok());
        self.room = left.map_or(self.room, |left| left.clamp(1, self.load.ahead()));
    }

    /// Reads what has come, behind what is there already. `Ok(false)` is the end.
    ///
    /// No memory is taken before something comes: commands that wait for a slow subsystem, and kept connections, are many.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if let Ends::Both(stream) = &self.ends {
            ready!(stream.poll_readable(context))?;
        }
        let room = self.room.min(self.room_max);
        self.buffer.reserve(room);
        let mut buffer = (&mut self.buffer).limit(room); // which may have more
        let count = match &mut self.ends {
            Ends::Both(stream) => ready!(pin!(stream.read_buf(&mut buffer)).poll(context))?,
            Ends::Reading(half) => ready!(pin!(half.read_buf(&mut buffer)).poll(context))?,
            Ends::Gone => 0,
        };
        self.room = if count >= room { self.load.ahead() } else { READ_MIN };
        let fresh = self.take_fresh();
        self.read = if self.read.is_empty() { fresh } else { [&self.read[..], &fresh[..]].concat().into() };
        Poll::Ready(Ok(count > 0))
    }

    /// What was just read. What is less than half of a large buffer does not keep it: pieces of an answer may be held for long.
    fn take_fresh(&mut self) -> Bytes {
        let capacity = self.buffer.capacity();
        if capacity <= READ_MIN || self.buffer.len() >= capacity / 2 {
            return self.buffer.split().freeze();
        }
        Bytes::copy_from_slice(&std::mem::take(&mut self.buffer))
    }

    /// The end that writes, if it is still here.
    pub(super) fn writing(&mut self) -> Option<&mut Stream> {
        match &mut self.ends {
            Ends::Both(stream) => Some(stream),
            Ends::Reading(_) | Ends::Gone => None,
        }
    }

    /// Takes the end that writes, for a request that is longer than its answer took. Such a connection is not used again.
    pub(super) fn split(&mut self) -> Option<WriteHalf<Stream>> {
        let Ends::Both(stream) = std::mem::replace(&mut self.ends, Ends::Gone) else { return None };
        let (reading, writing) = split(stream);
        self.ends = Ends::Reading(reading);
        Some(writing)
    }

    /// Ready for another request, whatever room the last answer needed.
    pub(super) fn renewed(mut self: Box<Self>) -> Box<Self> {
        (self.room, self.room_max, self.is_reused) = (READ_MIN, usize::MAX, true);
        if self.buffer.capacity() > READ_MIN {
            self.buffer = BytesMut::new(); // kept connections are many
        }
        self
    }

    /// The whole connection, with what was read ahead.
    pub(super) fn into_stream(self) -> Option<(Stream, Bytes)> {
        match self.ends {
            Ends::Both(stream) => Some((stream, self.read)),
            Ends::Reading(_) | Ends::Gone => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    use super::super::super::health::UpstreamHealth;
    use super::*;
    use crate::clock::Clock;
    use crate::model::Name;
    use crate::policy::{Address, Upstream};
    use crate::telemetry::Telemetry;

    /// A connection that reads from here.
    pub(in super::super) fn wire(stream: UnixStream) -> Wire {
        let server = Upstream {
            address: Address::Unix("nowhere".into()),
            secure: false,
            authority: "a".to_owned(),
            max_requests: None,
            weight: 1,
        };
        let clock = Clock::manual("2026-11-24T00:00:00Z".parse().expect("a time"));
        let health = UpstreamHealth::new(Telemetry::new(), clock).of(&Name::unknown(), &server);
        Wire::new(Stream::Unix(stream), &health, &Rc::new(Load::new(1)))
    }

    /// What is read of so many bytes.
    async fn read_of(wire: &mut Wire, server: &mut UnixStream, bytes: usize) -> Bytes {
        server.write_all(&vec![7; bytes]).await.expect("the server writes");
        assert!(poll_fn(|context| wire.poll_fill(context)).await.expect("it is read"));
        std::mem::take(&mut wire.read)
    }

    #[tokio::test]
    async fn a_small_read_does_not_keep_a_large_buffer() {
        let (stream, mut server) = UnixStream::pair().expect("a pair");
        let mut wire = wire(stream);
        assert_eq!(read_of(&mut wire, &mut server, READ_MIN).await.len(), READ_MIN);
        assert!(wire.room > 8 * READ_MIN, "more is expected after a read that filled its room");
        let read = read_of(&mut wire, &mut server, 1024).await;
        let kept = read.try_into_mut().expect("nobody else holds its buffer").capacity();
        assert!(kept <= 2048, "1024 bytes keep {kept}");
    }
}
