//! Backends: groups of servers that commands are forwarded to. Plain values of a snapshot.
//!
//! Guarantees:
//! - Immutable.
//! - A backend that belongs to a subsystem has the id of that subsystem. All ids of backends are different.
//!
//! Leaves to others:
//! - the choice of the backend for a command: `command_backends`;
//! - the choice of the server inside a backend: `proxy::upstream`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::Name;

use super::{HealthCheckPolicy, LoadBalancing, QueuePolicy, RetryPolicy};

/// A group of servers that do the same work.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its id: the value of the label `subsystem` in the metrics of its servers.
    pub id: Name,
    /// The number of its id: the same in every snapshot, and different from that of every other backend.
    pub number: u32,
    /// Whether the subsystem with the same id lists the servers, and not `backends` of the configuration.
    pub is_own: bool,
    /// Its servers, at most [`Backend::UPSTREAMS_MAX`]. Without servers, its commands are answered with 503.
    pub upstreams: Vec<UpstreamServer>,
    /// Where its servers come from, if the configuration does not list them.
    pub discovery: Option<EndpointDiscovery>,
    /// The protocol that its servers use.
    pub protocol: UpstreamProtocol,
    /// The load balancing policy.
    pub balance: LoadBalancing,
    /// The queue for commands while no server has capacity.
    pub queue: QueuePolicy,
    /// The slow start: the time in which a new or recovered server reaches its full share of requests.
    pub slow_start: Option<Duration>,
    /// The retry policy; `None` disables retries.
    pub retries: Option<RetryPolicy>,
    /// The active health check; without it only the results of commands determine the health of a server.
    pub health_check: Option<HealthCheckPolicy>,
    /// The timeouts towards its servers.
    pub timeouts: BackendTimeouts,
}

impl Backend {
    /// The most servers of one backend. A Kubernetes Service with more endpoints is rare.
    pub const UPSTREAMS_MAX: usize = 1024;

    /// Whether `other` is the same group of servers with the same policies, wherever the snapshots have the two.
    pub fn is_same_group(&self, other: &Self) -> bool {
        let Self {
            id,
            number: _,
            is_own,
            upstreams,
            discovery,
            protocol,
            balance,
            queue,
            slow_start,
            retries,
            health_check,
            timeouts,
        } = self;
        (id, is_own, upstreams, discovery, protocol, balance)
            == (&other.id, &other.is_own, &other.upstreams, &other.discovery, &other.protocol, &other.balance)
            && (queue, slow_start, retries, health_check, timeouts)
                == (&other.queue, &other.slow_start, &other.retries, &other.health_check, &other.timeouts)
    }

    /// Whether its servers use TLS. All of them do, or none.
    pub fn is_secure(&self) -> bool {
        let first = || self.upstreams.first().is_some_and(|server| server.secure);
        self.discovery.as_ref().map_or_else(first, |discovery| discovery.is_secure)
    }
}

/// The source of the servers of a discovered backend: the endpoints of a service (see [`super::EndpointSets`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointDiscovery {
    /// The service, as the discovery names it.
    pub service: Box<str>,
    /// The name of its port.
    pub port: Box<str>,
    /// Whether connections use TLS.
    pub is_secure: bool,
}

/// One server of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// The address to connect to.
    pub address: UpstreamAddress,
    /// Whether connections use TLS.
    pub secure: bool,
    /// Its label in metrics: the URL's authority, or the path of its socket.
    pub authority: String,
    /// The most requests in flight on the server, over all workers.
    pub max_requests: Option<usize>,
    /// The weight: the server's share of the requests relative to the other servers, at most
    /// [`UpstreamServer::WEIGHT_MAX`]. A server with weight 0 gets no requests.
    pub weight: u32,
}

impl UpstreamServer {
    /// The largest weight. A thousand steps are fine enough; nginx has no bound, HAProxy 256.
    pub const WEIGHT_MAX: u32 = 1000;
}

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamAddress {
    /// A host name or an IP address without brackets, and a port.
    Tcp(String, u16),
    /// The path of a Unix domain socket.
    Unix(PathBuf),
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The protocol of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: by ALPN over TLS, by prior knowledge (RFC 9113 section 3.3) over cleartext.
    Http2,
    /// The bytes of TLS connections ([`ConnectionMode`](super::ConnectionMode)). Towards a server with TLS there is no
    /// ALPN.
    Tcp,
}

/// The timeouts towards the servers of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendTimeouts {
    /// The connect timeout.
    pub connect: Duration,
    /// The response timeout: for the head of a response, counted from the last progress of the request body.
    pub response: Duration,
    /// The idle timeout: between two pieces of a body.
    pub idle: Duration,
    /// The longest deadline that a gRPC call may ask for (`grpc-timeout`).
    pub deadline: Duration,
}
