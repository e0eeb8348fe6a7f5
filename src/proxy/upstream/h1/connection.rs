//! An HTTP/1.1 connection to a server, with its read buffer.
//!
//! Guarantees:
//! - The connection is read only while a caller waits for data.
//! - The read buffer is reused once no piece of it is held.
//! - A read of `n` bytes keeps at most `2 * n` bytes of memory alive if the buffer is larger than [`READ_MIN`].
//!
//! Leaves to others: the parsing of what was read (`response_head`, `body_decoder`).

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, ReadHalf, WriteHalf, split};

use crate::proxy::capacity::load_shedding::InFlightLimiter;
use crate::proxy::upstream::endpoint::outlier_ejection::ServerHealth;
use crate::proxy::upstream::endpoint::stream::ServerStream;

/// The size of a read; most responses fit. During a large body the size is [`InFlightLimiter::read_ahead_limit`]. With
/// 8 KiB, a connection with 100 streams that are not read can use more than 2 MiB (`tests/http2/http2_abuse.rs`). With
/// 4 KiB, larger responses need a second read.
const READ_MIN: usize = 4 * 1024;

/// An open connection.
pub(crate) struct Http1Connection {
    halves: ConnectionHalves,
    buffer: BytesMut,
    read_size: usize,
    /// The part of the caller connection's send budget that this response may use for one read.
    pub(crate) read_size_max: usize,
    /// Whether the connection has carried a request before.
    pub(crate) is_reused: bool,
    /// The idle timeout that the server announced (`Keep-Alive`), if any.
    pub(crate) idle_max: Option<Duration>,
    in_flight: Rc<InFlightLimiter>,
    /// Bytes that were read and are not parsed yet.
    pub(crate) unparsed: Bytes,
    _gauge: ConnectionGauge,
}

enum ConnectionHalves {
    Both(ServerStream),
    /// The write half still sends a request whose response arrived early.
    Reading(ReadHalf<ServerStream>),
    /// A transient state during the split, and the state after a failed one.
    Taken,
}

/// Counts the connection as long as it is open.
struct ConnectionGauge(Arc<ServerHealth>);

impl Drop for ConnectionGauge {
    fn drop(&mut self) {
        self.0.stats.connections.decrement();
    }
}

impl Http1Connection {
    pub(crate) fn new(stream: ServerStream, health: &Arc<ServerHealth>, in_flight: &Rc<InFlightLimiter>) -> Self {
        health.stats.connections.increment();
        Self {
            halves: ConnectionHalves::Both(stream),
            buffer: BytesMut::new(),
            read_size: READ_MIN,
            read_size_max: usize::MAX,
            is_reused: false,
            idle_max: None,
            in_flight: Rc::clone(in_flight),
            unparsed: Bytes::new(),
            _gauge: ConnectionGauge(Arc::clone(health)),
        }
    }

    /// Whether the connection is still open and no unrequested byte has arrived. Costs no system call unless tokio has
    /// seen an event.
    pub(crate) fn is_reusable(&mut self) -> bool {
        self.unparsed.is_empty() && self.poll_fill(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Limits the next read to the remaining bytes of the body, if their number is known.
    pub(crate) fn expect_bytes(&mut self, left: Option<u64>) {
        let left = left.and_then(|left| usize::try_from(left).ok());
        self.read_size = left.map_or(self.read_size, |left| left.clamp(1, self.in_flight.read_ahead_limit()));
    }

    /// Reads available bytes and appends them to `unparsed`. `Ok(false)` is the end of the connection.
    ///
    /// No buffer is allocated before data arrives: many commands wait for slow subsystems, and many connections are
    /// idle.
    pub(crate) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if let ConnectionHalves::Both(stream) = &self.halves {
            ready!(stream.poll_readable(context))?;
        }
        let room = self.read_size.min(self.read_size_max);
        self.buffer.reserve(room);
        let mut buffer = (&mut self.buffer).limit(room); // the buffer may have a larger capacity
        let count = match &mut self.halves {
            ConnectionHalves::Both(stream) => ready!(pin!(stream.read_buf(&mut buffer)).poll(context))?,
            ConnectionHalves::Reading(half) => ready!(pin!(half.read_buf(&mut buffer)).poll(context))?,
            ConnectionHalves::Taken => 0,
        };
        self.read_size = if count >= room { self.in_flight.read_ahead_limit() } else { READ_MIN };
        let fresh = self.take_read();
        self.unparsed = if self.unparsed.is_empty() { fresh } else { [&self.unparsed[..], &fresh[..]].concat().into() };
        Poll::Ready(Ok(count > 0))
    }

    /// Takes the bytes just read. Bytes that fill less than half of a large buffer are copied, so that they do not keep
    /// the buffer alive: pieces of a response may be held for a long time.
    fn take_read(&mut self) -> Bytes {
        let capacity = self.buffer.capacity();
        if capacity <= READ_MIN || self.buffer.len() >= capacity / 2 {
            return self.buffer.split().freeze();
        }
        Bytes::copy_from_slice(&std::mem::take(&mut self.buffer))
    }

    /// The writable stream, if its write half was not split off.
    pub(crate) fn write_stream(&mut self) -> Option<&mut ServerStream> {
        match &mut self.halves {
            ConnectionHalves::Both(stream) => Some(stream),
            ConnectionHalves::Reading(_) | ConnectionHalves::Taken => None,
        }
    }

    /// Splits off the write half, for a request whose response arrived early. The connection is not reused after that.
    pub(crate) fn split_write_half(&mut self) -> Option<WriteHalf<ServerStream>> {
        let ConnectionHalves::Both(stream) = std::mem::replace(&mut self.halves, ConnectionHalves::Taken) else {
            return None;
        };
        let (reading, writing) = split(stream);
        self.halves = ConnectionHalves::Reading(reading);
        Some(writing)
    }

    /// Resets the connection for the next request, and drops a large buffer.
    pub(crate) fn reset_for_reuse(mut self: Box<Self>) -> Box<Self> {
        (self.read_size, self.read_size_max, self.is_reused) = (READ_MIN, usize::MAX, true);
        if self.buffer.capacity() > READ_MIN {
            self.buffer = BytesMut::new(); // there are many kept connections
        }
        self
    }

    /// The whole connection, with the bytes that were read ahead.
    pub(crate) fn into_stream(self) -> Option<(ServerStream, Bytes)> {
        match self.halves {
            ConnectionHalves::Both(stream) => Some((stream, self.unparsed)),
            ConnectionHalves::Reading(_) | ConnectionHalves::Taken => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    use super::*;
    use crate::clock::Clock;
    use crate::model::Name;
    use crate::policy::{UpstreamAddress, UpstreamServer};
    use crate::proxy::upstream::endpoint::outlier_ejection::UpstreamHealth;
    use crate::telemetry::Telemetry;

    /// A connection that reads from `stream`.
    pub(crate) fn wire(stream: UnixStream) -> Http1Connection {
        let server = UpstreamServer {
            address: UpstreamAddress::Unix("nowhere".into()),
            secure: false,
            authority: "a".to_owned(),
            max_requests: None,
            weight: 1,
        };
        let clock = Clock::manual("2026-11-24T00:00:00Z".parse().expect("a time"));
        let health = UpstreamHealth::new(Telemetry::new(), clock).server_health(&Name::unknown(), &server);
        Http1Connection::new(ServerStream::Unix(stream), &health, &Rc::new(InFlightLimiter::new(1)))
    }

    /// Writes `bytes` bytes on the server side and returns what one read yields.
    async fn read_of(connection: &mut Http1Connection, server: &mut UnixStream, bytes: usize) -> Bytes {
        server.write_all(&vec![7; bytes]).await.expect("the server writes");
        assert!(poll_fn(|context| connection.poll_fill(context)).await.expect("it is read"));
        std::mem::take(&mut connection.unparsed)
    }

    #[tokio::test]
    async fn small_read_does_not_keep_a_large_buffer() {
        let (stream, mut server) = UnixStream::pair().expect("a pair");
        let mut connection = wire(stream);
        assert_eq!(read_of(&mut connection, &mut server, READ_MIN).await.len(), READ_MIN);
        assert!(connection.read_size > 8 * READ_MIN, "more is expected after a read that filled its room");
        let read = read_of(&mut connection, &mut server, 1024).await;
        let kept = read.try_into_mut().expect("nobody else holds its buffer").capacity();
        assert!(kept <= 2048, "1024 bytes keep {kept}");
    }
}
