//! Accepts connections and gives each to the worker with the fewest connections.
//!
//! The kernel could put several long HTTP/2 connections on one worker (overload) and none on another (starvation).
//!
//! Guarantees:
//! - An accept error never ends a listener.
//! - New settings apply to every connection that is accepted from then on, on the same socket.
//! - A listener that ends accepts the connections that the kernel has already established, and closes its socket then.
//! - A connection above a limit (total, per listener, per address) is closed at once and counted.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::config::TrustedProxies;
use crate::identity::ServerTls;
use crate::lifecycle::DrainWatcher;
use crate::model::Name;
use crate::policy::DownstreamProtocol;
use crate::proxy::capacity::connections::{ConnectionLimits, ConnectionPermit, LimitScope};
use crate::proxy::worker::peer::{AcceptingListener, ListenerTls};
use crate::telemetry::{LimitHit, Telemetry};

use super::connection::{AcceptedConnection, ConnectionGuards};
use super::worker_thread::WorkerHandle;

/// The backlog of the kernel: connections that are established between two accepts.
const BACKLOG: i32 = 4096;
/// The maximum of unsent bytes that the kernel keeps for one connection. It wakes the gateway at half of this size.
/// Without this limit the kernel keeps as much as the connection once sent quickly, up to `tcp_wmem` (4 MiB), for each
/// caller that stops reading. Then 5,000 such callers fill all the TCP memory of the machine.
const UNSENT_BYTES_MAX: u32 = 64 * 1024;
/// The pause after an accept error that does not end at once by itself (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The settings of a listener. A reload replaces them.
#[derive(Clone, Debug)]
pub struct AcceptSettings {
    /// The listener's name.
    pub name: Name,
    /// What callers may send.
    pub protocol: DownstreamProtocol,
    /// The server certificates and trust anchors, which a reload replaces. `None` for plain HTTP, and where TLS
    /// connections are only passed through.
    pub tls: Option<Arc<ArcSwap<ServerTls>>>,
    /// The number of the name, by which connections are limited.
    pub number: u32,
    /// The connection limits.
    pub connections_max: ConnectionsMax,
    /// The proxies whose PROXY header or `X-Forwarded-For` is trusted.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// The open connections per listener, department and address.
    pub connection_limits: Arc<ConnectionLimits>,
    /// The counters of connections.
    pub telemetry: Arc<Telemetry>,
    /// The graceful shutdown of the connections accepted with these settings.
    pub drain: DrainWatcher,
}

/// The settings that a listener accepts connections with. `None` pauses it: new connections wait in the kernel.
pub type CurrentSettings = watch::Receiver<Option<Arc<AcceptSettings>>>;

/// The maximum numbers of open connections.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionsMax {
    /// All listeners together.
    pub all: usize,
    /// This listener.
    pub listener: usize,
    /// One client address.
    pub address: usize,
}

/// A bound listening socket.
#[derive(Debug)]
pub struct TrafficListener {
    socket: std::net::TcpListener,
    address: SocketAddr,
}

impl TrafficListener {
    /// Binds an address. All listeners are bound before anything starts, so a port in use fails the start and has no
    /// other effect.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?; // Accepted sockets inherit the option.
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket: std::net::TcpListener = socket.into();
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The bound address, in which port 0 is replaced by the assigned port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections until the drain begins, or the sender of the settings is dropped. The socket is closed
    /// before the watcher of the drain is dropped.
    pub async fn accept_connections(
        self,
        mut settings: CurrentSettings,
        workers: Vec<WorkerHandle>,
        mut stop: DrainWatcher,
    ) {
        let listener = match TcpListener::from_std(self.socket) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, address = %self.address, "cannot listen"),
        };
        let mut current = settings.borrow_and_update().clone();
        loop {
            let accepted = tokio::select! {
                biased; // no connection is accepted with settings that have been replaced
                () = stop.begun() => break,
                changed = settings.changed() => match changed {
                    Ok(()) => {
                        current.clone_from(&settings.borrow_and_update());
                        continue;
                    }
                    Err(_) => break,
                },
                accepted = listener.accept(), if current.is_some() => accepted,
            };
            match (accepted, &current) {
                (Ok((stream, address)), Some(current)) => dispatch(stream, address, current, &workers),
                (Ok(_), None) => {} // a paused listener is not polled
                (Err(error), _) => {
                    tracing::warn!(%error, "accept failed; retrying");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        if let Some(current) = current {
            accept_established(&listener, &current, &workers);
        }
        drop(listener); // before `stop`
    }
}

/// Accepts the connections that wait in the kernel, at most one backlog. Closing the socket would reset them.
fn accept_established(listener: &TcpListener, settings: &AcceptSettings, workers: &[WorkerHandle]) {
    for _ in 0..=BACKLOG {
        let Some(Ok((stream, address))) = listener.accept().now_or_never() else { return };
        dispatch(stream, address, settings, workers);
    }
}

impl AcceptSettings {
    /// Acquires the permits of one more connection; `None` if a limit is reached. Behind a balancer, the per-address
    /// permit is acquired after the PROXY header.
    fn connection_permits(&self, address: IpAddr) -> Option<Vec<ConnectionPermit>> {
        let mut places =
            vec![self.connection_limits.try_acquire(LimitScope::Listener(self.number), self.connections_max.listener)?];
        if !self.trusted_proxies.protocol.contains(address) {
            places.push(
                self.connection_limits.try_acquire(LimitScope::for_address(address), self.connections_max.address)?,
            );
        }
        Some(places)
    }
}

/// Gives a connection to the worker with the fewest connections.
fn dispatch(stream: TcpStream, address: SocketAddr, settings: &AcceptSettings, workers: &[WorkerHandle]) {
    let stats = settings.telemetry.connections();
    let carried: usize = workers.iter().map(WorkerHandle::connections).sum();
    if carried >= settings.connections_max.all {
        return settings.telemetry.count_limit_hit(LimitHit::Connections); // Dropping the stream closes it.
    }
    let Some(places) = settings.connection_permits(address.ip()) else { return };
    let living = workers.iter().filter(|worker| worker.is_alive());
    let Some(idlest) = living.min_by_key(|worker| worker.connections()) else { return };
    let Ok(stream) = stream.into_std() else { return };
    let tls = settings.tls.as_ref();
    let tls = tls.map(|tls| ListenerTls { current: Arc::clone(tls), at_handshake: tls.load_full() });
    let listener = AcceptingListener { name: settings.name.clone(), protocol: settings.protocol, tls };
    let taken = idlest.send_connection(|carried| AcceptedConnection {
        stream,
        address,
        listener,
        stats: Arc::clone(stats),
        proxies: Arc::clone(&settings.trusted_proxies),
        drain: settings.drain.clone(),
        guards: ConnectionGuards { _open: stats.count_accepted(), _worker: carried, _permits: places },
    });
    if !taken {
        settings.telemetry.count_limit_hit(LimitHit::Connections);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_have_a_small_unsent_limit() {
        let listener = TrafficListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a listener");
        let _caller = std::net::TcpStream::connect(listener.address()).expect("a connection");
        listener.socket.set_nonblocking(false).expect("a socket that waits");
        let (accepted, _) = listener.socket.accept().expect("the accepted socket");
        assert_eq!(socket2::SockRef::from(&accepted).tcp_notsent_lowat().ok(), Some(UNSENT_BYTES_MAX));
    }
}
