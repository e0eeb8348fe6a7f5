//! Tunnels: upgraded connections between a caller and a subsystem, for WebSocket and similar protocols.
//!
//! A tunnel begins after the subsystem has switched protocols (RFC 9110 section 7.8). A caller over HTTP/2 uses one
//! stream for it ([`crate::proxy::message::upgrade_request`]).
//!
//! Guarantees:
//!
//! - A tunnel begins only after a 101 to the requested protocol.
//! - A tunnel is one command, in flight until the tunnel ends. Its bytes are on the tally as they pass.
//! - At most one chunk is held in each direction, and over HTTP/2 at most three more in hyper.
//! - An idle timeout bounds the silence of both sides. A write timeout bounds a caller that reads nothing.
//! - A reset is not an orderly end, unless the subsystem has ended and all its bytes have been handed over: many
//!   callers close with the gateway's close_notify unread, which resets the connection.
//! - The content of the tunnel is not inspected.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::OptionFuture;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, split};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use crate::model::Finished;
use crate::proxy::io::connection_activity::ActiveRequest;
use crate::proxy::io::write_timeout::WriteTimeout;
use crate::proxy::upstream::{ServerLease, ServerStream};
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::peer::DownstreamPeer;

use super::in_flight_command::InFlightCommand;

/// Bytes held in each direction.
const CHUNK_SIZE: usize = 16 * 1024;
/// Bytes held in each direction of an HTTP/2 stream. Smaller, because one connection has many streams. hyper holds at
/// most three more chunks towards the caller.
const H2_CHUNK_SIZE: usize = 2 * 1024;

/// The upstream end of a tunnel, with the account of its command.
pub(crate) struct UpgradeTunnel {
    pub(crate) server_stream: ServerStream,
    /// Bytes that the subsystem has already sent.
    pub(crate) buffered: Bytes,
    pub(crate) command: InFlightCommand,
    pub(crate) lease: ServerLease,
    /// The idle timeout: the longest silence of both sides together.
    pub(crate) idle_timeout: Duration,
    /// The caller's stream, over HTTP/2.
    pub(crate) client_stream: Option<OnUpgrade>,
}

/// The side whose connection broke. Neither failure counts against the server's health: the gateway does not read the
/// content of a tunnel, so any caller could get a server ejected by sending bytes that the server answers with a reset.
enum FailedSide {
    Downstream,
    Upstream,
}

impl UpgradeTunnel {
    /// Copies bytes over the caller's connection. `received` holds the bytes that the caller has already sent.
    pub(crate) async fn run_on_connection(self, caller: impl AsyncRead + AsyncWrite, received: Bytes) {
        self.copy_both(caller, received, (CHUNK_SIZE, &Cell::default())).await;
    }

    /// Copies bytes over the caller's HTTP/2 stream, until the caller resets it or loses its authorisation. The command
    /// then settles as aborted. At the end of the drain of a removed listener it settles as interrupted.
    ///
    /// `writing` is hyper's half of the stream: it passes written bytes to h2 as far as the caller's flow control
    /// windows allow. If it is dropped before the end of the stream is sent, it resets the stream with CANCEL.
    pub(crate) async fn run_on_stream(
        mut self,
        writing: impl Future<Output = ()>,
        peer: &DownstreamPeer,
        (worker, connection): (&Rc<TrafficWorker>, &ActiveRequest),
    ) {
        // hyper has made the stream ready before it hands over the writing half.
        let Some(Ok(caller)) = OptionFuture::from(self.client_stream.take()).await else { return };
        let caller = WriteTimeout::new(
            FlushGuard { stream: TokioIo::new(caller), connection },
            worker.capacity.response_idle,
            &worker.components.telemetry,
        );
        let all_said = Cell::new(false);
        let left = async {
            writing.await;
            if all_said.get() {
                std::future::pending().await // the caller may go on
            }
        };
        tokio::select! {
            biased; // a reset first: hyper would report it as an orderly end
            () = left => {}
            () = peer.deauthorized() => {}
            () = peer.wait_until_cut_off() => {} // the listener is removed; the connection has noted its deadline
            () = self.copy_both(caller, Bytes::new(), (H2_CHUNK_SIZE, &all_said)) => {}
        }
    }

    /// Copies bytes until both sides have ended, one side has failed, or the idle timeout has passed. The command then
    /// settles. `all_said` is set once the subsystem has sent its last byte.
    async fn copy_both(
        self,
        caller: impl AsyncRead + AsyncWrite,
        received: Bytes,
        (piece, all_said): (usize, &Cell<bool>),
    ) {
        let Self {
            server_stream: subsystem, buffered, command: mut in_flight, lease: _lease, idle_timeout: idle, ..
        } = self;
        let (last, all_delivered) = (Cell::new(Instant::now()), Cell::new(false));
        let progress = Rc::clone(in_flight.progress());
        let ended = {
            let (from_caller, to_caller) = split(caller);
            let (from_subsystem, to_subsystem) = split(subsystem);
            let up = copy_direction((received, piece), from_caller, to_subsystem, |bytes| {
                progress.add_bytes(bytes);
                last.set(Instant::now());
            });
            let down = copy_direction((buffered, piece), from_subsystem, to_caller, |bytes| {
                in_flight.add_response_bytes(bytes);
                all_said.set(bytes == 0);
                last.set(Instant::now());
            });
            let both = async {
                let up = async {
                    let ended = up.await.map_err(|end| end.failed_side(FailedSide::Downstream, FailedSide::Upstream));
                    if all_delivered.get() { Ok(()) } else { ended }
                };
                let down = async {
                    down.await.map_err(|end| end.failed_side(FailedSide::Upstream, FailedSide::Downstream))?;
                    all_delivered.set(true);
                    Ok(())
                };
                tokio::try_join!(up, down)
            };
            tokio::select! {
                ended = both => Some(ended.map(drop)),
                () = tunnel_idle(&last, idle) => None,
            }
        };
        match ended {
            Some(Ok(())) => in_flight.settle(Finished::Ok),
            Some(Err(FailedSide::Downstream)) => in_flight.settle(Finished::Aborted),
            Some(Err(FailedSide::Upstream)) => in_flight.settle(Finished::UpstreamFailed),
            None => in_flight.settle(Finished::Timeout),
        }
    }
}

/// The end of one direction that failed.
enum FailedHalf {
    Reading,
    Writing,
}

impl FailedHalf {
    fn failed_side(self, reading: FailedSide, writing: FailedSide) -> FailedSide {
        match self {
            Self::Reading => reading,
            Self::Writing => writing,
        }
    }
}

/// Copies one direction to its end, then half-closes the other side. `passed` gets the length of each chunk, and 0 at
/// the end.
async fn copy_direction(
    (mut first, piece): (Bytes, usize),
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut passed: impl FnMut(u64),
) -> Result<(), FailedHalf> {
    while !first.is_empty() {
        let next = first.split_to(piece.min(first.len()));
        passed(next.len() as u64);
        write_chunk(&next, &mut to).await?;
    }
    let mut piece = vec![0; piece];
    loop {
        let length = match from.read(&mut piece).await {
            Ok(length) => length,
            // Over TLS many peers close without close_notify.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(_) => {
                yield_now().await; // lets hyper take earlier bytes, so the other side gets them
                return Err(FailedHalf::Reading);
            }
        };
        passed(length as u64);
        if length == 0 {
            return half_close(to).await;
        }
        write_chunk(&piece[..length], &mut to).await?;
    }
}

async fn write_chunk(bytes: &[u8], to: &mut (impl AsyncWrite + Unpin)) -> Result<(), FailedHalf> {
    to.write_all(bytes).await.map_err(|_| FailedHalf::Writing)?;
    to.flush().await.map_err(|_| FailedHalf::Writing)
}

/// Sends the end of one direction. A peer that has already closed needs no end.
///
/// Two errors are failures: a write timeout (the peer has not read the end), and a peer that resets its HTTP/2 stream
/// before the end is sent, for which hyper has no error kind.
async fn half_close(mut to: impl AsyncWrite + Unpin) -> Result<(), FailedHalf> {
    match to.shutdown().await {
        Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::Other) => {
            Err(FailedHalf::Writing)
        }
        _ => Ok(()),
    }
}

/// A caller's HTTP/2 stream with backpressure: a flush waits until the connection has taken the written bytes. Without
/// it h2 buffers 64 KiB for each stream of a caller that opens its flow control windows and does not read.
struct FlushGuard<'a, S> {
    stream: S,
    connection: &'a ActiveRequest,
}

impl<S: AsyncRead + Unpin> AsyncRead for FlushGuard<'_, S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FlushGuard<'_, S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.get_mut();
        ready!(Pin::new(&mut flushed.stream).poll_flush(context))?;
        flushed.connection.poll_writable(context).map(Ok)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// Ready when nothing has passed for the idle timeout.
async fn tunnel_idle(last: &Cell<Instant>, idle: Duration) {
    while last.get() + idle > Instant::now() {
        sleep_until(last.get() + idle).await;
    }
}
