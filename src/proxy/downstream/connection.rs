//! One connection of a caller: one TLS handshake, then its commands over the protocol that ALPN selected. A listener of
//! plain HTTP has no handshake and no ALPN. A connection whose server name belongs to a subsystem with `tlsMode` is one
//! command ([`super::tls_connection`]).
//!
//! Guarantees:
//! - ALPN alone selects the protocol of HTTP over TLS. The first bytes of the stream are never sniffed.
//! - Over plain HTTP, only the connection preface selects HTTP/2 ([`super::plain_protocol`]).
//! - The caller is identified once per connection, its department once per configuration.
//! - A connection of a caller that is no longer authorized ends by graceful shutdown.
//! - A handshake has a time limit, and a connection has a maximum age.
//!
//! Leaves to others: the handshake itself ([`super::tls_handshake`]), and the two protocols ([`super::http1`],
//! [`super::http2`]).

use std::cell::Cell;
use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::config::TrustedProxies;
use crate::identity::{CertificateSummary, HandshakePeer, UnacceptedCertificate, describe_tls_error};
use crate::lifecycle::DrainWatcher;
use crate::policy::{DownstreamProtocol, PolicySnapshot};
use crate::proxy::capacity::connections::{ConnectionPermit, LimitScope};
use crate::proxy::io::lingering_close::close_after_handshake;
use crate::proxy::io::tcp_connection::TcpConnection;
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::peer::{AcceptingListener, DownstreamPeer, HandshakeInfo, ListenerTls};
use crate::telemetry::{ConnectionStats, HandshakeFailure, LimitHit, OpenConnection};

use super::client_stream::{ClientStream, PlainStream};
use super::plain_protocol::PeekedBytes;
use super::tls_handshake::{BegunConnection, FailedBegin, PassedConnection, begin_connection};
use super::{http1, http2, proxy_protocol, tls_connection};

/// The maximum payload of a TLS record (RFC 8446 section 5.1). A smaller buffer would only make small records.
const TLS_RECORD_MAX: usize = 16 * 1024;

/// How long a draining listener waits for pending handshakes. A normal handshake takes at most three round trips.
const HANDSHAKE_DRAIN_TIME: Duration = Duration::from_secs(1);
/// How long a draining listener waits for the first bytes of a plain connection, which may be on their way.
const FIRST_BYTES_DRAIN_TIME: Duration = Duration::from_millis(250);

/// A connection as the listener passes it to a worker.
pub(crate) struct AcceptedConnection {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) address: SocketAddr,
    pub(crate) listener: AcceptingListener,
    pub(crate) stats: Arc<ConnectionStats>,
    pub(crate) proxies: Arc<TrustedProxies>,
    /// The drain of the listener.
    pub(crate) drain: DrainWatcher,
    pub(crate) guards: ConnectionGuards,
}

/// Everything that counts a connection while it is open: the listener, the worker, and the permits of the connection
/// limits.
pub(crate) struct ConnectionGuards {
    pub(crate) _open: OpenConnection,
    pub(crate) _worker: WorkerConnection,
    pub(crate) _permits: Vec<ConnectionPermit>,
}

/// Counts one connection of a worker until it is dropped.
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

/// Serves a connection from the handshake to the close.
pub(crate) async fn serve_connection(worker: Rc<TrafficWorker>, accepted: AcceptedConnection) {
    let AcceptedConnection { stream, address, listener, proxies, stats, mut drain, guards: held } = accepted;
    let opening = OpeningConnection { worker: &worker, address, proxies: &proxies, stats: &stats };
    // Boxed: otherwise each connection would reserve the size of these futures for its whole life.
    let opened = match listener.protocol {
        DownstreamProtocol::Https | DownstreamProtocol::Tls => {
            Box::pin(opening.open_tls(stream, &listener, &mut drain)).await
        }
        DownstreamProtocol::Http => Box::pin(opening.open_plain(stream, &mut drain)).await,
    };
    let Some(OpenedConnection { mut stream, protocol, handshake, proxied_address }) = opened else { return };
    let snapshot = &worker.config().snapshot;
    let peer = Rc::new(DownstreamPeer::new(handshake, listener, snapshot, (&worker.components.clock, worker.grace)));
    let Some(_places) = worker.caller_permits(&peer, proxied_address) else {
        return close_after_handshake(stream).await;
    };
    worker.revalidator.watch(&peer);
    stream.set_buffer_limit(worker.in_flight.read_ahead_limit().max(TLS_RECORD_MAX));
    let served = match protocol {
        ClientProtocol::Http2 => http2::serve_http2(worker, peer, stream, drain).await,
        ClientProtocol::Http1 => http1::serve_http1(worker, peer, stream, drain).await,
        ClientProtocol::Opaque(received) => {
            let stream = (stream, received);
            Box::pin(tls_connection::serve_connection_command(worker, peer, stream, drain)).await;
            Ok(())
        }
    };
    if let Err(error) = served {
        tracing::debug!(%address, %error, "connection ended");
    }
    drop(held);
}

/// A connection whose caller and protocol are known.
struct OpenedConnection {
    stream: ClientStream,
    protocol: ClientProtocol,
    handshake: HandshakeInfo,
    /// The caller's address, if a PROXY header names one.
    proxied_address: Option<IpAddr>,
}

/// The protocol of a connection.
enum ClientProtocol {
    Http1,
    Http2,
    /// Any: the bytes are forwarded. Those that were read already come first.
    Opaque(Bytes),
}

impl ClientProtocol {
    fn http(is_http2: bool) -> Self {
        if is_http2 { Self::Http2 } else { Self::Http1 }
    }
}

/// A connection until its caller is known.
struct OpeningConnection<'a> {
    worker: &'a TrafficWorker,
    address: SocketAddr,
    proxies: &'a Arc<TrustedProxies>,
    stats: &'a ConnectionStats,
}

impl OpeningConnection<'_> {
    /// Opens a connection of a TLS listener. `None` after a failure, which is then recorded.
    async fn open_tls(
        &self,
        stream: std::net::TcpStream,
        listener: &AcceptingListener,
        drain: &mut DrainWatcher,
    ) -> Option<OpenedConnection> {
        let (begun, proxied_address) = self.complete_handshake(stream, listener, drain).await?;
        let (stream, is_http) = match begun {
            BegunConnection::Https(stream) => (stream, true),
            BegunConnection::Terminated(stream) => (stream, false),
            BegunConnection::PassedThrough(passed) => return Some(self.pass_through(*passed, proxied_address)),
        };
        let connection = stream.get_ref().1;
        let protocol = match is_http {
            true => ClientProtocol::http(connection.alpn_protocol() == Some(b"h2")),
            false => ClientProtocol::Opaque(Bytes::new()),
        };
        let handshake = listener.tls.as_ref().and_then(|tls| self.identify_caller(connection, tls, proxied_address));
        let Some(handshake) = handshake else {
            close_after_handshake(stream).await;
            return None;
        };
        Some(OpenedConnection { stream: ClientStream::Tls(stream), protocol, handshake, proxied_address })
    }

    /// Opens a connection that is passed through.
    fn pass_through(&self, passed: PassedConnection, proxied_address: Option<IpAddr>) -> OpenedConnection {
        let PassedConnection { socket, hello, server_name } = passed;
        let handshake = HandshakeInfo {
            peer: HandshakePeer::Anonymous,
            server_name: Some(server_name),
            is_passthrough: true,
            ..self.plain_handshake(proxied_address)
        };
        let stream = ClientStream::Plain(Box::new(PlainStream { socket, peeked: PeekedBytes::default() }));
        OpenedConnection { stream, protocol: ClientProtocol::Opaque(hello), handshake, proxied_address }
    }

    /// The facts about a connection without a handshake.
    fn plain_handshake(&self, proxied_address: Option<IpAddr>) -> HandshakeInfo {
        HandshakeInfo {
            peer: HandshakePeer::Anonymous,
            server_name: None,
            address: proxied_address.unwrap_or(self.address.ip()),
            socket: self.address,
            tls_version: None,
            trusted_proxies: self.trusted_proxies(),
            is_passthrough: false,
        }
    }

    /// Opens a connection of a plain HTTP listener: reads its PROXY header, if it has one, and determines its protocol.
    /// `None` if the client sends nothing within the limits: there is nothing to refuse.
    async fn open_plain(&self, stream: std::net::TcpStream, drain: &mut DrainWatcher) -> Option<OpenedConnection> {
        let mut socket = TcpStream::from_std(stream).and_then(TcpConnection::new).ok()?;
        let capacity = &self.worker.capacity;
        let mut peeked = PeekedBytes::default();
        let by_balancer = self.proxies.protocol.contains(self.address.ip());
        let proxied_address = match by_balancer {
            true => match timeout(capacity.handshake, proxy_protocol::read_proxy_header(&mut socket)).await {
                Ok(Ok(address)) => address,
                Ok(Err(error)) => {
                    self.record_error(&error);
                    return None;
                }
                Err(late) => {
                    self.record_failure(FailedHandshake::new(HandshakeFailure::Timeout, &late));
                    return None;
                }
            },
            false => None,
        };
        let is_http2 = tokio::select! {
            detected = timeout(capacity.idle, peeked.detect_http2(&mut socket)) => detected.ok()?.ok()?,
            () = plain_drain(drain) => return None,
        };
        let stream = ClientStream::Plain(Box::new(PlainStream { socket, peeked }));
        let (protocol, handshake) = (ClientProtocol::http(is_http2), self.plain_handshake(proxied_address));
        Some(OpenedConnection { stream, protocol, handshake, proxied_address })
    }

    /// Completes the handshake within its limits, or reads the ClientHello of a connection that is passed through.
    /// Returns also the caller's address if a PROXY header names one. `None` after a failure, which is then recorded.
    async fn complete_handshake(
        &self,
        stream: std::net::TcpStream,
        listener: &AcceptingListener,
        drain: &mut DrainWatcher,
    ) -> Option<(BegunConnection, Option<IpAddr>)> {
        let mut permit = self.worker.handshakes.acquire(Instant::now());
        let by_balancer = self.proxies.protocol.contains(self.address.ip());
        let hello_answered = Rc::clone(&permit.hello_answered);
        let snapshot = || Arc::clone(&self.worker.config().snapshot);
        let handshake = begin_connection(stream, (listener, snapshot), by_balancer, Rc::clone(&hello_answered));
        let outcome = tokio::select! {
            outcome = timeout(self.worker.capacity.handshake, handshake) => outcome,
            () = handshake_drain(drain, &hello_answered) => {
                tracing::debug!(address = %self.address, "closed before its handshake: the listener drains");
                return None;
            }
            () = permit.evicted() => {
                self.worker.components.telemetry.count_limit_hit(LimitHit::Handshakes);
                let reason = "evicted: too many handshakes in progress";
                self.record_failure(FailedHandshake::new(HandshakeFailure::Evicted, &reason));
                return None;
            }
        };
        drop(permit);
        match outcome {
            Ok(Ok(outcome)) => return Some(outcome),
            Ok(Err(failed)) => self.close_failed(failed, listener).await,
            Err(elapsed) => self.record_failure(FailedHandshake::new(HandshakeFailure::Timeout, &elapsed)),
        }
        None
    }

    async fn close_failed(&self, (error, socket): FailedBegin, listener: &AcceptingListener) {
        self.record_tls_error(&error, listener.tls.as_ref());
        if let Some(socket) = socket {
            close_after_handshake(socket).await;
        }
    }

    /// The results of the handshake. `None` if the certificate names no valid caller, which is then recorded.
    fn identify_caller(
        &self,
        connection: &rustls::ServerConnection,
        tls: &ListenerTls,
        proxied_address: Option<IpAddr>,
    ) -> Option<HandshakeInfo> {
        let now = self.worker.components.clock.wall();
        let identified = tls.at_handshake.identify_peer(connection, now).inspect_err(|error| {
            let certificate =
                connection.peer_certificates().and_then(|chain| CertificateSummary::from_der(chain.first()?));
            let failed = FailedHandshake::new(HandshakeFailure::BadCertificate, error);
            self.record_failure(failed.with_certificate(certificate));
        });
        let peer = identified.ok()?;
        if let HandshakePeer::Unaccepted(certificate) = &peer {
            self.log_unaccepted(certificate);
        }
        Some(HandshakeInfo {
            peer,
            server_name: connection.server_name().map(Box::from),
            tls_version: tls_version_name(connection),
            ..self.plain_handshake(proxied_address)
        })
    }

    /// The proxies whose `X-Forwarded-For` is trusted, if the peer is one of them.
    fn trusted_proxies(&self) -> Option<Arc<TrustedProxies>> {
        self.proxies.forwarded_for.contains(self.address.ip()).then(|| Arc::clone(self.proxies))
    }

    /// Logs a connection that was accepted without an identity, because its certificate was not accepted. These lines
    /// are limited together with those of failed handshakes.
    fn log_unaccepted(&self, certificate: &UnacceptedCertificate) {
        if let Some(suppressed) = self.stats.should_log_failure(self.worker.components.clock.unix_seconds()) {
            let UnacceptedCertificate { reason, summary, .. } = certificate;
            let subject = summary.as_ref().map(|summary| summary.subject.as_str());
            let issuer = summary.as_ref().map(|summary| summary.issuer.as_str());
            let serial = summary.as_ref().map(|summary| summary.serial.as_str());
            let address = self.address;
            tracing::info!(
                %address, %reason, subject, issuer, serial, suppressed,
                "client certificate not accepted; the caller has no identity"
            );
        }
    }

    /// Records a handshake that failed with this error.
    fn record_tls_error(&self, error: &io::Error, tls: Option<&ListenerTls>) {
        let words = tls_error_text(error);
        let failed = FailedHandshake::new(HandshakeFailure::from_io_error(error), &words);
        self.record_failure(failed.with_certificate(tls.and_then(|tls| tls.at_handshake.take_refused_certificate())));
    }

    /// Records a plain connection whose beginning is not valid.
    fn record_error(&self, error: &io::Error) {
        self.record_failure(FailedHandshake::new(HandshakeFailure::from_io_error(error), error));
    }

    /// Counts a failed handshake and logs it. The log has at most one line a second for all failures, because any
    /// client can cause them. The next line has the number of suppressed lines. A client that only connects and closes
    /// (a port scan, the probe of a load balancer) gets no line at the level `info`.
    fn record_failure(&self, failed: FailedHandshake<'_>) {
        let FailedHandshake { failure, error, certificate } = failed;
        self.stats.count_handshake_failure(failure);
        let (address, reason) = (self.address, failure.name());
        if failure == HandshakeFailure::ClientClosed {
            return tracing::debug!(%address, reason, %error, "handshake failed");
        }
        if let Some(suppressed) = self.stats.should_log_failure(self.worker.components.clock.unix_seconds()) {
            let subject = certificate.as_ref().map(|handshake| handshake.subject.as_str());
            let issuer = certificate.as_ref().map(|handshake| handshake.issuer.as_str());
            let serial = certificate.as_ref().map(|handshake| handshake.serial.as_str());
            tracing::info!(%address, reason, %error, subject, issuer, serial, suppressed, "handshake failed");
        }
    }
}

fn tls_version_name(connection: &rustls::ServerConnection) -> Option<&'static str> {
    match connection.protocol_version()? {
        rustls::ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        rustls::ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        _ => None, // rustls has no older one
    }
}

/// The text of an error of a handshake.
fn tls_error_text(error: &io::Error) -> String {
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    fault.map_or_else(|| error.to_string(), describe_tls_error)
}

/// Ready when the listener drains and the time for the first bytes of a plain connection is over.
async fn plain_drain(drain: &mut DrainWatcher) {
    drain.begun().await;
    tokio::time::sleep(FIRST_BYTES_DRAIN_TIME).await;
}

/// Ready when the listener drains and the time for a pending handshake is over. No command can arrive before the
/// handshake completes. When the gateway stops, a handshake whose `ClientHello` has not arrived ends at once. When a
/// reload removes the listener (the drain has a deadline), callers had no warning, so their `ClientHello` is
/// waited for.
async fn handshake_drain(drain: &mut DrainWatcher, hello_answered: &Cell<bool>) {
    drain.begun().await;
    if hello_answered.get() || drain.deadline().is_some() {
        tokio::time::sleep(HANDSHAKE_DRAIN_TIME).await;
    }
}

impl TrafficWorker {
    /// Acquires the connection permits that need a known caller: one for its department, one for the address in its
    /// PROXY header.
    fn caller_permits(
        &self,
        peer: &DownstreamPeer,
        proxied_address: Option<IpAddr>,
    ) -> Option<[Option<ConnectionPermit>; 2]> {
        let snapshot = &self.config().snapshot;
        let department = match peer.department(snapshot) {
            Some(department) => {
                let holder = LimitScope::Department(department.department.number);
                Some(self.components.connection_limits.try_acquire(holder, self.capacity.department_connections)?)
            }
            None => None,
        };
        let address = match proxied_address {
            Some(address) => Some(
                self.components
                    .connection_limits
                    .try_acquire(LimitScope::for_address(address), self.capacity.address_connections)?,
            ),
            None => None,
        };
        self.record_certificate_expiry(peer, snapshot);
        Some([department, address])
    }

    /// Records when the caller's certificate expires.
    fn record_certificate_expiry(&self, peer: &DownstreamPeer, snapshot: &PolicySnapshot) {
        let Some(caller) = peer.caller() else { return };
        if let Some(known) = peer.claimed_identity(snapshot) {
            self.components.telemetry.callers().record(known, caller.expires_at(), self.components.clock.window());
        }
    }
}

/// A failed handshake.
struct FailedHandshake<'a> {
    failure: HandshakeFailure,
    error: &'a dyn Display,
    /// The rejected certificate.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The maximum size of a connection's task, in bytes. The task keeps this size for its whole life, so large parts
    /// that are seldom used are boxed. The task once had 15,840 bytes, almost half of the cost of a slow connection.
    const TASK_MAX: usize = 4 * 1024;

    fn size_of_task<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn connection_task_is_small() {
        let bytes = size_of_task(serve_connection);
        assert!(bytes <= TASK_MAX, "{bytes} bytes");
    }
}
