//! The settings beside the policy: plain values. Listeners and the access log change with a reload; the others are read
//! once, at start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::identity::{SubsystemTlsFiles, TlsFiles};
use crate::model::{CalendarOffset, Name, NetworkRanges};
use crate::policy::{DownstreamProtocol, Durability, ListenerRouting, VirtualHost};

use super::access_log::AccessLogSettings;
use super::tracing::TracingSettings;

/// The TLS settings towards the servers of one subsystem or backend (upstream).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubsystemTlsSettings {
    /// The path of its `tls` in the document of all files.
    pub(crate) place: String,
    /// The id of the subsystem or backend.
    pub(crate) name: Name,
    /// The files with key, certificate and authorities.
    pub(crate) files: SubsystemTlsFiles,
}

/// The settings of the gateway. A reload applies the listeners, the admin listener and the access log; the others are
/// read once, at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// The gateway's name in ledger and logs (`gateway:`, default `tallygate`).
    pub gateway: Name,
    /// The listeners for callers; at least one.
    pub listeners: Vec<ListenerSettings>,
    /// The address of the admin listener.
    pub admin: Option<SocketAddr>,
    /// The host names under which the admin listener may be called, beside addresses and `localhost`.
    pub admin_hosts: Vec<String>,
    /// The book's path.
    pub ledger_path: PathBuf,
    /// The durability of commands that set none.
    pub durability: Durability,
    /// The interval after which a count survives the failure of the machine.
    pub sync_every: Duration,
    /// The compaction age: days older than this lose their hourly counts. `None` disables compaction.
    pub compact_after: Option<Duration>,
    /// The number of worker threads; default one per core, at most the smallest `maxRequests` of a server.
    pub workers: usize,
    /// The ledger's calendar.
    pub calendar: CalendarOffset,
    /// The graceful shutdown (`shutdown: { delay: 5s, grace: 30s }`).
    pub shutdown: ShutdownSettings,
    /// The capacity limits of one gateway.
    pub capacity: CapacitySettings,
    /// The access log, if there is one. A reload applies it.
    pub access_log: Option<AccessLogSettings>,
    /// Traces, if they are exported.
    pub tracing: Option<TracingSettings>,
}

/// A listener for callers (downstream).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Its name.
    pub name: Name,
    /// The address to bind.
    pub address: SocketAddr,
    /// What callers may send to it.
    pub protocol: DownstreamProtocol,
    /// The TLS files: key, certificate and authorities. `None` for a listener of plain HTTP, and for one that only
    /// passes TLS connections through.
    pub tls: Option<TlsFiles>,
    /// The most connections, if fewer than the limit over all listeners.
    pub connections: Option<usize>,
    /// The trusted proxies in front of the listener.
    pub proxies: TrustedProxies,
    /// The virtual hosts. A reload applies them.
    pub virtual_hosts: Vec<VirtualHost>,
    /// The port at which callers reach the listener, if it is another than that of its address. A reload applies it.
    pub public_port: Option<u16>,
}

impl GatewaySettings {
    /// The listeners with TLS: their positions, settings and files.
    pub fn tls_listeners(&self) -> impl Iterator<Item = (usize, &ListenerSettings, &TlsFiles)> {
        let listeners = self.listeners.iter().enumerate();
        listeners.filter_map(|(index, listener)| Some((index, listener, listener.tls.as_ref()?)))
    }
}

impl ListenerSettings {
    /// The properties of the listener that the policy uses.
    pub(crate) fn routing(&self) -> ListenerRouting {
        ListenerRouting {
            listener: self.name.clone(),
            protocol: self.protocol,
            hosts: self.virtual_hosts.clone(),
            public_port: self.public_port,
        }
    }

    /// Whether a caller without a client certificate can connect.
    pub fn accepts_anonymous(&self) -> bool {
        self.tls.as_ref().is_none_or(TlsFiles::accepts_anonymous)
    }
}

/// The proxies and load balancers in front of a listener whose statements about callers are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// TCP load balancers that begin each connection with a PROXY protocol header.
    pub protocol: NetworkRanges,
    /// Proxies whose `X-Forwarded-For` is kept.
    pub forwarded_for: NetworkRanges,
}

/// The timing of the graceful shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// The delay in which the gateway reports not ready but still accepts, so that load balancers notice; with `quiet`
    /// at most. Default 5 s.
    pub delay: Duration,
    /// The delay ends early when no new connection has come for this time. `None`: it does not.
    pub quiet: Option<Duration>,
    /// The grace period after the delay in which commands in flight may finish. Default 30 s.
    pub grace: Duration,
}

/// The capacity limits of one gateway (`capacity:`), with the defaults of docs/configuration.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapacitySettings {
    /// The most connections from callers, over all listeners. Default 10,000, or the number that file descriptors
    /// allow.
    pub connections: Option<usize>,
    /// The most connections of one department. Default 1,000: at most a tenth of all.
    pub department_connections: usize,
    /// The most connections from one address. Default 1,000: at most a tenth of all.
    pub address_connections: usize,
    /// The most concurrent TLS handshakes; for a short time twice this number. Default 1,024: about 22 MiB of memory if
    /// all of them stall.
    pub handshakes: usize,
    /// The most commands in flight. Default 20,000.
    pub in_flight: usize,
    /// The most series of commands in `/metrics` before departments fold into `other`. Default 20,000.
    pub series: usize,
    /// The largest request head in bytes. Default 32 KiB.
    pub head_bytes: usize,
    /// The most fields in a request head. Default 100.
    pub head_fields: usize,
    /// The timeout of a whole TLS handshake. Default 10 s.
    pub handshake: Duration,
    /// The header timeout of a whole HTTP/1.1 request head, from its first byte. For the first request, or for the
    /// HTTP/2 preface, it counts from the end of the handshake. Default 10 s.
    pub head_time: Duration,
    /// The idle timeout of a connection without a command. Default 180 s.
    pub idle: Duration,
    /// The idle timeout between two pieces of a request body. Default 60 s.
    pub body_idle: Duration,
    /// The minimum rate of a request body: its average in bytes per second, after the gateway has waited for the caller
    /// for a while. Default 500.
    pub body_rate: u64,
    /// The write timeout between two pieces of a response that a caller accepts. Default 30 s.
    pub response_idle: Duration,
    /// The maximum age of a connection, with a jitter of plus or minus 10 %. Default 1 h.
    pub connection_age: Duration,
    /// The most commands on one connection; then it is closed gracefully. Default unlimited.
    pub connection_commands: Option<usize>,
    /// The most idle connections in the pool per upstream and worker. Default 64.
    pub upstream_idle: usize,
    /// The idle timeout of a pooled upstream connection. Default 55 s.
    pub upstream_idle_time: Duration,
}
