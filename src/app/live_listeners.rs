//! The addresses at which the gateway accepts connections (`LiveListeners`): its listeners and the admin listener.
//!
//! Guarantees:
//! - A listener that is shown here is bound and accepts connections with the settings of the live configuration.
//! - A listener that a reload has removed is no longer shown, and its socket is closed.
//! - A reader waits for a change ([`LiveListeners::subscribe`]); nothing is polled.
//!
//! Leaves to others: the changes themselves (`reload`, `listener_set`).

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::model::Name;
use crate::policy::DownstreamProtocol;

/// The live addresses of a running gateway, for every thread. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LiveListeners(Arc<watch::Sender<Arc<LiveAddresses>>>);

/// All addresses at which a gateway accepts connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveAddresses {
    /// The listeners for callers, in the order of the configuration.
    pub listeners: Vec<LiveListener>,
    /// The admin listener.
    pub admin: Option<BoundAddress>,
}

/// A listener that accepts connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveListener {
    /// Its name.
    pub name: Name,
    /// Its address.
    pub address: BoundAddress,
    /// Its protocol.
    pub protocol: DownstreamProtocol,
}

/// The address of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundAddress {
    /// The address in the configuration.
    pub configured: SocketAddr,
    /// The bound address: port 0 is replaced by the port that the system has assigned.
    pub bound: SocketAddr,
}

impl LiveListeners {
    /// The live addresses at this moment.
    pub fn current(&self) -> Arc<LiveAddresses> {
        Arc::clone(&self.0.borrow())
    }

    /// The live addresses, and a notification of each change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<LiveAddresses>> {
        self.0.subscribe()
    }

    pub(crate) fn publish(&self, addresses: LiveAddresses) {
        self.0.send_replace(Arc::new(addresses));
    }
}

impl LiveAddresses {
    /// The listener of this name.
    pub fn listener(&self, name: &str) -> Option<&LiveListener> {
        self.listeners.iter().find(|listener| listener.name.as_str() == name)
    }
}

impl BoundAddress {
    /// Whether this socket serves `wanted`. Port 0 asks for any port, which a socket of the same owner has already.
    pub(crate) fn serves(&self, wanted: SocketAddr, is_same_owner: bool) -> bool {
        let is_any_port = wanted.port() == 0 && is_same_owner;
        self.is_exactly(wanted) || (is_any_port && self.bound.ip() == wanted.ip())
    }

    /// Whether this socket is bound to `wanted`, which has a port.
    fn is_exactly(&self, wanted: SocketAddr) -> bool {
        wanted.port() != 0 && (self.bound == wanted || self.configured == wanted)
    }
}
