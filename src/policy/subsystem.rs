//! Subsystems, their servers and commands, and departments: plain values of a snapshot.
//!
//! Guarantees: immutable. Leaves to `route` and `grant`: which command a request is, and who may run it.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::Method;

use crate::model::CommandKey;
use crate::model::Department;
use crate::model::MonthlyQuota;
use crate::model::Name;
use crate::model::TrafficLimits;

use super::CommandShape;
use super::HealthCheckPolicy;
use super::LoadBalancing;
use super::PathTemplate;
use super::QueuePolicy;
use super::RetryPolicy;
use super::command_shape::MirrorTarget;
use super::command_shape::RedirectTarget;
use super::cors::CorsPolicy;

/// A department with what was decided about it.
#[derive(Debug)]
pub struct DepartmentPolicy {
    /// Who it is.
    pub department: Department,
    /// The value of `X-Tallygate-Department`.
    pub header: HeaderValue,
    /// What limits it.
    pub limits: TrafficLimits,
    /// How much it may use in a month.
    pub quota: Option<MonthlyQuota>,
    /// Whether nobody may call for it at the moment. It keeps its identities: nobody else may claim them.
    pub disabled: bool,
}

/// A subsystem of the city and how to reach it.
#[derive(Debug)]
pub struct Subsystem {
    /// Its id.
    pub id: Name,
    /// A position unique among the subsystems of this snapshot.
    pub index: usize,
    /// The prefix of its paths: empty, or starting with `/` and without a slash at the end.
    pub prefix: String,
    /// Whether the prefix stays on the path that is forwarded.
    pub keep_path: bool,
    /// Its servers; at least one.
    pub upstreams: Vec<UpstreamServer>,
    /// What is spoken with them.
    pub protocol: UpstreamProtocol,
    /// How a server is chosen.
    pub balance: LoadBalancing,
    /// Where commands wait for a server.
    pub queue: QueuePolicy,
    /// How long a server that is new, or well again, takes to get its whole share.
    pub slow_start: Option<Duration>,
    /// How often a failed attempt is made again; without it never.
    pub retries: Option<RetryPolicy>,
    /// How its servers are asked whether they are well; without it, only commands tell.
    pub health_check: Option<HealthCheckPolicy>,
    /// How long to wait.
    pub timeouts: UpstreamTimeouts,
    /// The commands it names.
    pub commands: Vec<Arc<Command>>,
    /// The command all unnamed requests are (`otherCommands: allow`), or none.
    pub other: Option<Arc<Command>>,
    /// What refusals of unnamed requests are counted under.
    pub unknown: CommandKey,
}

/// One server of a subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// What to connect to.
    pub address: UpstreamAddress,
    /// Whether TLS is spoken there.
    pub secure: bool,
    /// Its label in metrics: the URL's authority, or the path of its socket.
    pub authority: String,
    /// How many requests it carries at once, all workers together.
    pub max_requests: Option<usize>,
    /// Its part of the requests, in relation to those of the others, at most [`UpstreamServer::WEIGHT_MAX`]; with 0 it gets none.
    pub weight: u32,
}

impl UpstreamServer {
    /// The largest weight: a thousand steps are finer than anybody needs; nginx has no bound, HAProxy 256.
    pub const WEIGHT_MAX: u32 = 1000;
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamAddress {
    /// A host name or address, without brackets, and a port.
    Tcp(String, u16),
    /// A socket in the file system.
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

/// What is spoken with a subsystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: by ALPN over TLS, by prior knowledge (RFC 9113 section 3.3) in the clear.
    Http2,
}

/// How long to wait for a subsystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the head of an answer, counted from the last progress of the request body.
    pub response: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// The longest that a gRPC call may ask for (`grpc-timeout`).
    pub deadline: Duration,
}

/// The death that an answered command's count survives at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Of the process; of the machine `syncEvery` later.
    #[default]
    Process,
    /// Of the machine: no answer leaves before the disk has its admission.
    Machine,
}

/// A command of a subsystem.
#[derive(Debug)]
pub struct Command {
    /// Who it is.
    pub key: CommandKey,
    /// A position unique among all commands of this snapshot.
    pub index: usize,
    /// The value of `X-Tallygate-Command`: `subsystem/command`.
    pub header: HeaderValue,
    /// The method it answers to; none means any.
    pub method: Option<Method>,
    /// The template of its path below the prefix; `other` commands have none.
    pub path: Option<PathTemplate>,
    /// What one call counts in units.
    pub units: u64,
    /// What limits each department on this command.
    pub limits: TrafficLimits,
    /// The largest request body, in bytes.
    pub body_max: u64,
    /// The protocol that its connection may switch to (RFC 9110 section 7.8), such as `websocket`.
    pub upgrade: Option<HeaderValue>,
    /// When its answers may leave.
    pub durability: Durability,
    /// What is done to it on its way, if anything.
    pub shape: Option<Box<CommandShape>>,
}

/// A rule of `grants`, as written, for `explain`.
#[derive(Clone, Debug)]
pub struct GrantRule {
    /// Its position in the document.
    pub index: usize,
    /// The glob that matched.
    pub pattern: String,
}

impl Subsystem {
    /// Servers of one subsystem at most: as many as a request can remember having tried.
    pub const UPSTREAMS_MAX: usize = 64;
}

impl Command {
    /// What browsers are told about it.
    pub fn cors(&self) -> Option<&Arc<CorsPolicy>> {
        self.shape.as_ref()?.cors.as_ref()
    }

    /// Where copies of its requests go.
    pub fn mirror(&self) -> Option<MirrorTarget> {
        self.shape.as_ref()?.mirror
    }

    /// Where its callers are sent, instead of anything being forwarded.
    pub fn redirect(&self) -> Option<&RedirectTarget> {
        self.shape.as_ref()?.redirect.as_ref()
    }
}

impl Subsystem {
    /// A path and query below this subsystem's path; the first '/' may be missing.
    pub fn path_below<'t>(&self, target: &'t str) -> &'t str {
        target.strip_prefix(self.prefix.as_str()).unwrap_or(target)
    }

    /// What is forwarded of the path and query that `command` was authorised for; its first '/' may be missing.
    pub fn forwarded_target<'t>(&self, command: &Command, authorised: &'t str) -> Cow<'t, str> {
        match command.shape.as_ref().and_then(|shape| shape.rewrite.as_ref()) {
            Some(rewrite) => Cow::Owned(rewrite.rewritten_path(self.path_below(authorised))),
            None if self.keep_path => Cow::Borrowed(authorised),
            None => Cow::Borrowed(self.path_below(authorised)),
        }
    }
}
