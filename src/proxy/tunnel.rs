//! A connection that a caller and a subsystem use for another protocol, after the subsystem has switched (RFC 9110 section
//! 7.8): WebSocket and the like.
//!
//! Guarantees: begins only after a checked 101; one command, open as long as the tunnel is, its bytes on the tally as they
//! pass; at most one piece is held in each direction; silence on both sides has a limit. Reads nothing of what passes.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::time::{Instant, sleep_until};

use crate::model::Finished;

use super::account::Account;
use super::upstream::{Lease, Stream};

/// Bytes held in each direction.
const PIECE: usize = 16 * 1024;

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
}

/// Whose end broke.
enum Broken {
    Callers,
    Subsystems,
}

impl Tunnel {
    /// Carries bytes until both sides have ended, one has broken, or neither says anything; then the command ends.
    /// `asked` is what the caller has said already.
    pub(super) async fn run(self, caller: impl AsyncRead + AsyncWrite, asked: Bytes) {
        let Self { subsystem, said, mut account, lease, idle } = self;
        let last = Cell::new(Instant::now());
        let progress = Rc::clone(account.progress());
        let ended = {
            let (from_caller, to_caller) = split(caller);
            let (from_subsystem, to_subsystem) = split(subsystem);
            let up = carry(asked, from_caller, to_subsystem, |bytes| {
                progress.pass(bytes);
                last.set(Instant::now());
            });
            let down = carry(said, from_subsystem, to_caller, |bytes| {
                account.add_response_bytes(bytes);
                last.set(Instant::now());
            });
            let both = async {
                let up = async { up.await.map_err(|end| end.of(Broken::Callers, Broken::Subsystems)) };
                let down = async { down.await.map_err(|end| end.of(Broken::Subsystems, Broken::Callers)) };
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
            Some(Err(Broken::Subsystems)) => {
                lease.fail(Finished::UpstreamFailed);
                account.settle(Finished::UpstreamFailed);
            }
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

/// Carries one direction to its end, and tells the other side that it has ended.
async fn carry(
    first: Bytes,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut passed: impl FnMut(u64),
) -> Result<(), End> {
    let mut piece = vec![0; PIECE];
    let mut length = first.len();
    let mut bytes = &first[..];
    loop {
        if length > 0 {
            passed(length as u64);
            to.write_all(bytes).await.map_err(|_| End::Writing)?;
            to.flush().await.map_err(|_| End::Writing)?;
        }
        length = match from.read(&mut piece).await {
            Ok(length) => length,
            // Over TLS many leave without saying so.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(_) => return Err(End::Reading),
        };
        if length == 0 {
            let _ = to.shutdown().await; // who is gone already need not be told
            return Ok(());
        }
        bytes = &piece[..length];
    }
}

/// Ready when nothing has passed for so long.
async fn silence(last: &Cell<Instant>, idle: Duration) {
    while last.get() + idle > Instant::now() {
        sleep_until(last.get() + idle).await;
    }
}
