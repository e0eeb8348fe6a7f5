//! A connection that a caller and a subsystem use for another protocol, after the subsystem has switched (RFC 9110 section
//! 7.8): WebSocket and the like. A caller over HTTP/2 uses one stream for it ([`super::extended`]).
//!
//! Guarantees: begins only after a 101 to the protocol that was asked for; one command, open as long as the tunnel is, its bytes on the tally as they
//! pass; at most one piece is held in each direction, and over HTTP/2 three more in hyper; silence on both sides has a limit,
//! and so has a caller that takes nothing. A reset is no orderly end, unless the subsystem has ended and all it said has been
//! handed over: many callers close with our close_notify unread, which resets. Reads nothing of what passes.

use std::cell::{Cell, RefCell};
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

use super::account::Account;
use super::patient::Patient;
use super::peer::Peer;
use super::pulse::Beat;
use super::upstream::{Lease, Stream};
use super::worker::Worker;

/// Bytes held in each direction.
const PIECE: usize = 16 * 1024;
/// The same on a stream of HTTP/2, of which one connection has many; hyper holds up to three pieces more towards the caller.
const STREAM_PIECE: usize = 2 * 1024;

/// Where an exchange leaves a tunnel for its connection to run.
#[derive(Default)]
pub(super) struct Doorstep(RefCell<Option<Tunnel>>);

impl Doorstep {
    pub(super) fn leave(&self, tunnel: Tunnel) {
        self.0.replace(Some(tunnel));
    }

    pub(super) fn take(&self) -> Option<Tunnel> {
        self.0.take()
    }
}

/// The subsystem's end of a tunnel, and the command that it is.
pub(super) struct Tunnel {
    pub(super) subsystem: Stream,
    /// What the subsystem has said already.
    pub(super) said: Bytes,
    pub(super) account: Account,
    pub(super) lease: Lease,
    /// How long both sides may be silent.
    pub(super) idle: Duration,
    /// The caller's stream, over HTTP/2.
    pub(super) stream: Option<OnUpgrade>,
}

/// Whose end broke. Neither is held against a server: what a caller says in a tunnel is not read here, so anybody could have a
/// server left out by saying what it answers with a reset.
enum Broken {
    Callers,
    Subsystems,
}

impl Tunnel {
    /// Carries bytes over a caller's connection. `asked` is what the caller has said already.
    pub(super) async fn run(self, caller: impl AsyncRead + AsyncWrite, asked: Bytes) {
        self.carry_both(caller, asked, (PIECE, &Cell::default())).await;
    }

    /// Carries bytes over a caller's HTTP/2 stream, until its caller resets it or is sent away; then the command ends as
    /// aborted. `writing` is hyper's half of it: it takes what is written and hands it to h2 as far as the caller's windows
    /// allow. Dropped before it has said the end, it resets the stream with CANCEL.
    pub(super) async fn run_on_stream(
        mut self,
        writing: impl Future<Output = ()>,
        peer: &Peer,
        (worker, connection): (&Rc<Worker>, &Beat),
    ) {
        // hyper has made the stream ready before it hands over what writes to it.
        let Some(Ok(caller)) = OptionFuture::from(self.stream.take()).await else { return };
        let caller = Patient::new(Flushed { stream: TokioIo::new(caller), connection }, worker);
        let all_said = Cell::new(false);
        let left = async {
            writing.await;
            if all_said.get() {
                std::future::pending().await // the caller may go on
            }
        };
        tokio::select! {
            biased; // a reset first: hyper would read it as an orderly end
            () = left => {}
            () = peer.sent_away() => {}
            () = self.carry_both(caller, Bytes::new(), (STREAM_PIECE, &all_said)) => {}
        }
    }

    /// Carries bytes until both sides have ended, one has broken, or neither says anything; then the command ends. Notes when
    /// the subsystem has said all.
    async fn carry_both(
        self,
        caller: impl AsyncRead + AsyncWrite,
        asked: Bytes,
        (piece, all_said): (usize, &Cell<bool>),
    ) {
        let Self { subsystem, said, mut account, lease: _lease, idle, .. } = self;
        let (last, all_delivered) = (Cell::new(Instant::now()), Cell::new(false));
        let progress = Rc::clone(account.progress());
        let ended = {
            let (from_caller, to_caller) = split(caller);
            let (from_subsystem, to_subsystem) = split(subsystem);
            let up = carry((asked, piece), from_caller, to_subsystem, |bytes| {
                progress.pass(bytes);
                last.set(Instant::now());
            });
            let down = carry((said, piece), from_subsystem, to_caller, |bytes| {
                account.add_response_bytes(bytes);
                all_said.set(bytes == 0);
                last.set(Instant::now());
            });
            let both = async {
                let up = async {
                    let ended = up.await.map_err(|end| end.of(Broken::Callers, Broken::Subsystems));
                    if all_delivered.get() { Ok(()) } else { ended }
                };
                let down = async {
                    down.await.map_err(|end| end.of(Broken::Subsystems, Broken::Callers))?;
                    all_delivered.set(true);
                    Ok(())
                };
                tokio::try_join!(up, down)
            };
            tokio::select! {
                ended = both => Some(ended.map(drop)),
                () = silence(&last, idle) => None,
            }
        };
        match ended {
            Some(Ok(())) => account.settle(Finished::Ok),
            Some(Err(Broken::Callers)) => account.settle(Finished::Aborted),
            Some(Err(Broken::Subsystems)) => account.settle(Finished::UpstreamFailed),
            None => account.settle(Finished::Timeout),
        }
    }
}

/// Which end of one direction broke.
enum End {
    Reading,
    Writing,
}

impl End {
    fn of(self, reading: Broken, writing: Broken) -> Broken {
        match self {
            Self::Reading => reading,
            Self::Writing => writing,
        }
    }
}

/// Carries one direction to its end, and tells the other side that it has ended. Says how much passes: nothing, at the end.
async fn carry(
    (mut first, piece): (Bytes, usize),
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut passed: impl FnMut(u64),
) -> Result<(), End> {
    while !first.is_empty() {
        let next = first.split_to(piece.min(first.len()));
        passed(next.len() as u64);
        hand_over(&next, &mut to).await?;
    }
    let mut piece = vec![0; piece];
    loop {
        let length = match from.read(&mut piece).await {
            Ok(length) => length,
            // Over TLS many leave without saying so.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(_) => {
                yield_now().await; // hyper takes what came before it: the other side gets what there is
                return Err(End::Reading);
            }
        };
        passed(length as u64);
        if length == 0 {
            return say_goodbye(to).await;
        }
        hand_over(&piece[..length], &mut to).await?;
    }
}

async fn hand_over(bytes: &[u8], to: &mut (impl AsyncWrite + Unpin)) -> Result<(), End> {
    to.write_all(bytes).await.map_err(|_| End::Writing)?;
    to.flush().await.map_err(|_| End::Writing)
}

/// Who is gone already need not be told. Who takes nothing has not heard it, nor has who resets its HTTP/2 stream before it is
/// said, for which hyper has no kind of error.
async fn say_goodbye(mut to: impl AsyncWrite + Unpin) -> Result<(), End> {
    match to.shutdown().await {
        Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::Other) => Err(End::Writing),
        _ => Ok(()),
    }
}

/// A caller's HTTP/2 stream whose flush waits until the connection has taken what was written: h2 takes 64 KiB of each stream
/// of a caller that opens its windows and does not read.
struct Flushed<'a, S> {
    stream: S,
    connection: &'a Beat,
}

impl<S: AsyncRead + Unpin> AsyncRead for Flushed<'_, S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Flushed<'_, S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.get_mut();
        ready!(Pin::new(&mut flushed.stream).poll_flush(context))?;
        flushed.connection.poll_taken(context).map(Ok)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// Ready when nothing has passed for so long.
async fn silence(last: &Cell<Instant>, idle: Duration) {
    while last.get() + idle > Instant::now() {
        sleep_until(last.get() + idle).await;
    }
}
