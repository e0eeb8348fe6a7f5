//! Accepts connections and spreads them over the workers, each to the one that carries fewest: a worker must not be
//! starved, nor drowned, by where the kernel would have put a few long HTTP/2 connections.
//!
//! Guarantees: an accept error never ends a listener; connections beyond a cap (of all, of this listener, of
//! one address) are closed at once and counted.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::config::TrustedProxies;
use crate::identity::ServerTls;
use crate::lifecycle::DrainWatcher;
use crate::telemetry::{LimitHit, Telemetry};

use super::connection::{AcceptedConnection, ConnectionGuards};
use super::worker_thread::WorkerHandle;
use crate::proxy::capacity::connections::{ConnectionLimits, ConnectionPermit, LimitScope};
use crate::proxy::worker::peer::ListenerTls;

/// Connections the kernel holds for us between two accepts.
const BACKLOG: i32 = 4096;
/// Bytes for one caller that the kernel keeps before it has sent them; it wakes us at half of it. Without a limit it keeps as
/// much as the connection was once quick for, up to `tcp_wmem` (4 MiB), for each caller that stops reading; and 5,000 such callers
/// fill all that the machine has for TCP.
const UNSENT_BYTES_MAX: u32 = 64 * 1024;
/// After an error that will not go away by itself at once (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener accepts with.
#[derive(Clone)]
pub struct AcceptSettings {
    /// Its keys and trust; replaced by a reload.
    pub tls: Arc<ArcSwap<ServerTls>>,
    /// Which of the listeners it is.
    pub position: usize,
    /// How many connections there may be.
    pub connections_max: ConnectionsMax,
    /// Who stands in front of callers.
    pub trusted_proxies: Arc<TrustedProxies>,
    /// Who has how many connections.
    pub connection_limits: Arc<ConnectionLimits>,
    /// Where connections are counted.
    pub telemetry: Arc<Telemetry>,
}

/// How many connections there may be at once.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionsMax {
    /// Of all listeners together.
    pub all: usize,
    /// Of this listener.
    pub listener: usize,
    /// From one address.
    pub address: usize,
}

/// A bound address.
#[derive(Debug)]
pub struct TrafficListener {
    socket: std::net::TcpListener,
    address: SocketAddr,
}

impl TrafficListener {
    /// Binds an address; all listeners are bound before anything starts, so that a bad port fails the start and nothing
    /// else.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?; // those it accepts inherit it
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket: std::net::TcpListener = socket.into();
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Where it really listens: port 0 has become a port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until the drain begins.
    pub async fn accept_connections(
        self,
        settings: AcceptSettings,
        workers: Vec<WorkerHandle>,
        mut drain: DrainWatcher,
    ) {
        let listener = match TcpListener::from_std(self.socket) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, address = %self.address, "cannot listen"),
        };
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => dispatch(stream, address, &settings, &workers),
                    Err(error) => {
                        tracing::warn!(%error, "accept failed; trying again");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = drain.begun() => return,
            }
        }
    }
}

impl AcceptSettings {
    /// Places for one more connection, if there are any. Who comes by a balancer has its place once the balancer has told its
    /// address.
    fn connection_permits(&self, address: IpAddr) -> Option<Vec<ConnectionPermit>> {
        let mut places = vec![
            self.connection_limits.try_acquire(LimitScope::Listener(self.position), self.connections_max.listener)?,
        ];
        if !self.trusted_proxies.protocol.contains(address) {
            places.push(
                self.connection_limits.try_acquire(LimitScope::for_address(address), self.connections_max.address)?,
            );
        }
        Some(places)
    }
}

/// Gives a connection to the worker that carries fewest.
fn dispatch(stream: TcpStream, address: SocketAddr, settings: &AcceptSettings, workers: &[WorkerHandle]) {
    let stats = settings.telemetry.connections();
    let carried: usize = workers.iter().map(WorkerHandle::connections).sum();
    if carried >= settings.connections_max.all {
        return settings.telemetry.count_limit_hit(LimitHit::Connections); // dropping the stream closes it
    }
    let Some(places) = settings.connection_permits(address.ip()) else { return };
    let living = workers.iter().filter(|worker| worker.is_alive());
    let Some(idlest) = living.min_by_key(|worker| worker.connections()) else { return };
    let Ok(stream) = stream.into_std() else { return };
    let tls = ListenerTls { current: Arc::clone(&settings.tls), at_handshake: settings.tls.load_full() };
    let taken = idlest.send_connection(|carried| AcceptedConnection {
        stream,
        address,
        tls,
        stats: Arc::clone(stats),
        proxies: Arc::clone(&settings.trusted_proxies),
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
    fn what_is_accepted_keeps_little_that_is_not_sent() {
        let listener = TrafficListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a listener");
        let _caller = std::net::TcpStream::connect(listener.address()).expect("a connection");
        listener.socket.set_nonblocking(false).expect("a socket that waits");
        let (accepted, _) = listener.socket.accept().expect("its other end");
        assert_eq!(socket2::SockRef::from(&accepted).tcp_notsent_lowat().ok(), Some(UNSENT_BYTES_MAX));
    }
}
