//! Settings that are read once, at start: plain values.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::identity::SubsystemTlsFiles;
use crate::identity::TlsFiles;
use crate::model::CalendarOffset;
use crate::model::Name;
use crate::model::NetworkRanges;
use crate::policy::Durability;

/// How one subsystem is met over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubsystemTlsSettings {
    /// Its position among the subsystems of all files.
    pub index: usize,
    /// Its id.
    pub name: Name,
    /// Keys and trust.
    pub files: SubsystemTlsFiles,
}

/// What is read once, at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// The gateway's name in ledger and logs (`gateway:`, default `tallygate`).
    pub gateway: Name,
    /// Where callers come in; at least one.
    pub listeners: Vec<ListenerSettings>,
    /// Where operators come in.
    pub admin: Option<SocketAddr>,
    /// Names that operators come in by, beside addresses and `localhost`.
    pub admin_hosts: Vec<String>,
    /// The book's path.
    pub ledger_path: PathBuf,
    /// The durability of commands that name none.
    pub durability: Durability,
    /// How soon a count survives the death of the machine.
    pub sync_every: Duration,
    /// How old a day is when its hours are forgotten; never, if there is none.
    pub compact_after: Option<Duration>,
    /// Traffic threads; default one per core, at most the smallest `maxRequests` of a server.
    pub workers: usize,
    /// The ledger's calendar.
    pub calendar: CalendarOffset,
    /// How the gateway stops (`shutdown: { delay: 5s, grace: 30s }`).
    pub shutdown: ShutdownSettings,
    /// What one gateway carries at most.
    pub capacity: CapacitySettings,
}

/// A place where callers come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Its name.
    pub name: Name,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its keys and trust.
    pub tls: TlsFiles,
    /// Connections it carries at most, if fewer than all listeners together.
    pub connections: Option<usize>,
    /// Who stands in front of callers.
    pub proxies: TrustedProxies,
}

/// Who stands in front of a listener's callers, and is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Balancers of TCP that begin each connection with a PROXY header.
    pub protocol: NetworkRanges,
    /// Proxies whose `X-Forwarded-For` is kept.
    pub forwarded_for: NetworkRanges,
}

/// How the gateway stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// Not ready, but still accepting: time for load balancers to notice. Default 5 s.
    pub delay: Duration,
    /// How long commands in flight may take to finish after that. Default 30 s.
    pub grace: Duration,
}

/// What one gateway carries at most (`capacity:`), with the defaults of docs/configuration.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapacitySettings {
    /// Connections from callers, all listeners together. Default 10,000, or as many as file descriptors allow.
    pub connections: Option<usize>,
    /// Connections of one department. Default 1,000: none takes more than a tenth.
    pub department_connections: usize,
    /// Connections from one address. Default 1,000: none takes more than a tenth.
    pub address_connections: usize,
    /// TLS handshakes under way, for a moment twice as many. Default 1,024: some 22 MiB of memory if they all stall.
    pub handshakes: usize,
    /// Commands in flight. Default 20,000.
    pub in_flight: usize,
    /// Series of commands in `/metrics` before departments fold into `other`. Default 20,000.
    pub series: usize,
    /// The largest request head in bytes. Default 32 KiB.
    pub head_bytes: usize,
    /// Fields in a request head. Default 100.
    pub head_fields: usize,
    /// For a whole TLS handshake. Default 10 s.
    pub handshake: Duration,
    /// For a whole HTTP/1.1 head, from its first byte; for the first one, or for what opens HTTP/2, from the handshake.
    /// Default 10 s.
    pub head_time: Duration,
    /// A connection without a command. Default 180 s.
    pub idle: Duration,
    /// Between two pieces of a request body. Default 60 s.
    pub body_idle: Duration,
    /// Bytes a second that a request body must have had on average, once its caller was waited for a while. Default 500.
    pub body_rate: u64,
    /// Between two pieces of an answer that a caller takes. Default 30 s.
    pub response_idle: Duration,
    /// How old a connection becomes, give or take a tenth. Default 1 h.
    pub connection_age: Duration,
    /// Commands that a connection carries before it takes no more. Default any number.
    pub connection_commands: Option<usize>,
    /// Idle connections kept per upstream and worker. Default 64.
    pub upstream_idle: usize,
    /// How long an idle upstream connection is kept. Default 55 s.
    pub upstream_idle_time: Duration,
}
