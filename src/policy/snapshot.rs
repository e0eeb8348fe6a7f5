//! The compiled configuration that traffic runs on.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};

use crate::model::{CallerId, CommandKey, Department, Limits, Name, Quota, Rate};

use super::grant::GrantTable;
use super::{Balance, HealthCheck, PathTemplate, Queue, Retries, RouteTable, Shape};

/// Everything traffic needs to know, compiled once per configuration and never changed after.
#[derive(Debug)]
pub struct Snapshot {
    /// The first 12 hex digits of the document's SHA-256: names the configuration in metrics and `/config`.
    pub version: String,
    /// The limit on the whole gateway.
    pub total: Option<Rate>,
    /// All departments, in the order of the document.
    pub departments: Vec<Arc<DepartmentPolicy>>,
    /// All subsystems, in the order of the document.
    pub subsystems: Vec<Arc<Subsystem>>,
    /// Which department claims an identity.
    pub(super) callers: HashMap<CallerId, Arc<DepartmentPolicy>>,
    /// Which command a request is.
    pub(super) routes: RouteTable,
    /// Who may run what.
    pub(super) grants: GrantTable,
}

/// A department with what was decided about it.
#[derive(Debug)]
pub struct DepartmentPolicy {
    /// Who it is.
    pub department: Department,
    /// The value of `X-Tallygate-Department`.
    pub header: HeaderValue,
    /// What limits it.
    pub limits: Limits,
    /// How much it may use in a month.
    pub quota: Option<Quota>,
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
    pub upstreams: Vec<Upstream>,
    /// What is spoken with them.
    pub protocol: Protocol,
    /// How a server is chosen.
    pub balance: Balance,
    /// Where commands wait for a server.
    pub queue: Queue,
    /// How long a server that is new, or well again, takes to get its whole share.
    pub slow_start: Option<Duration>,
    /// How often a failed attempt is made again; without it never.
    pub retries: Option<Retries>,
    /// How its servers are asked whether they are well; without it, only commands tell.
    pub health_check: Option<HealthCheck>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// The commands it names.
    pub commands: Vec<Arc<Command>>,
    /// The command all unnamed requests are (`otherCommands: allow`), or none.
    pub other: Option<Arc<Command>>,
    /// What refusals of unnamed requests are counted under.
    pub unknown: CommandKey,
}

/// One server of a subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// What to connect to.
    pub address: Address,
    /// Whether TLS is spoken there.
    pub secure: bool,
    /// Its label in metrics: the URL's authority, or the path of its socket.
    pub authority: String,
    /// How many requests it carries at once, all workers together.
    pub max_requests: Option<usize>,
    /// Its part of the requests, in relation to those of the others, at most [`Upstream::WEIGHT_MAX`]; with 0 it gets none.
    pub weight: u32,
}

impl Upstream {
    /// The largest weight: a thousand steps are finer than anybody needs; nginx has no bound, HAProxy 256.
    pub const WEIGHT_MAX: u32 = 1000;
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host name or address, without brackets, and a port.
    Tcp(String, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What is spoken with a subsystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: by ALPN over TLS, by prior knowledge (RFC 9113 section 3.3) in the clear.
    Http2,
}

/// How long to wait for a subsystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
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
    pub limits: Limits,
    /// The largest request body, in bytes.
    pub body_max: u64,
    /// The protocol that its connection may switch to (RFC 9110 section 7.8), such as `websocket`.
    pub upgrade: Option<HeaderValue>,
    /// When its answers may leave.
    pub durability: Durability,
    /// What is done to it on its way, if anything.
    pub shape: Option<Box<Shape>>,
}

/// A rule of `grants`, as written, for `explain`.
#[derive(Clone, Debug)]
pub struct GrantRule {
    /// Its position in the document.
    pub index: usize,
    /// The glob that matched.
    pub pattern: String,
}

/// Why no department can be named for a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unclaimed {
    /// No department claims any of its identities.
    Nobody,
    /// Two departments claim identities of one certificate.
    Several(Name, Name),
    /// The department that claims them is disabled.
    Disabled(Name),
}

impl Subsystem {
    /// Servers of one subsystem at most: as many as a request can remember having tried.
    pub const UPSTREAMS_MAX: usize = 64;
}

impl Snapshot {
    /// The one department that claims these identities.
    pub fn department_of(&self, identities: &[CallerId]) -> Result<&Arc<DepartmentPolicy>, Unclaimed> {
        let mut claimed = identities.iter().filter_map(|identity| self.callers.get(identity));
        let first = claimed.next().ok_or(Unclaimed::Nobody)?;
        match claimed.find(|other| other.department.id != first.department.id) {
            Some(other) => Err(Unclaimed::Several(first.department.id.clone(), other.department.id.clone())),
            None if first.disabled => Err(Unclaimed::Disabled(first.department.id.clone())),
            None => Ok(first),
        }
    }

    /// Which of these identities a department claims: the name that a caller has in this city.
    pub fn claimed<'a>(&self, identities: &'a [CallerId]) -> Option<&'a CallerId> {
        identities.iter().find(|identity| self.claims(identity))
    }

    /// Whether a department claims this identity.
    pub fn claims(&self, identity: &CallerId) -> bool {
        self.callers.contains_key(identity)
    }

    /// What a request is: see [`super::Route`].
    pub fn route(&self, host: &str, method: &Method, path: &str) -> super::Route<'_> {
        self.routes.find(self, host, method, path)
    }

    /// The methods of the commands at a path, where [`Snapshot::route`] finds none for the method that was asked for. In byte
    /// order; empty, if the path is none of a command.
    pub fn methods_at(&self, host: &str, path: &str) -> Vec<&str> {
        self.routes.methods_at(host, path)
    }

    /// Whether this department may run this command, and by which rule.
    pub fn grant(&self, department: &DepartmentPolicy, command: &Command) -> Option<super::Grant> {
        self.grants.find(department, command)
    }

    /// The departments that no rule lets run anything, disabled ones left out, and how many are not disabled at all.
    pub fn departments_without_grant(&self) -> (Vec<&DepartmentPolicy>, usize) {
        let granted = self.grants.departments();
        let enabled = || self.departments.iter().filter(|policy| !policy.disabled);
        let without = enabled().filter(|policy| !granted.contains(&policy.department.number));
        (without.map(|policy| &**policy).collect(), enabled().count())
    }

    /// The rules that allow nothing which an earlier rule does not allow.
    pub fn idle_rules(&self) -> impl Iterator<Item = &GrantRule> {
        self.grants.idle_rules()
    }

    /// The hosts a subsystem of this snapshot is called by, lower case; none means any.
    pub fn hosts_of(&self, subsystem: &Subsystem) -> Vec<&str> {
        self.routes.hosts_of(subsystem.index)
    }

    /// How many pairs of a department and a command are granted: so many series the ledger may count.
    pub fn granted_series(&self) -> usize {
        self.grants.len()
    }

    /// The rule behind a grant of this snapshot, as it was written.
    pub fn rule(&self, grant: &super::Grant) -> &GrantRule {
        self.grants.rule(grant)
    }

    /// The default largest request body: 1 MiB, as nginx has it.
    pub const BODY_MAX_DEFAULT: u64 = 1024 * 1024;

    /// How many limiters of one kind may exist; beyond it a new key is refused.
    pub const LIMITERS_MAX: NonZeroU32 = NonZeroU32::new(100_000).expect("not zero");
}
