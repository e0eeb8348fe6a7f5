//! One connection from a caller: handshake, once; then its commands, over the protocol that was agreed on.
//!
//! Guarantees: the protocol is the one ALPN agreed on, never sniffed; the caller is told once per connection, its department
//! once per configuration; a handshake has a limit of time, and a connection an age. Leaves the rest to [`super::http1`] and
//! [`super::http2`].

use std::fmt::Display;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, sink};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::identity::Caller;
use crate::lifecycle::DrainWatcher;
use crate::telemetry::{ConnectionStats, HandshakeFailure, OpenConnection};

use super::peer::Peer;
use super::socket::Socket;
use super::worker::Worker;
use super::{http1, http2};

/// How much is read, and for how long, after a handshake that failed.
const PARTING_BYTES: u64 = 64 * 1024;
const PARTING_TIME: Duration = Duration::from_secs(1);

/// A connection as the listener hands it over.
pub(super) struct Accepted {
    pub(super) stream: std::net::TcpStream,
    pub(super) address: SocketAddr,
    pub(super) tls: Arc<rustls::ServerConfig>,
    pub(super) stats: Arc<ConnectionStats>,
    /// Counted as long as they live, by the listener and by the worker.
    pub(super) open: OpenConnection,
    pub(super) carried: Carried,
}

/// Counts one connection of a worker as long as it lives.
pub(super) struct Carried(Arc<AtomicUsize>);

impl Carried {
    pub(super) fn new(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, accepted: Accepted, drain: DrainWatcher) {
    let Accepted { stream, address, tls, stats, open, carried } = accepted;
    let held = (open, carried);
    let stream = match timeout(worker.capacity.handshake, shake_hands(stream, tls)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, socket))) => {
            note_failure(&worker, &stats, address, (HandshakeFailure::of(&error), &error));
            return part(socket).await;
        }
        Err(late) => return note_failure(&worker, &stats, address, (HandshakeFailure::Timeout, &late)),
    };
    let connection = stream.get_ref().1;
    let caller = match Caller::of_handshake(connection) {
        Ok(caller) => caller,
        Err(error) => {
            note_failure(&worker, &stats, address, (HandshakeFailure::BadCertificate, &error));
            return part(Some(stream)).await;
        }
    };
    let is_h2 = connection.alpn_protocol() == Some(b"h2");
    let peer = Rc::new(Peer::new(caller, address.ip()));
    let served = match is_h2 {
        true => http2::serve(worker, peer, stream, drain).await,
        false => http1::serve(worker, peer, stream, drain).await,
    };
    if let Err(error) = served {
        tracing::debug!(%address, %error, "connection ended");
    }
    drop(held);
}

/// The error of a handshake leaves the socket behind, with the alert already on its way.
async fn shake_hands(
    stream: std::net::TcpStream,
    tls: Arc<rustls::ServerConfig>,
) -> Result<TlsStream<Socket>, (io::Error, Option<Socket>)> {
    let socket = TcpStream::from_std(stream).and_then(Socket::new).map_err(|error| (error, None))?;
    let accept = TlsAcceptor::from(tls).accept(socket).into_fallible();
    accept.await.map_err(|(error, socket)| (error, Some(socket)))
}

/// Counts a handshake that came to nothing, and logs it: once a second for all, because anybody can cause them. Who only
/// knocks (a port scan, the probe of a load balancer) is not worth a line.
fn note_failure(worker: &Worker, stats: &ConnectionStats, address: SocketAddr, why: (HandshakeFailure, &dyn Display)) {
    let (failure, error) = why;
    stats.handshake_failed(failure);
    let reason = failure.name();
    if failure == HandshakeFailure::Left {
        return tracing::debug!(%address, reason, %error, "handshake failed");
    }
    if let Some(left_out) = stats.tell_failure(worker.clock.unix_seconds()) {
        tracing::info!(%address, reason, %error, left_out, "handshake failed");
    }
}

/// Closes a connection so that its caller can read why: closed with something unread, it would be reset, and the alert lost.
async fn part(stream: Option<impl AsyncRead + AsyncWrite + Unpin>) {
    let Some(mut stream) = stream else { return };
    let parting = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(PARTING_BYTES), &mut sink()).await
    };
    let _ = timeout(PARTING_TIME, parting).await; // either way it is over
}

/// Ready when a connection is to take no more commands: the gateway drains, or the connection is old. Revocation and the
/// spreading of load over gateways depend on connections that end.
pub(super) async fn time_to_go(worker: &Worker, drain: &mut DrainWatcher) {
    let age = worker.jittered(worker.capacity.connection_age);
    let mut alarm = worker.alarms.alarm(Instant::now() + age);
    tokio::select! {
        () = drain.begun() => {}
        () = poll_fn(|context| alarm.poll(context)) => {}
    }
}
