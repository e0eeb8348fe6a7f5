//! The scanner's hands: stands between a caller's decrypted bytes and hyper.
//!
//! Guarantees: hyper sees whole, well-formed heads only, and nothing after the first fault. What is refused becomes one
//! request of ours in its place, in its turn; the fault lies ready in [`PendingFault`] when that request is taken up, so that it
//! is counted and answered like any other refusal, and the connection closes after it. Heads, and callers that say
//! nothing, have limits of time. What is closed with something unread is closed so that its caller can read why.

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
use crate::proxy::message::grammar::malformed::MalformedRequest;
use crate::proxy::message::interim_response::Http1InterimQueue;

use crate::proxy::io::movable_deadline::MovableDeadline;
use crate::proxy::message::grammar::h1_scanner::{FaultPosition, H1Scanner, HeadLimits, ScanResult};

/// What hyper reads in the place of a request that is refused. Nobody but us can set the fault that goes with it.
const PLACEHOLDER_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// How much is read at once of what cannot go on yet.
const READ_SIZE: usize = 4096;
/// How much is read, and for how long, of what a caller sends after it was told why the connection closes: closed with
/// something unread it would be reset, and the answer lost.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// What the guard of a connection has found wrong, until the request is taken up that stands for it.
#[derive(Debug, Default)]
pub(crate) struct PendingFault {
    fault: Cell<Option<MalformedRequest>>,
    /// The connection becomes another protocol's: nothing more is read here.
    has_left_http: Cell<bool>,
}

impl PendingFault {
    /// What is wrong with the request that the one taken up now stands for, if it stands for one.
    pub(crate) fn take_fault(&self) -> Option<MalformedRequest> {
        self.fault.take()
    }

    /// From now on the bytes are no longer HTTP.
    pub(crate) fn leave_http(&self) {
        self.has_left_http.set(true);
    }
}

/// What is expected of a caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientLimits {
    pub(crate) head: HeadLimits,
    /// For a whole head, from its first byte; for the first one, from the handshake.
    pub(crate) head_timeout: Duration,
    /// Without a command.
    pub(crate) idle_timeout: Duration,
}

/// See the module.
pub(crate) struct ScanningStream<S> {
    stream: S,
    scanner: H1Scanner,
    limits: ClientLimits,
    pending_fault: Rc<PendingFault>,
    interim: Rc<Http1InterimQueue>,
    activity: Rc<ConnectionActivity>,
    /// What came and has not gone on: the beginning of a head or of a chunk's line. The first `passable` bytes may.
    held: BytesMut,
    passable: usize,
    next_read: NextRead,
    /// Since when a head is waited for that has begun, or is the first.
    head_since: Option<Instant>,
    deadline: MovableDeadline,
    /// How much may still be read in parting.
    linger: Option<(usize, Instant)>,
}

/// What hyper is to read once everything that may go on has gone.
enum NextRead {
    /// More of the stream.
    Stream,
    /// A request of ours, in the place of one that is refused.
    Refusal(Option<MalformedRequest>, &'static [u8]),
    /// The end of a body that broke its framing.
    BrokenBody(MalformedRequest),
    /// Nothing: the caller was silent for too long.
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
            deadline: MovableDeadline::default(),
            linger: None,
        }
    }

    /// Reads into hyper's own buffer, and takes back what may not stay there. Ready with whether something may, or that is the
    /// end.
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

    /// Reads beside hyper's buffer, because something is held already. Ready with whether that is the end.
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

    /// Hands on what was held and may go on.
    fn pass_held(&mut self, out: &mut ReadBuf<'_>) {
        let length = self.passable.min(out.remaining());
        out.put_slice(&self.held[..length]);
        self.held.advance(length);
        self.passable -= length;
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }

    /// Ready when the caller has been silent for longer than it may; then that is what is due.
    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let deadline = match self.head_since {
            Some(since) => since + self.limits.head_timeout,
            None if self.scanner.is_message_boundary() => self.activity.idle_since() + self.limits.idle_timeout,
            None => return Poll::Pending, // bodies have limits of their own
        };
        ready!(self.deadline.poll_elapsed(context, deadline));
        let late = MalformedRequest::request_timeout("the head did not come in time");
        self.next_read =
            if self.held.is_empty() { NextRead::End } else { NextRead::Refusal(Some(late), PLACEHOLDER_REQUEST) };
        Poll::Ready(())
    }

    /// Hands on what may go on, or what is due instead of more; nothing, if the stream is to be read.
    fn poll_buffered(&mut self, out: &mut ReadBuf<'_>) -> Option<Poll<io::Result<()>>> {
        if self.passable > 0 {
            self.pass_held(out);
            return Some(Poll::Ready(Ok(())));
        }
        match &mut self.next_read {
            NextRead::Stream => return None,
            NextRead::Refusal(_, []) => return Some(Poll::Pending), // hyper has it all, and closes
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

    /// The stream, if its caller has said nothing yet that was not taken up.
    pub(crate) fn into_unread(self) -> Option<S> {
        (matches!(self.next_read, NextRead::Stream) && self.held.is_empty()).then_some(self.stream)
    }

    fn poll_next(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.pending_fault.has_left_http.get() {
            return Poll::Pending; // nobody waits: hyper is about to let go
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

    /// Writes interim answers; what hyper writes comes between whole heads only.
    fn poll_interim(&mut self, context: &mut Context<'_>, only_begun: bool) -> Poll<io::Result<()>> {
        let Self { stream, interim, activity, .. } = self;
        if interim.is_idle() {
            return Poll::Ready(Ok(())); // every write and every flush comes by here
        }
        let mut write = |bytes: &[u8]| activity.note_flush(Pin::new(&mut *stream).poll_write(context, bytes));
        interim.poll_write(only_begun, &mut write)
    }

    /// Whether the connection ends in the middle of what its caller says.
    fn is_mid_message(&self) -> bool {
        !matches!(self.next_read, NextRead::Stream | NextRead::End) || !self.scanner.is_message_boundary()
    }

    /// Reads what the caller still says, to nobody's use.
    fn poll_lingering_close(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (left, deadline) = self.linger.get_or_insert_with(|| (LINGER_BYTES, Instant::now() + LINGER_TIME));
        let deadline = *deadline;
        while *left > 0 {
            let mut piece = [MaybeUninit::uninit(); READ_SIZE];
            let mut piece = ReadBuf::uninit(&mut piece);
            match Pin::new(&mut self.stream).poll_read(context, &mut piece) {
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => *left = left.saturating_sub(piece.filled().len()),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.deadline.poll_elapsed(context, deadline),
            }
        }
        Poll::Ready(())
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
        ready!(guard.poll_interim(context, false))?; // hyper flushes when all that it wrote is out
        guard.activity.note_flush(Pin::new(&mut guard.stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        if guard.linger.is_none() {
            ready!(Pin::new(&mut guard.stream).poll_shutdown(context))?;
        }
        if guard.is_mid_message() {
            ready!(guard.poll_lingering_close(context));
        }
        Poll::Ready(Ok(()))
    }
}
