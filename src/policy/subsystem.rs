//! Subsystems (upstreams) with their servers and commands, and departments: plain values of a snapshot.
//!
//! Guarantees: immutable.
//!
//! Leaves to others:
//! - routing of a request to a command: `route`;
//! - authorisation: `grant`.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::model::{CommandKey, Department, MonthlyQuota, Name, TrafficLimits};

use super::command_shape::MirrorTarget;
use super::cors::CorsPolicy;
use super::request_conditions::CommandMatch;
use super::request_target::{RedirectTarget, RequestRewrite};
use super::{CommandShape, HealthCheckPolicy, LoadBalancing, QueuePolicy, RetryPolicy};

/// A department with its limits and quota.
#[derive(Debug)]
pub struct DepartmentPolicy {
    /// The department's id and name.
    pub department: Department,
    /// The value of `X-Tallygate-Department`.
    pub header: HeaderValue,
    /// The rate and concurrency limits of the department.
    pub limits: TrafficLimits,
    /// The monthly quota.
    pub quota: Option<MonthlyQuota>,
    /// Whether the department is disabled: its callers are refused. It keeps its identities, so no other department may
    /// claim them.
    pub disabled: bool,
}

/// A subsystem of the city, and its servers.
#[derive(Debug)]
pub struct Subsystem {
    /// Its id.
    pub id: Name,
    /// The position among the subsystems of this snapshot; unique.
    pub index: usize,
    /// The prefix of its paths: empty, or starting with `/` and without a trailing slash.
    pub prefix: String,
    /// Whether the forwarded path keeps the prefix.
    pub keep_path: bool,
    /// Its servers; at least one.
    pub upstreams: Vec<UpstreamServer>,
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
    pub timeouts: UpstreamTimeouts,
    /// The named commands.
    pub commands: Vec<Arc<Command>>,
    /// The command for all unnamed requests (`otherCommands: allow`), if any.
    pub other: Option<Arc<Command>>,
    /// Whether unnamed requests are offered to less specific subsystems (`otherCommands: next`).
    pub passes_on: bool,
    /// Whether its matches may be equal to earlier ones, which then win.
    pub is_shadowable: bool,
    /// The key under which refusals of unnamed requests are counted.
    pub unknown: CommandKey,
}

/// One server of a subsystem.
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

/// The protocol of a subsystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: by ALPN over TLS, by prior knowledge (RFC 9113 section 3.3) over cleartext.
    Http2,
}

/// The timeouts towards a subsystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// The connect timeout.
    pub connect: Duration,
    /// The response timeout: for the head of a response, counted from the last progress of the request body.
    pub response: Duration,
    /// The idle timeout: between two pieces of a body.
    pub idle: Duration,
    /// The longest deadline that a gRPC call may ask for (`grpc-timeout`).
    pub deadline: Duration,
    /// The timeouts of its commands, unless a command sets its own.
    pub command: CommandTimeouts,
}

/// The timeouts of a command as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandTimeouts {
    /// The request timeout: from the arrival of the command to the last byte of its response.
    pub request: Option<Duration>,
    /// The attempt timeout: from the moment an attempt begins to be sent to the last byte of its response.
    pub attempt: Option<Duration>,
}

/// The kind of failure that the count of an answered command survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Survives the end of the process at once, and the end of the machine after `syncEvery`.
    #[default]
    Process,
    /// Survives the end of the machine: no response is sent before the admission is on disk.
    Machine,
}

/// A command of a subsystem.
#[derive(Debug)]
pub struct Command {
    /// The command's identity.
    pub key: CommandKey,
    /// The position among all commands of this snapshot; unique.
    pub index: usize,
    /// The value of `X-Tallygate-Command`: `subsystem/command`.
    pub header: HeaderValue,
    /// The requests that are this command: any of these; empty for `other` commands.
    pub matches: Vec<CommandMatch>,
    /// The number of units that one call counts.
    pub units: u64,
    /// The limits of each department on this command.
    pub limits: TrafficLimits,
    /// The largest request body, in bytes.
    pub body_max: u64,
    /// The protocol to which a connection may be upgraded (RFC 9110 section 7.8), such as `websocket`.
    pub upgrade: Option<HeaderValue>,
    /// The durability that a response waits for.
    pub durability: Durability,
    /// The timeouts of the command: its own, or those of its subsystem.
    pub timeouts: CommandTimeouts,
    /// The transformations of the command, if there are any.
    pub shape: Option<Box<CommandShape>>,
}

/// A rule of `grants` as written, for `explain`.
#[derive(Clone, Debug)]
pub struct GrantRule {
    /// Its position in the document.
    pub index: usize,
    /// The glob that matched.
    pub pattern: String,
}

impl Subsystem {
    /// The most servers of one subsystem: a request remembers the tried servers in a bit set of this size.
    pub const UPSTREAMS_MAX: usize = 64;
}

impl Command {
    /// The CORS policy of the command.
    pub fn cors(&self) -> Option<&Arc<CorsPolicy>> {
        self.shape.as_ref()?.cors.as_ref()
    }

    /// The targets of request mirroring.
    pub fn mirrors(&self) -> &[MirrorTarget] {
        self.shape.as_ref().map_or(&[], |shape| &shape.mirrors)
    }

    /// The forwarded host, if it differs from the requested one.
    pub fn forwarded_host(&self) -> Option<&HeaderValue> {
        self.rewrite()?.host.as_ref()
    }

    fn rewrite(&self) -> Option<&RequestRewrite> {
        self.shape.as_ref()?.rewrite.as_ref()
    }

    /// The redirect target, if callers are redirected and nothing is forwarded.
    pub fn redirect(&self) -> Option<&RedirectTarget> {
        self.shape.as_ref()?.redirect.as_ref()
    }
}

impl Subsystem {
    /// The path and query below this subsystem's prefix; its first '/' may be missing.
    pub fn path_below<'t>(&self, target: &'t str) -> &'t str {
        target.strip_prefix(self.prefix.as_str()).unwrap_or(target)
    }

    /// The forwarded form of the path and query for which `command` was authorised; its first '/' may be missing.
    pub fn forwarded_target<'t>(&self, command: &Command, authorised: &'t str) -> Cow<'t, str> {
        match command.rewrite().and_then(|rewrite| rewrite.path.as_ref()) {
            Some(rewrite) => Cow::Owned(rewrite.rewritten_path(self.path_below(authorised))),
            None if self.keep_path => Cow::Borrowed(authorised),
            None => Cow::Borrowed(self.path_below(authorised)),
        }
    }
}
