//! A connection that a caller and a subsystem use for another protocol, after the subsystem has switched (RFC 9110 section
//! 7.8): WebSocket and the like. A caller over HTTP/2 uses one stream for it (extended CONNECT, RFC 8441).
//!
//! Guarantees: begins only after a checked 101; one command, open as long as the tunnel is, its bytes on the tally as they
//! pass; at most one piece is held in each direction; silence on both sides has a limit. Reads nothing of what passes.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Method, Request, Version};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::time::{Instant, sleep_until};

use crate::model::Finished;

use super::account::Account;
use super::peer::Peer;
use super::pulse::Beat;
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
    /// The caller's stream, over HTTP/2.
    pub(super) stream: Option<OnUpgrade>,
}

/// Takes an extended CONNECT for the GET that it would be over HTTP/1.1: so it is matched, granted and forwarded.
pub(super) fn as_get<B>(mut request: Request<B>) -> Request<B> {
    if is_extended(&request) && *request.method() == Method::CONNECT {
        *request.method_mut() = Method::GET;
    }
    request
}

/// Whether it is an extended CONNECT.
pub(super) fn is_extended<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2 && request.extensions().get::<Protocol>().is_some()
}

/// Whether a caller asks to switch to a protocol.
pub(super) fn is_asked_for<B>(request: &Request<B>, protocol: &HeaderValue) -> bool {
    let is_it = |asked: &[u8]| asked.eq_ignore_ascii_case(protocol.as_bytes());
    if is_extended(request) {
        return request.extensions().get::<Protocol>().is_some_and(|asked| is_it(asked.as_ref()));
    }
    let headers = request.headers();
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let is_nominated = named.flat_map(|list| list.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    is_nominated
        && *request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && headers.get(UPGRADE).is_some_and(|asked| is_it(asked.as_bytes()))
}

/// Whose end broke.
enum Broken {
    Callers,
    Subsystems,
}

impl Tunnel {
    /// Carries bytes over the caller's HTTP/2 stream, until it or its caller is sent away; then the command ends as aborted.
    pub(super) async fn run_on_stream(mut self, peer: Rc<Peer>, _beat: Beat) {
        let Some(stream) = self.stream.take() else { return };
        let carried = async {
            if let Ok(caller) = stream.await {
                self.run(TokioIo::new(caller), Bytes::new()).await;
            }
        };
        tokio::select! {
            () = carried => {}
            () = peer.sent_away() => {}
        }
    }

    /// Carries bytes until both sides have ended, one has broken, or neither says anything; then the command ends.
    /// `asked` is what the caller has said already.
    pub(super) async fn run(self, caller: impl AsyncRead + AsyncWrite, asked: Bytes) {
        let Self { subsystem, said, mut account, lease, idle, .. } = self;
        let last = Cell::new(Instant::now());
        let progress = Rc::clone(account.progress());
        let ended = {
            let (from_caller, to_caller) = split(caller);
            let (from_subsystem, to_subsystem) = split(subsystem);
            let up = carry(asked, from_caller, to_subsystem, |bytes| {
                progress.upload.pass(bytes);
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
