//! One connection from a caller: handshake, once; then its commands, over the protocol that was agreed on.
//!
//! Guarantees: the protocol is the one ALPN agreed on, never sniffed; the caller is told once per connection, its department
//! once per configuration; a caller that is not let in any more is heard out and said goodbye; a handshake has a limit of time,
//! and a connection an age. Leaves the rest to [`super::http1`] and [`super::http2`].

use super::graceful_shutdown::TlsSocket;
use std::cell::Cell;
use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, sink};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use crate::config::TrustedProxies;
use crate::identity::{Caller, CertificateSummary, describe_tls_error};
use crate::lifecycle::DrainWatcher;
use crate::policy::PolicySnapshot;
use crate::telemetry::{ConnectionStats, HandshakeFailure, LimitHit, OpenConnection};

use super::proxy_protocol;
use super::{http1, http2};
use crate::proxy::capacity::connections::{ConnectionPermit, LimitScope};
use crate::proxy::io::tcp_connection::TcpConnection;
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::peer::{DownstreamPeer, HandshakeInfo, ListenerTls};

/// The most that a TLS record holds (RFC 8446 section 5.1): less room than that would only make small records.
const TLS_RECORD_MAX: usize = 16 * 1024;
/// How much is read, and for how long, after a handshake that failed.
const LINGER_BYTES: u64 = 64 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// How long handshakes are waited for that are under way when the gateway stops; a good one takes three round trips at most.
const HANDSHAKE_DRAIN_TIME: Duration = Duration::from_secs(1);

/// A connection as the listener hands it over.
pub(crate) struct AcceptedConnection {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) address: SocketAddr,
    pub(crate) tls: ListenerTls,
    pub(crate) stats: Arc<ConnectionStats>,
    pub(crate) proxies: Arc<TrustedProxies>,
    pub(crate) guards: ConnectionGuards,
}

/// What counts a connection as long as it lives: the listener, the worker, and the places of its holders.
pub(crate) struct ConnectionGuards {
    pub(crate) _open: OpenConnection,
    pub(crate) _worker: WorkerConnection,
    pub(crate) _permits: Vec<ConnectionPermit>,
}

/// Counts one connection of a worker as long as it lives.
pub(crate) struct WorkerConnection(Arc<AtomicUsize>);

impl WorkerConnection {
    pub(crate) fn new(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for WorkerConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve_connection(worker: Rc<TrafficWorker>, accepted: AcceptedConnection, mut drain: DrainWatcher) {
    let AcceptedConnection { stream, address, tls, proxies, stats, guards: held } = accepted;
    let mut under_way = worker.handshakes.acquire(Instant::now());
    let by_balancer = proxies.protocol.contains(address.ip());
    let hello_answered = Rc::clone(&under_way.hello_answered);
    let greeting = tls_handshake(stream, &tls, by_balancer, Rc::clone(&hello_answered));
    let greeted = tokio::select! {
        greeted = timeout(worker.capacity.handshake, greeting) => greeted,
        () = handshake_drain(&mut drain, &hello_answered) => {
            return tracing::debug!(%address, "closed before its handshake: the gateway stops");
        }
        () = under_way.evicted() => {
            worker.telemetry.count_limit_hit(LimitHit::Handshakes);
            let failed = FailedHandshake::new(HandshakeFailure::Evicted, &"another needed its place");
            return record_handshake_failure(&worker, &stats, address, failed);
        }
    };
    drop(under_way);
    let (mut stream, proxied_address) = match greeted {
        Ok(Ok(greeted)) => greeted,
        Ok(Err((error, socket))) => {
            let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let words = fault.map_or_else(|| error.to_string(), describe_tls_error);
            let failed = FailedHandshake::new(HandshakeFailure::from_io_error(&error), &words);
            record_handshake_failure(
                &worker,
                &stats,
                address,
                failed.with_certificate(tls.at_handshake.take_refused_certificate()),
            );
            return lingering_close(socket).await;
        }
        Err(late) => {
            return record_handshake_failure(
                &worker,
                &stats,
                address,
                FailedHandshake::new(HandshakeFailure::Timeout, &late),
            );
        }
    };
    let connection = stream.get_ref().1;
    let caller = match Caller::from_handshake(connection) {
        Ok(caller) => caller,
        Err(error) => {
            let handshake =
                connection.peer_certificates().and_then(|chain| CertificateSummary::from_der(chain.first()?));
            let failed = FailedHandshake::new(HandshakeFailure::BadCertificate, &error);
            record_handshake_failure(&worker, &stats, address, failed.with_certificate(handshake));
            return lingering_close(Some(stream)).await;
        }
    };
    let is_h2 = connection.alpn_protocol() == Some(b"h2");
    let server_name = connection.server_name().map(Box::from);
    let is_proxy = proxies.forwarded_for.contains(address.ip());
    let handshake = HandshakeInfo { caller, server_name, address: proxied_address.unwrap_or(address.ip()), is_proxy };
    let peer = Rc::new(DownstreamPeer::new(handshake, tls, &worker.config().snapshot, (&worker.clock, worker.grace)));
    let Some(_places) = worker.caller_permits(&peer, proxied_address) else {
        return lingering_close(Some(stream)).await;
    };
    worker.revalidator.watch(&peer);
    stream.get_mut().1.set_buffer_limit(Some(worker.in_flight.read_ahead_limit().max(TLS_RECORD_MAX)));
    let served = match is_h2 {
        true => http2::serve_http2(worker, peer, stream, drain).await,
        false => http1::serve_http1(worker, peer, stream, drain).await,
    };
    if let Err(error) = served {
        tracing::debug!(%address, %error, "connection ended");
    }
    drop(held);
}

/// Ready when the gateway drains and a handshake is not waited for any longer: at once, if its caller has not said hello. No
/// command can have come before it is finished.
async fn handshake_drain(drain: &mut DrainWatcher, hello_answered: &Cell<bool>) {
    drain.begun().await;
    if hello_answered.get() {
        tokio::time::sleep(HANDSHAKE_DRAIN_TIME).await;
    }
}

/// From a socket to a finished handshake, and the caller's address if a balancer has told it. The error of a handshake leaves
/// the socket behind, with the alert already on its way.
async fn tls_handshake(
    stream: std::net::TcpStream,
    tls: &ListenerTls,
    by_balancer: bool,
    hello_answered: Rc<Cell<bool>>,
) -> Result<(TlsSocket, Option<IpAddr>), (io::Error, Option<TcpConnection>)> {
    let mut socket = TcpStream::from_std(stream).and_then(TcpConnection::new).map_err(|error| (error, None))?;
    let proxied_address = match by_balancer {
        true => proxy_protocol::read_proxy_header(&mut socket).await.map_err(|error| (error, None))?,
        false => None,
    };
    let socket = socket.with_first_write_flag(hello_answered); // the first word of ours follows the caller's whole hello
    let accept = TlsAcceptor::from(Arc::clone(&tls.at_handshake.config)).accept(socket).into_fallible();
    accept.await.map(|stream| (Box::new(stream), proxied_address)).map_err(|(error, socket)| (error, Some(socket)))
}

impl TrafficWorker {
    /// Places for a caller that is known now: in its department, and at the address that a balancer has told.
    fn caller_permits(
        &self,
        peer: &DownstreamPeer,
        proxied_address: Option<IpAddr>,
    ) -> Option<[Option<ConnectionPermit>; 2]> {
        let snapshot = &self.config().snapshot;
        let department = match peer.department(snapshot) {
            Some(department) => {
                let holder = LimitScope::Department(department.department.number);
                Some(self.connection_limits.try_acquire(holder, self.capacity.department_connections)?)
            }
            None => None,
        };
        let address = match proxied_address {
            Some(address) => Some(
                self.connection_limits
                    .try_acquire(LimitScope::for_address(address), self.capacity.address_connections)?,
            ),
            None => None,
        };
        self.record_certificate_expiry(peer, snapshot);
        Some([department, address])
    }

    /// Remembers when the certificate of a caller ends.
    fn record_certificate_expiry(&self, peer: &DownstreamPeer, snapshot: &PolicySnapshot) {
        let Some(caller) = peer.caller() else { return };
        if let Some(known) = snapshot.claimed_identity(caller.identities()) {
            self.telemetry.callers().record(known, caller.expires_at(), self.clock.window());
        }
    }
}

/// A handshake that came to nothing.
struct FailedHandshake<'a> {
    failure: HandshakeFailure,
    error: &'a dyn Display,
    /// The certificate that was refused.
    certificate: Option<CertificateSummary>,
}

impl<'a> FailedHandshake<'a> {
    fn new(failure: HandshakeFailure, error: &'a dyn Display) -> Self {
        Self { failure, error, certificate: None }
    }

    fn with_certificate(self, certificate: Option<CertificateSummary>) -> Self {
        Self { certificate, ..self }
    }
}

/// Counts a handshake that came to nothing, and logs it: once a second for all, because anybody can cause them; the next
/// line says how many were suppressed. Who only knocks (a port scan, the probe of a load balancer) is not worth a line.
fn record_handshake_failure(
    worker: &TrafficWorker,
    stats: &ConnectionStats,
    address: SocketAddr,
    failed: FailedHandshake<'_>,
) {
    let FailedHandshake { failure, error, certificate } = failed;
    stats.count_handshake_failure(failure);
    let reason = failure.name();
    if failure == HandshakeFailure::ClientClosed {
        return tracing::debug!(%address, reason, %error, "handshake failed");
    }
    if let Some(suppressed) = stats.should_log_failure(worker.clock.unix_seconds()) {
        let subject = certificate.as_ref().map(|handshake| handshake.subject.as_str());
        let issuer = certificate.as_ref().map(|handshake| handshake.issuer.as_str());
        let serial = certificate.as_ref().map(|handshake| handshake.serial.as_str());
        tracing::info!(%address, reason, %error, subject, issuer, serial, suppressed, "handshake failed");
    }
}

/// Closes a connection so that its caller can read why: closed with something unread, it would be reset, and the alert lost.
async fn lingering_close(stream: Option<impl AsyncRead + AsyncWrite + Unpin>) {
    let Some(mut stream) = stream else { return };
    let parting = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut sink()).await
    };
    let _ = timeout(LINGER_TIME, parting).await; // either way it is over
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a connection's task, in bytes. It has this from its beginning to its end, whatever it waits for, so what is seldom and
    /// large is boxed: it had 15,840 once, almost half of what a slow connection cost.
    const TASK_MAX: usize = 4 * 1024;

    fn size_of_task<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_has_a_small_task() {
        let bytes = size_of_task(serve_connection);
        assert!(bytes <= TASK_MAX, "{bytes} bytes");
    }
}
