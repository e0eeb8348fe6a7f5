//! The scanner's hands: stands between a caller's decrypted bytes and hyper.
//!
//! Guarantees: hyper sees whole, well-formed heads only, and nothing after the first fault. What is refused becomes one
//! request of ours in its place, in its turn; the fault lies ready in [`Found`] when that request is taken up, so that it
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

use crate::proxy::fault::Fault;
use crate::proxy::interim::InterimHeads;
use crate::proxy::pulse::Pulse;

use super::scanner::{HeadLimits, Scan, Scanner, Where};
use super::wait::Wait;

/// What hyper reads in the place of a request that is refused. Nobody but us can set the fault that goes with it.
const REFUSED: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// How much is read at once of what cannot go on yet.
const PIECE: usize = 4096;
/// How much is read, and for how long, of what a caller sends after it was told why the connection closes: closed with
/// something unread it would be reset, and the answer lost.
const PARTING_BYTES: usize = 256 * 1024;
const PARTING_TIME: Duration = Duration::from_secs(1);

/// What the guard of a connection has found wrong, until the request is taken up that stands for it.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Found {
    fault: Cell<Option<Fault>>,
    /// The connection becomes another protocol's: nothing more is read here.
    handed_over: Cell<bool>,
}

impl Found {
    /// What is wrong with the request that the one taken up now stands for, if it stands for one.
    pub(in crate::proxy) fn take(&self) -> Option<Fault> {
        self.fault.take()
    }

    /// From now on the bytes are no longer HTTP.
    pub(in crate::proxy) fn hand_over(&self) {
        self.handed_over.set(true);
    }
}

/// What is expected of a caller.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Manners {
    pub(in crate::proxy) head: HeadLimits,
    /// For a whole head, from its first byte; for the first one, from the handshake.
    pub(in crate::proxy) head_time: Duration,
    /// Without a command.
    pub(in crate::proxy) idle: Duration,
}

/// See the module.
pub(in crate::proxy) struct Guard<S> {
    stream: S,
    scanner: Scanner,
    manners: Manners,
    found: Rc<Found>,
    interim: Rc<InterimHeads>,
    pulse: Rc<Pulse>,
    /// What came and has not gone on: the beginning of a head or of a chunk's line. The first `passable` bytes may.
    held: BytesMut,
    passable: usize,
    due: Due,
    /// Since when a head is waited for that has begun, or is the first.
    head_since: Option<Instant>,
    wait: Wait,
    /// How much may still be read in parting.
    parting: Option<(usize, Instant)>,
}

/// What hyper is to read once everything that may go on has gone.
enum Due {
    /// More of the stream.
    Stream,
    /// A request of ours, in the place of one that is refused.
    Refusal(Option<Fault>, &'static [u8]),
    /// The end of a body that broke its framing.
    Broken(Fault),
    /// Nothing: the caller was silent for too long.
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    pub(in crate::proxy) fn new(
        stream: S,
        manners: Manners,
        (found, interim): (Rc<Found>, Rc<InterimHeads>),
        pulse: Rc<Pulse>,
    ) -> Self {
        Self {
            stream,
            scanner: Scanner::new(manners.head),
            manners,
            found,
            interim,
            head_since: Some(pulse.now()),
            pulse,
            held: BytesMut::new(),
            passable: 0,
            due: Due::Stream,
            wait: Wait::default(),
            parting: None,
        }
    }

    /// Reads into hyper's own buffer, and takes back what may not stay there. Ready with whether something may, or that is the
    /// end.
    fn read_straight(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, out))?;
        let came = &out.filled()[before..];
        let scan = self.scanner.scan(came);
        let (length, all) = (came.len(), scan.pass == came.len());
        if !all {
            self.held.extend_from_slice(&came[scan.pass..]);
            out.set_filled(before + scan.pass);
        }
        self.note(scan);
        Poll::Ready(Ok(scan.pass > 0 || length == 0))
    }

    /// Reads beside hyper's buffer, because something is held already. Ready with whether that is the end.
    fn read_beside(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut piece = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
        if piece.filled().is_empty() {
            return Poll::Ready(Ok(true));
        }
        self.held.extend_from_slice(piece.filled());
        let scan = self.scanner.scan(&self.held);
        self.passable = scan.pass;
        self.note(scan);
        Poll::Ready(Ok(false))
    }

    fn note(&mut self, scan: Scan) {
        match scan.fault {
            Some((fault, Where::Whole)) => self.due = Due::Refusal(Some(fault), REFUSED),
            Some((fault, Where::Body)) => self.due = Due::Broken(fault),
            None => {}
        }
        if scan.pass > 0 {
            self.head_since = None;
        }
        if self.head_since.is_none() && !self.held.is_empty() && self.scanner.is_in_head() {
            self.head_since = Some(self.pulse.now());
        }
    }

    /// Hands on what was held and may go on.
    fn hand_on(&mut self, out: &mut ReadBuf<'_>) {
        let length = self.passable.min(out.remaining());
        out.put_slice(&self.held[..length]);
        self.held.advance(length);
        self.passable -= length;
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }

    /// Ready when the caller has been silent for longer than it may; then that is what is due.
    fn lose_patience(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let deadline = match self.head_since {
            Some(since) => since + self.manners.head_time,
            None if self.scanner.is_between() => self.pulse.rests_since() + self.manners.idle,
            None => return Poll::Pending, // bodies have limits of their own
        };
        ready!(self.wait.poll(context, deadline));
        let late = Fault::late("the head did not come in time");
        self.due = if self.held.is_empty() { Due::End } else { Due::Refusal(Some(late), REFUSED) };
        Poll::Ready(())
    }

    /// Hands on what may go on, or what is due instead of more; nothing, if the stream is to be read.
    fn poll_at_hand(&mut self, out: &mut ReadBuf<'_>) -> Option<Poll<io::Result<()>>> {
        if self.passable > 0 {
            self.hand_on(out);
            return Some(Poll::Ready(Ok(())));
        }
        match &mut self.due {
            Due::Stream => return None,
            Due::Refusal(_, []) => return Some(Poll::Pending), // hyper has it all, and closes
            Due::Refusal(fault, rest) => {
                if let Some(fault) = fault.take() {
                    self.found.fault.set(Some(fault));
                }
                let (now, then) = rest.split_at(rest.len().min(out.remaining()));
                out.put_slice(now);
                *rest = then;
            }
            Due::Broken(fault) => {
                return Some(Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault.detail))));
            }
            Due::End => {}
        }
        Some(Poll::Ready(Ok(())))
    }

    /// The stream, if its caller has said nothing yet that was not taken up.
    pub(in crate::proxy) fn into_quiet(self) -> Option<S> {
        (matches!(self.due, Due::Stream) && self.held.is_empty()).then_some(self.stream)
    }

    fn poll_next(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.found.handed_over.get() {
            return Poll::Pending; // nobody waits: hyper is about to let go
        }
        loop {
            if let Some(at_hand) = self.poll_at_hand(out) {
                return at_hand;
            }
            let read = match self.held.is_empty() {
                true => self.read_straight(context, out),
                false => self.read_beside(context),
            };
            match read {
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => ready!(self.lose_patience(context)),
            }
        }
    }

    /// Writes interim answers; what hyper writes comes between whole heads only.
    fn poll_interim(&mut self, context: &mut Context<'_>, only_begun: bool) -> Poll<io::Result<()>> {
        let Self { stream, interim, pulse, .. } = self;
        if interim.is_idle() {
            return Poll::Ready(Ok(())); // every write and every flush comes by here
        }
        let mut write = |bytes: &[u8]| pulse.wrote(Pin::new(&mut *stream).poll_write(context, bytes));
        interim.poll_write(only_begun, &mut write)
    }

    /// Whether the connection ends in the middle of what its caller says.
    fn ends_early(&self) -> bool {
        !matches!(self.due, Due::Stream | Due::End) || !self.scanner.is_between()
    }

    /// Reads what the caller still says, to nobody's use.
    fn part(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (left, deadline) = self.parting.get_or_insert_with(|| (PARTING_BYTES, Instant::now() + PARTING_TIME));
        let deadline = *deadline;
        while *left > 0 {
            let mut piece = [MaybeUninit::uninit(); PIECE];
            let mut piece = ReadBuf::uninit(&mut piece);
            match Pin::new(&mut self.stream).poll_read(context, &mut piece) {
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => *left = left.saturating_sub(piece.filled().len()),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.wait.poll(context, deadline),
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_next(context, out)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        ready!(guard.poll_interim(context, true))?;
        guard.pulse.wrote(Pin::new(&mut guard.stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        ready!(guard.poll_interim(context, true))?;
        guard.pulse.wrote(Pin::new(&mut guard.stream).poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        ready!(guard.poll_interim(context, false))?; // hyper flushes when all that it wrote is out
        guard.pulse.wrote(Pin::new(&mut guard.stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        if guard.parting.is_none() {
            ready!(Pin::new(&mut guard.stream).poll_shutdown(context))?;
        }
        if guard.ends_early() {
            ready!(guard.part(context));
        }
        Poll::Ready(Ok(()))
    }
}
