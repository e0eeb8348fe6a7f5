//! One connection from a caller: handshake, once; then its commands, over the protocol that was agreed on.
//!
//! Guarantees: the protocol is the one ALPN agreed on, never sniffed; the caller is told once per connection, its department
//! once per configuration; a caller that is not let in any more is heard out and said goodbye; a handshake has a limit of time,
//! and a connection an age. Leaves the rest to [`super::http1`] and [`super::http2`].

use std::cell::Cell;
use std::fmt::Display;
use std::future::poll_fn;
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
use tokio_rustls::server::TlsStream;

use crate::config::Proxies;
use crate::identity::{Caller, ShownCertificate, fault_in_words};
use crate::lifecycle::DrainWatcher;
use crate::policy::Snapshot;
use crate::telemetry::{ConnectionStats, HandshakeFailure, LimitHit, OpenConnection};

use super::caps::{Holder, Place};
use super::peer::{Door, Peer, Shown};
use super::proxied;
use super::pulse::Pulse;
use super::socket::Socket;
use super::worker::Worker;
use super::{http1, http2};

/// The most that a TLS record holds (RFC 8446 section 5.1): less room than that would only make small records.
const TLS_RECORD: usize = 16 * 1024;
/// How much is read, and for how long, after a handshake that failed.
const PARTING_BYTES: u64 = 64 * 1024;
const PARTING_TIME: Duration = Duration::from_secs(1);

/// How long handshakes are waited for that are under way when the gateway stops; a good one takes three round trips at most.
const LAST_HANDSHAKES: Duration = Duration::from_secs(1);

/// A socket after its handshake. Boxed, because each future that hands it on has room for it twice (more than a kilobyte).
pub(super) type Secured = Box<TlsStream<Socket>>;

/// A connection as the listener hands it over.
pub(super) struct Accepted {
    pub(super) stream: std::net::TcpStream,
    pub(super) address: SocketAddr,
    pub(super) door: Door,
    pub(super) stats: Arc<ConnectionStats>,
    pub(super) proxies: Arc<Proxies>,
    pub(super) held: Held,
}

/// What counts a connection as long as it lives: the listener, the worker, and the places of its holders.
pub(super) struct Held {
    pub(super) _open: OpenConnection,
    pub(super) _carried: Carried,
    pub(super) _places: Vec<Place>,
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
pub(super) async fn serve(worker: Rc<Worker>, accepted: Accepted, mut drain: DrainWatcher) {
    let Accepted { stream, address, door, proxies, stats, held } = accepted;
    let mut under_way = worker.handshakes.begin(Instant::now());
    let by_balancer = proxies.protocol.contain(address.ip());
    let answered = Rc::clone(&under_way.answered);
    let greeting = greet(stream, &door, by_balancer, Rc::clone(&answered));
    let greeted = tokio::select! {
        greeted = timeout(worker.capacity.handshake, greeting) => greeted,
        () = drains(&mut drain, &answered) => {
            return tracing::debug!(%address, "closed before its handshake: the gateway stops");
        }
        () = under_way.given_up() => {
            worker.telemetry.limit_hit(LimitHit::Handshakes);
            let failed = FailedHandshake::of(HandshakeFailure::CrowdedOut, &"another needed its place");
            return note_failure(&worker, &stats, address, failed);
        }
    };
    drop(under_way);
    let (mut stream, told) = match greeted {
        Ok(Ok(greeted)) => greeted,
        Ok(Err((error, socket))) => {
            let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let words = fault.map_or_else(|| error.to_string(), fault_in_words);
            let failed = FailedHandshake::of(HandshakeFailure::of(&error), &words);
            note_failure(&worker, &stats, address, failed.with(door.then.take_refused()));
            return part(socket).await;
        }
        Err(late) => {
            return note_failure(&worker, &stats, address, FailedHandshake::of(HandshakeFailure::Timeout, &late));
        }
    };
    let connection = stream.get_ref().1;
    let caller = match Caller::of_handshake(connection) {
        Ok(caller) => caller,
        Err(error) => {
            let shown = connection.peer_certificates().and_then(|chain| ShownCertificate::of(chain.first()?));
            let failed = FailedHandshake::of(HandshakeFailure::BadCertificate, &error);
            note_failure(&worker, &stats, address, failed.with(shown));
            return part(Some(stream)).await;
        }
    };
    let is_h2 = connection.alpn_protocol() == Some(b"h2");
    let server_name = connection.server_name().map(Box::from);
    let is_proxy = proxies.forwarded_for.contain(address.ip());
    let shown = Shown { caller, server_name, address: told.unwrap_or(address.ip()), is_proxy };
    let peer = Rc::new(Peer::new(shown, door, &worker.live().snapshot, (&worker.clock, worker.grace)));
    let Some(_places) = worker.places_for(&peer, told) else { return part(Some(stream)).await };
    worker.peers.enter(&peer);
    stream.get_mut().1.set_buffer_limit(Some(worker.load.ahead().max(TLS_RECORD)));
    let served = match is_h2 {
        true => http2::serve(worker, peer, stream, drain).await,
        false => http1::serve(worker, peer, stream, drain).await,
    };
    if let Err(error) = served {
        tracing::debug!(%address, %error, "connection ended");
    }
    drop(held);
}

/// Ready when the gateway drains and a handshake is not waited for any longer: at once, if its caller has not said hello. No
/// command can have come before it is finished.
async fn drains(drain: &mut DrainWatcher, answered: &Cell<bool>) {
    drain.begun().await;
    if answered.get() {
        tokio::time::sleep(LAST_HANDSHAKES).await;
    }
}

/// From a socket to a finished handshake, and the caller's address if a balancer has told it. The error of a handshake leaves
/// the socket behind, with the alert already on its way.
async fn greet(
    stream: std::net::TcpStream,
    door: &Door,
    by_balancer: bool,
    answered: Rc<Cell<bool>>,
) -> Result<(Secured, Option<IpAddr>), (io::Error, Option<Socket>)> {
    let mut socket = TcpStream::from_std(stream).and_then(Socket::new).map_err(|error| (error, None))?;
    let told = match by_balancer {
        true => proxied::read(&mut socket).await.map_err(|error| (error, None))?,
        false => None,
    };
    let socket = socket.telling(answered); // the first word of ours follows the caller's whole hello
    let accept = TlsAcceptor::from(Arc::clone(&door.then.config)).accept(socket).into_fallible();
    accept.await.map(|stream| (Box::new(stream), told)).map_err(|(error, socket)| (error, Some(socket)))
}

impl Worker {
    /// Places for a caller that is known now: in its department, and at the address that a balancer has told.
    fn places_for(&self, peer: &Peer, told: Option<IpAddr>) -> Option<[Option<Place>; 2]> {
        let snapshot = &self.live().snapshot;
        let department = match peer.department(snapshot) {
            Some(department) => {
                let holder = Holder::Department(department.department.number);
                Some(self.caps.take(holder, self.capacity.department_connections)?)
            }
            None => None,
        };
        let address = match told {
            Some(address) => Some(self.caps.take(Holder::at(address), self.capacity.address_connections)?),
            None => None,
        };
        self.note_caller(peer, snapshot);
        Some([department, address])
    }

    /// Remembers when the certificate of a caller ends.
    fn note_caller(&self, peer: &Peer, snapshot: &Snapshot) {
        let Some(caller) = peer.caller() else { return };
        if let Some(known) = snapshot.claimed(caller.identities()) {
            self.telemetry.callers().saw(known, caller.expires(), self.clock.window());
        }
    }
}

/// A handshake that came to nothing.
struct FailedHandshake<'a> {
    failure: HandshakeFailure,
    error: &'a dyn Display,
    /// The certificate that was refused.
    certificate: Option<ShownCertificate>,
}

impl<'a> FailedHandshake<'a> {
    fn of(failure: HandshakeFailure, error: &'a dyn Display) -> Self {
        Self { failure, error, certificate: None }
    }

    fn with(self, certificate: Option<ShownCertificate>) -> Self {
        Self { certificate, ..self }
    }
}

/// Counts a handshake that came to nothing, and logs it: once a second for all, because anybody can cause them; the next
/// line says how many were suppressed. Who only knocks (a port scan, the probe of a load balancer) is not worth a line.
fn note_failure(worker: &Worker, stats: &ConnectionStats, address: SocketAddr, failed: FailedHandshake<'_>) {
    let FailedHandshake { failure, error, certificate } = failed;
    stats.handshake_failed(failure);
    let reason = failure.name();
    if failure == HandshakeFailure::Left {
        return tracing::debug!(%address, reason, %error, "handshake failed");
    }
    if let Some(suppressed) = stats.tell_failure(worker.clock.unix_seconds()) {
        let subject = certificate.as_ref().map(|shown| shown.subject.as_str());
        let issuer = certificate.as_ref().map(|shown| shown.issuer.as_str());
        let serial = certificate.as_ref().map(|shown| shown.serial.as_str());
        tracing::info!(%address, reason, %error, subject, issuer, serial, suppressed, "handshake failed");
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

/// Ready when a connection is to take no more commands: the gateway drains, the caller is sent away, or the connection is old
/// or has carried as many as it may. Revocation and the spreading of load over gateways depend on connections that end.
pub(super) async fn time_to_go(worker: &Worker, (peer, pulse): (&Peer, &Pulse), drain: &mut DrainWatcher) {
    let age = worker.jittered(worker.capacity.connection_age);
    let mut alarm = worker.alarms.alarm(Instant::now() + age);
    tokio::select! {
        () = drain.begun() => {}
        () = peer.sent_away() => {}
        () = pulse.spent() => {}
        () = poll_fn(|context| alarm.poll(context)) => {}
    }
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
        let bytes = size_of_task(serve);
        assert!(bytes <= TASK_MAX, "{bytes} bytes");
    }
}
