//! A byte stream adapter between a caller's decrypted bytes and hyper: runs the HTTP/1.1 scanner (protection against
//! request smuggling).
//!
//! Guarantees:
//! - hyper sees only complete, well-formed heads, and no byte after the first fault.
//! - A placeholder request takes the place of a malformed one, in order. Its fault is ready in [`PendingFault`] when
//!   hyper hands the placeholder over. So the fault is counted and refused like any other request, and the connection
//!   closes after the response.
//! - Time limits: a head (against slowloris), and a connection without commands (idle timeout).
//! - A connection with unread bytes ends with a lingering close, so that the caller can read the reason.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::proxy::io::connection_activity::ConnectionActivity;
use crate::proxy::io::deadline_timer::DeadlineTimer;
use crate::proxy::io::lingering_close::LingeringClose;
use crate::proxy::message::grammar::h1_scanner::{FaultPosition, H1Scanner, HeadLimits, ScanResult};
use crate::proxy::message::grammar::malformed::MalformedRequest;
use crate::proxy::message::interim_response::Http1InterimQueue;

use super::idle_timeout::idle_deadline;

/// The placeholder request that hyper parses in the place of a malformed one. Only this file sets the fault that
/// belongs to it.
const PLACEHOLDER_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// The read size while bytes are held back.
const READ_SIZE: usize = 4096;

/// The fault that the scanner of a connection has found, until the placeholder request is handed over.
#[derive(Debug, Default)]
pub(crate) struct PendingFault {
    fault: Cell<Option<MalformedRequest>>,
    /// The connection has switched to another protocol: nothing more is read here.
    has_left_http: Cell<bool>,
}

impl PendingFault {
    /// Takes the fault of the current request; `None` if the request is not a placeholder.
    pub(crate) fn take_fault(&self) -> Option<MalformedRequest> {
        self.fault.take()
    }

    /// Marks the connection as upgraded: the bytes from now on are not HTTP.
    pub(crate) fn leave_http(&self) {
        self.has_left_http.set(true);
    }
}

/// The limits of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientLimits {
    pub(crate) head: HeadLimits,
    /// The time limit of a whole head, from its first byte. For the first head, from the handshake.
    pub(crate) head_timeout: Duration,
    /// The idle timeout: the time without a command.
    pub(crate) idle_timeout: Duration,
}

/// A stream whose incoming bytes pass the HTTP/1.1 scanner before hyper reads them.
pub(crate) struct ScanningStream<S> {
    stream: S,
    scanner: H1Scanner,
    limits: ClientLimits,
    pending_fault: Rc<PendingFault>,
    interim: Rc<Http1InterimQueue>,
    activity: Rc<ConnectionActivity>,
    /// Received bytes that hyper has not read: the beginning of a head or of a chunk line. The first `passable` bytes
    /// may go on.
    held: BytesMut,
    passable: usize,
    next_read: NextRead,
    /// Since when a head is incomplete, or the first head is awaited.
    head_since: Option<Instant>,
    deadline: DeadlineTimer,
    /// The lingering close, once it has begun.
    linger: Option<LingeringClose>,
}

/// What hyper reads after the bytes that may go on.
enum NextRead {
    /// The next bytes of the stream.
    Stream,
    /// The placeholder request, in the place of a malformed one.
    Refusal(Option<MalformedRequest>, &'static [u8]),
    /// An error, because the framing of a body is broken.
    BrokenBody(MalformedRequest),
    /// The end of the stream: the idle timeout has passed.
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ScanningStream<S> {
    pub(crate) fn new(
        stream: S,
        limits: ClientLimits,
        (pending_fault, interim): (Rc<PendingFault>, Rc<Http1InterimQueue>),
        activity: Rc<ConnectionActivity>,
    ) -> Self {
        Self {
            stream,
            scanner: H1Scanner::new(limits.head),
            limits,
            pending_fault,
            interim,
            head_since: Some(activity.now()),
            activity,
            held: BytesMut::new(),
            passable: 0,
            next_read: NextRead::Stream,
            deadline: DeadlineTimer::default(),
            linger: None,
        }
    }

    /// Reads into hyper's own buffer, and takes back the bytes that hyper must not see yet. Ready with true if hyper
    /// has something to read, or if the stream has ended.
    fn read_into_hyper(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, out))?;
        let received = &out.filled()[before..];
        let scan = self.scanner.scan(received);
        let (length, all) = (received.len(), scan.pass == received.len());
        if !all {
            self.held.extend_from_slice(&received[scan.pass..]);
            out.set_filled(before + scan.pass);
        }
        self.apply_scan(scan);
        Poll::Ready(Ok(scan.pass > 0 || length == 0))
    }

    /// Reads into a side buffer, because bytes are held already. Ready with true at the end of the stream.
    fn read_to_side_buffer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut piece = [MaybeUninit::uninit(); READ_SIZE];
        let mut piece = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
        if piece.filled().is_empty() {
            return Poll::Ready(Ok(true));
        }
        self.held.extend_from_slice(piece.filled());
        let scan = self.scanner.scan(&self.held);
        self.passable = scan.pass;
        self.apply_scan(scan);
        Poll::Ready(Ok(false))
    }

    fn apply_scan(&mut self, scan: ScanResult) {
        match scan.fault {
            Some((fault, FaultPosition::Head)) => self.next_read = NextRead::Refusal(Some(fault), PLACEHOLDER_REQUEST),
            Some((fault, FaultPosition::Body)) => self.next_read = NextRead::BrokenBody(fault),
            None => {}
        }
        if scan.pass > 0 {
            self.head_since = None;
        }
        if self.head_since.is_none() && !self.held.is_empty() && self.scanner.is_in_head() {
            self.head_since = Some(self.activity.now());
        }
    }

    /// Passes held bytes to hyper, up to `passable`.
    fn pass_held(&mut self, out: &mut ReadBuf<'_>) {
        let length = self.passable.min(out.remaining());
        out.put_slice(&self.held[..length]);
        self.held.advance(length);
        self.passable -= length;
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }

    /// Ready after a head timeout or an idle timeout. Sets `next_read` accordingly.
    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let deadline = match self.head_since {
            Some(since) => since + self.limits.head_timeout,
            None if self.scanner.is_message_boundary() => idle_deadline(&self.activity, self.limits.idle_timeout),
            None => return Poll::Pending, // Bodies have their own time limits.
        };
        ready!(self.deadline.poll_at(context, deadline));
        let refusal = MalformedRequest::request_timeout("the request head timed out");
        self.next_read =
            if self.held.is_empty() { NextRead::End } else { NextRead::Refusal(Some(refusal), PLACEHOLDER_REQUEST) };
        Poll::Ready(())
    }

    /// Passes on bytes that are ready, or the substitute for the stream. `None` if the stream must be read.
    fn poll_buffered(&mut self, out: &mut ReadBuf<'_>) -> Option<Poll<io::Result<()>>> {
        if self.passable > 0 {
            self.pass_held(out);
            return Some(Poll::Ready(Ok(())));
        }
        match &mut self.next_read {
            NextRead::Stream => return None,
            NextRead::Refusal(_, []) => return Some(Poll::Pending), // hyper has read the whole placeholder, and closes.
            NextRead::Refusal(fault, rest) => {
                if let Some(fault) = fault.take() {
                    self.pending_fault.fault.set(Some(fault));
                }
                let (now, then) = rest.split_at(rest.len().min(out.remaining()));
                out.put_slice(now);
                *rest = then;
            }
            NextRead::BrokenBody(fault) => {
                return Some(Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault.detail))));
            }
            NextRead::End => {}
        }
        Some(Poll::Ready(Ok(())))
    }

    /// The stream, if every byte that arrived has been passed on.
    pub(crate) fn into_unread(self) -> Option<S> {
        (matches!(self.next_read, NextRead::Stream) && self.held.is_empty()).then_some(self.stream)
    }

    fn poll_next(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.pending_fault.has_left_http.get() {
            return Poll::Pending; // The read has no waiter: hyper is about to release the stream.
        }
        loop {
            if let Some(at_hand) = self.poll_buffered(out) {
                return at_hand;
            }
            let read = match self.held.is_empty() {
                true => self.read_into_hyper(context, out),
                false => self.read_to_side_buffer(context),
            };
            match read {
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => ready!(self.poll_timeout(context)),
            }
        }
    }

    /// Writes interim responses. hyper's own writes never split one.
    fn poll_interim(&mut self, context: &mut Context<'_>, only_begun: bool) -> Poll<io::Result<()>> {
        let Self { stream, interim, activity, .. } = self;
        if interim.is_idle() {
            return Poll::Ready(Ok(())); // Fast path: every write and every flush calls this function.
        }
        let mut write = |bytes: &[u8]| activity.note_flush(Pin::new(&mut *stream).poll_write(context, bytes));
        interim.poll_write(only_begun, &mut write)
    }

    /// Whether the connection ends in the middle of a request.
    fn is_mid_message(&self) -> bool {
        !matches!(self.next_read, NextRead::Stream | NextRead::End) || !self.scanner.is_message_boundary()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ScanningStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_next(context, out)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ScanningStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        ready!(guard.poll_interim(context, true))?;
        guard.activity.note_flush(Pin::new(&mut guard.stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        ready!(guard.poll_interim(context, true))?;
        guard.activity.note_flush(Pin::new(&mut guard.stream).poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        ready!(guard.poll_interim(context, false))?; // hyper flushes after its last write of a message.
        guard.activity.note_flush(Pin::new(&mut guard.stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        if guard.linger.is_none() {
            ready!(Pin::new(&mut guard.stream).poll_shutdown(context))?;
        }
        if guard.is_mid_message() {
            let linger = guard.linger.get_or_insert_with(LingeringClose::after_response);
            ready!(linger.poll_discard_stream(context, &mut guard.stream));
        }
        Poll::Ready(Ok(()))
    }
}
