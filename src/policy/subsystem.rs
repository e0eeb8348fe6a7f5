//! Subsystems with their commands, and departments: plain values of a snapshot.
//!
//! Guarantees:
//! - Immutable.
//! - No value depends on its position in the document: a snapshot shares all that is the same with the one before it.
//!
//! Leaves to others:
//! - routing of a request to a command: `route`;
//! - authorisation: `grant`;
//! - the servers: `backend`.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::model::{AddressLimits, CommandKey, Department, Name, NetworkRanges, Quota, TrafficLimits};

use super::CommandShape;
use super::backend::Backend;
use super::command_backends::CommandBackends;
use super::command_shape::{FieldEdits, MirrorTarget};
use super::cors::CorsPolicy;
use super::request_conditions::CommandMatch;
use super::request_target::{RedirectTarget, RequestRewrite};

/// A department with its limits and quota.
#[derive(Debug)]
pub struct DepartmentPolicy {
    /// The department's id and name.
    pub department: Department,
    /// The value of `X-Tallygate-Department`.
    pub header: HeaderValue,
    /// The rate and concurrency limits of the department.
    pub limits: TrafficLimits,
    /// The quotas, at most one of each kind.
    pub quotas: Vec<Quota>,
    /// Whether the department is disabled: its callers are refused. It keeps its identities, so no other department may
    /// claim them.
    pub disabled: bool,
    /// The realms in which its identities count, in byte order; empty for the realm without a name.
    pub realms: Vec<Name>,
}

impl DepartmentPolicy {
    /// Whether its identities count in a realm; `None` is the realm without a name.
    pub fn counts_in(&self, realm: Option<&Name>) -> bool {
        realm.map_or(self.realms.is_empty(), |realm| self.realms.binary_search(realm).is_ok())
    }
}

/// A subsystem of the city: the routes to its commands.
#[derive(Debug)]
pub struct Subsystem {
    /// Its id.
    pub id: Name,
    /// The listeners and hosts by which it is called; both lists in order.
    pub scope: RouteScope,
    /// The prefix of its paths: empty, or starting with `/` and without a trailing slash.
    pub prefix: String,
    /// Whether the forwarded path keeps the prefix.
    pub keep_path: bool,
    /// Its own servers, under its id; `None` if each of its commands names its backends.
    pub backend: Option<Arc<Backend>>,
    /// The timeouts of its commands, unless a command sets its own.
    pub timeouts: CommandTimeouts,
    /// The named commands.
    pub commands: Vec<Arc<Command>>,
    /// The command for all unnamed requests (`otherCommands: allow`), if any.
    pub other: Option<Arc<Command>>,
    /// Whether unnamed requests are offered to less specific subsystems (`otherCommands: next`).
    pub passes_on: bool,
    /// Whether its matches may be equal to earlier ones, which then win.
    pub is_shadowable: bool,
    /// How its TLS connections are forwarded, each of which is one command; `None` if its commands are HTTP requests.
    pub tls_mode: Option<ConnectionMode>,
    /// The department that owns its connections (`department`). Only with [`ConnectionMode::Passthrough`], where the
    /// gateway sees no client certificate; without it, that of the listener's callers without a certificate.
    pub owner: Option<Arc<DepartmentPolicy>>,
    /// The key under which refusals of unnamed requests are counted.
    pub unknown: CommandKey,
}

/// The listeners and hosts by which a subsystem is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteScope {
    /// Names, `*.suffix` or `**.suffix`, in lower case and in byte order; empty for any host.
    pub hosts: Vec<String>,
    /// The places at which the subsystem is called, in order; empty for all listeners.
    pub listeners: Vec<ListenerScope>,
}

impl RouteScope {
    /// The scope of these hosts and listeners.
    pub fn new(mut hosts: Vec<String>, mut listeners: Vec<ListenerScope>) -> Self {
        hosts.sort();
        listeners.sort();
        Self { hosts, listeners }
    }

    /// The hosts; `None` for any.
    pub(crate) fn claimed_hosts(&self) -> impl Iterator<Item = Option<&str>> {
        let any = self.hosts.is_empty().then_some(None);
        self.hosts.iter().map(|host| Some(host.as_str())).chain(any)
    }
}

/// A listener, or one of its virtual hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerScope {
    /// The listener.
    pub listener: Name,
    /// The virtual host; `None` for the whole listener.
    pub virtual_host: Option<Name>,
}

/// How TLS connections are forwarded (Gateway API, `TLSModeType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionMode {
    /// As they are: the server ends TLS. The gateway reads the ClientHello only.
    Passthrough,
    /// The gateway ends TLS with a certificate of the listener, and forwards the decrypted bytes.
    Terminate,
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
    /// The number of its subsystem; see [`Subsystem::number`].
    pub subsystem: u32,
    /// The value of `X-Tallygate-Command`: `subsystem/command`.
    pub header: HeaderValue,
    /// The requests that are this command: any of these; empty for `other` commands.
    pub matches: Vec<CommandMatch>,
    /// The number of units that one call counts.
    pub units: u64,
    /// The limits of each department on this command.
    pub limits: TrafficLimits,
    /// The limits of each client address.
    pub address_limits: Option<Arc<AddressLimits>>,
    /// The client addresses that may call it; `None` for all.
    pub sources: Option<Arc<SourceRanges>>,
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
    /// The backends that its requests are forwarded to.
    pub backends: CommandBackends,
    /// Whether its requests are refused as unknown commands.
    pub is_refused: bool,
}

/// The client addresses that may call a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRanges {
    /// Only these; empty for all.
    pub allow: NetworkRanges,
    /// Not these, even if they are allowed.
    pub deny: NetworkRanges,
}

impl SourceRanges {
    /// Whether a client with this address may call.
    pub fn admits(&self, address: IpAddr) -> bool {
        !self.deny.contains(address) && (self.allow.is_empty() || self.allow.contains(address))
    }
}

impl Command {
    /// The CORS policy of the command.
    pub fn cors(&self) -> Option<&Arc<CorsPolicy>> {
        self.shape.as_ref()?.cors.as_ref()
    }

    /// The edits of the request headers that apply to all its backends.
    pub fn request_edits(&self) -> Option<&FieldEdits> {
        self.shape.as_ref().map(|shape| &shape.request)
    }

    /// The edits of the response headers that apply to all its backends.
    pub fn response_edits(&self) -> Option<&FieldEdits> {
        self.shape.as_ref().map(|shape| &shape.response)
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
    /// The number of its id: the same in every snapshot, and different from that of every other subsystem.
    pub fn number(&self) -> u32 {
        self.unknown.number
    }

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
