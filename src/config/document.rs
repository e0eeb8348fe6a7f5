//! What a configuration file looks like: the shapes of the document, and nothing of their meaning.
//!
//! Leaf values (rates, durations, sizes, names, addresses) stay text here and are read in `compile`, so that every
//! problem is found in one go. `docs/config.schema.json` is made from these types.

mod servers;
mod shaping;

use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

pub(super) use servers::{Balance, HashBy, HealthCheck, Queue, Retries};
pub(super) use shaping::{Cors, HeaderEdits, Headers, Mirror, Redirect, Rewrite};

/// A Tallygate configuration.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, title = "Tallygate configuration")]
pub(super) struct Document {
    /// Files with more departments, subsystems and grants: paths and globs, relative to this file, such as
    /// departments.d/*.yaml.
    #[serde(default)]
    pub(super) include: Vec<String>,
    /// The gateway's name in ledger and logs. Default: tallygate.
    pub(super) gateway: Option<String>,
    /// Where callers come in; at least one.
    #[serde(default)]
    pub(super) listeners: Vec<Listener>,
    /// Where operators come in.
    pub(super) admin: Option<Admin>,
    /// Where and how usage is kept.
    pub(super) ledger: Ledger,
    /// In which calendar days and months are read.
    pub(super) calendar: Option<Calendar>,
    /// Traffic threads. Default: one per core, at most the smallest maxRequests of a server.
    pub(super) workers: Option<u64>,
    /// Limits on the whole gateway.
    pub(super) limits: Option<GatewayLimits>,
    /// Who may call; at least one.
    #[serde(default)]
    pub(super) departments: Vec<Arc<Department>>,
    /// What may be called.
    #[serde(default)]
    pub(super) subsystems: Vec<Arc<Subsystem>>,
    /// Who may run what; nothing is allowed that no grant names.
    #[serde(default)]
    pub(super) grants: Vec<Arc<Grant>>,
    /// How the gateway stops.
    pub(super) shutdown: Option<Shutdown>,
    /// What one gateway carries at most.
    pub(super) capacity: Option<Capacity>,
}

/// A file that is included: lists that go on where those of the main file end.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part {
    #[serde(default)]
    pub(super) departments: Vec<Arc<Department>>,
    #[serde(default)]
    pub(super) subsystems: Vec<Arc<Subsystem>>,
    #[serde(default)]
    pub(super) grants: Vec<Arc<Grant>>,
}

/// A place where callers come in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Listener {
    /// Its name.
    pub(super) name: String,
    /// IP address and port, such as 0.0.0.0:8443.
    pub(super) address: String,
    /// Its keys and trust.
    pub(super) tls: Tls,
    /// Connections it carries at most. Default: capacity.connections.
    pub(super) connections: Option<u64>,
    /// Ranges of balancers that begin each connection with a PROXY header (version 1 or 2), and are believed.
    #[serde(default)]
    pub(super) proxy_protocol: Vec<String>,
    /// Ranges of proxies whose X-Forwarded-For is kept, and added to.
    #[serde(default)]
    pub(super) forwarded_for: Vec<String>,
}

/// Keys and trust of a listener.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Tls {
    /// PEM chain, own certificate first.
    pub(super) certificate: PathBuf,
    /// PEM key.
    pub(super) key: PathBuf,
    /// How callers show who they are.
    pub(super) client_auth: Option<ClientAuth>,
    /// The hosts that are served: names, *.name for one label below it, addresses, or * for any. Default: those of the
    /// certificate.
    pub(super) server_names: Option<Vec<String>>,
    /// What becomes of callers whose handshake names no host: allow (default) or refuse.
    pub(super) missing_server_name: Option<String>,
}

/// How client certificates are asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct ClientAuth {
    /// required (default) or optional.
    pub(super) mode: Option<String>,
    /// PEM bundles of certificate authorities; at least one.
    #[serde(default)]
    pub(super) authorities: Vec<PathBuf>,
    /// PEM revocation lists.
    #[serde(default)]
    pub(super) revocation: Vec<PathBuf>,
    /// What becomes of callers whose authority's revocation list has expired: refuse (default) or allow.
    pub(super) expired_revocation: Option<String>,
}

/// Where operators come in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Admin {
    /// IP address and port, such as 127.0.0.1:9090.
    pub(super) address: String,
    /// Names that are answered for, beside IP addresses and localhost. Default: none.
    pub(super) hosts: Option<Vec<String>>,
}

/// Where and how usage is kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Ledger {
    /// The book, a SQLite file; the tally lies beside it.
    pub(super) path: PathBuf,
    /// The death that an answered command's count survives at once: process (default) or machine.
    pub(super) durability: Option<String>,
    /// How soon a count also survives the death of the machine. Default: 50ms.
    pub(super) sync_every: Option<String>,
    /// How old a day is when its hours are forgotten and only its sums are kept, or never. Default: 92d.
    pub(super) compact_after: Option<String>,
}

/// In which calendar days and months are read.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Calendar {
    /// Whole hours from UTC. Default: "+08:00".
    pub(super) offset: Option<String>,
}

/// Limits on the whole gateway.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct GatewayLimits {
    /// How fast all departments together may call.
    pub(super) total: Option<TotalLimit>,
}

/// How fast all departments together may call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct TotalLimit {
    /// N/s, N/m or N/h.
    pub(super) rate: String,
    /// How many may come at once after a rest. Default: the number in the rate.
    pub(super) burst: Option<u64>,
}

/// How fast, and how many at once.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Limits {
    /// N/s, N/m or N/h.
    pub(super) rate: Option<String>,
    /// How many may come at once after a rest. Default: the number in the rate.
    pub(super) burst: Option<u64>,
    /// How many may be in flight at once.
    pub(super) concurrent: Option<u64>,
}

/// Who pays and who is limited.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Department {
    /// What ledger, metrics and bill call it, for ever.
    pub(super) id: String,
    /// What people call it. Default: the id.
    pub(super) name: Option<String>,
    /// The certificates that call for it; at least one.
    #[serde(default)]
    pub(super) callers: Vec<Caller>,
    /// What limits it.
    pub(super) limits: Option<Limits>,
    /// How much it may use in a month.
    pub(super) quota: Option<Quota>,
    /// Whether nobody may call for it at the moment. Default: false.
    pub(super) disabled: Option<bool>,
}

/// One identity in a certificate: exactly one of the three.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Caller {
    /// A URI SAN, such as spiffe://city.example/department/traffic-police.
    pub(super) uri: Option<String>,
    /// A DNS SAN.
    pub(super) dns: Option<String>,
    /// A subject.
    pub(super) subject: Option<Subject>,
}

/// The subject of a certificate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Subject {
    /// Its commonName.
    pub(super) common_name: String,
    /// Its organizationalUnit, if it must have exactly that one; without it, the commonName alone decides.
    pub(super) organizational_unit: Option<String>,
}

/// How much a department may use.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Quota {
    /// The period: month.
    pub(super) per: String,
    /// Units per period.
    pub(super) units: u64,
    /// Percentages of use at which operators are warned, ascending.
    #[serde(default)]
    pub(super) warn: Vec<u64>,
    /// What happens beyond: refuse (default) or allow.
    pub(super) exceeded: Option<String>,
}

/// A system of the city.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Subsystem {
    /// What ledger, metrics and bill call it.
    pub(super) id: String,
    /// The hosts it is called by. Default: any.
    pub(super) hosts: Option<Vec<String>>,
    /// The prefix of its paths, such as /cameras. Default: /.
    pub(super) path: Option<String>,
    /// Whether the prefix stays on the path that is forwarded. Default: false.
    pub(super) keep_path: Option<bool>,
    /// Its servers; at least one.
    #[serde(default)]
    pub(super) upstreams: Vec<Upstream>,
    /// What its servers speak: http1 (default) or http2.
    pub(super) protocol: Option<String>,
    /// For servers with an https URL.
    pub(super) tls: Option<SubsystemTls>,
    /// How a server is chosen. Default: leastRequest.
    pub(super) balance: Option<Balance>,
    /// Where commands wait when all servers that are well carry as many as they may.
    pub(super) queue: Option<Queue>,
    /// How long a server that is new, or well again, takes to get its whole share. Default: no time.
    pub(super) slow_start: Option<String>,
    /// How often a failed attempt is made again. Default: never.
    pub(super) retries: Option<Retries>,
    /// How its servers are asked whether they are well. Default: not at all, only commands tell.
    pub(super) health_check: Option<HealthCheck>,
    /// How long to wait for it.
    pub(super) timeouts: Option<Timeouts>,
    /// The commands it names.
    #[serde(default)]
    pub(super) commands: Vec<Command>,
    /// Fields that are set or removed, for all its commands.
    pub(super) headers: Option<Headers>,
    /// Which pages a browser lets read its answers, for all its commands.
    pub(super) cors: Option<Cors>,
    /// Whether answers of its commands are compressed for callers that take that. Default: false.
    pub(super) compress: Option<bool>,
    /// What happens to requests that are none of its commands: refuse (default) or allow.
    pub(super) other_commands: Option<String>,
}

/// How the gateway and a subsystem prove themselves to each other over TLS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct SubsystemTls {
    /// PEM bundles of the authorities that may name the subsystem; at least one.
    #[serde(default)]
    pub(super) authorities: Vec<PathBuf>,
    /// The gateway's own PEM chain, for a subsystem that asks who calls; with key.
    pub(super) certificate: Option<PathBuf>,
    /// The key of that certificate.
    pub(super) key: Option<PathBuf>,
    /// The name that the subsystem's certificate must hold. Default: the host of its URL.
    pub(super) server_name: Option<String>,
}

/// One server of a subsystem.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Upstream {
    /// <http://host:port>, <https://host:port> or unix:/path/of/socket
    pub(super) url: String,
    /// How many requests it carries at once. Default: any number.
    pub(super) max_requests: Option<u64>,
    /// Its part of the requests, in relation to those of the others, 0 to 1000; with 0 it gets none. Default: 1.
    pub(super) weight: Option<u64>,
}

/// How long to wait for a subsystem.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Timeouts {
    /// For a connection. Default: 2s.
    pub(super) connect: Option<String>,
    /// For the head of an answer. Default: 15s.
    pub(super) response: Option<String>,
    /// Between two pieces of a body. Default: 5m.
    pub(super) idle: Option<String>,
    /// The longest that a gRPC call may ask for (grpc-timeout). Default: 1h.
    pub(super) deadline: Option<String>,
}

/// A named operation of a subsystem.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Command {
    /// What ledger, metrics and bill call it.
    pub(super) id: String,
    /// Which requests it is.
    pub(super) r#match: Match,
    /// What one call counts in units. Default: 1.
    pub(super) units: Option<u64>,
    /// What limits each department on it.
    pub(super) limits: Option<Limits>,
    /// What its request body may be.
    pub(super) body: Option<Body>,
    /// The protocol its connection may switch to, such as websocket. Default: none.
    pub(super) upgrade: Option<String>,
    /// Fields that are set or removed; what the subsystem says about the same fields does not hold for it.
    pub(super) headers: Option<Headers>,
    /// Another path for what is forwarded.
    pub(super) rewrite: Option<Rewrite>,
    /// Where its callers are sent, instead of anything being forwarded.
    pub(super) redirect: Option<Redirect>,
    /// Which pages a browser lets read its answers; in the place of all that the subsystem says about it.
    pub(super) cors: Option<Cors>,
    /// Where copies of its requests go, whose answers nobody reads.
    pub(super) mirror: Option<Mirror>,
    /// Whether its answers are compressed for callers that take that. Default: what the subsystem says.
    pub(super) compress: Option<bool>,
    /// As ledger.durability, for this command.
    pub(super) durability: Option<String>,
}

/// Which requests a command is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Match {
    /// GET, POST, ... Default: any.
    pub(super) method: Option<String>,
    /// The path below the subsystem's: literal segments, {name} for one, {*name} for the rest.
    pub(super) path: Option<String>,
    /// Instead of method and path, a gRPC method: package.Service/Method, or package.Service/* for all of a service.
    pub(super) grpc: Option<String>,
}

/// What a request body may be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Body {
    /// The largest, such as 16MiB. Default: 1MiB.
    pub(super) max: Option<String>,
}

/// Who may run what.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Grant {
    /// The department's id.
    pub(super) department: String,
    /// The subsystem's id.
    pub(super) subsystem: String,
    /// Globs on command ids; at least one.
    #[serde(default)]
    pub(super) commands: Vec<String>,
}

/// How the gateway stops.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Shutdown {
    /// Not ready, but still accepting. Default: 5s.
    pub(super) delay: Option<String>,
    /// How long commands in flight may take to finish. Default: 30s.
    pub(super) grace: Option<String>,
}

/// What one gateway carries at most.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(super) struct Capacity {
    /// Connections from callers, all listeners together. Default: 10000, or as many as file descriptors allow.
    pub(super) connections: Option<u64>,
    /// Connections of one department. Default: 1000.
    pub(super) department_connections: Option<u64>,
    /// Connections from one IPv4 address, or from one IPv6 network of 64 bits. Default: 1000.
    pub(super) address_connections: Option<u64>,
    /// TLS handshakes under way; beyond it the oldest that has had a second is given up; until then there may be twice
    /// as many. Default: 1024.
    pub(super) handshakes: Option<u64>,
    /// Commands in flight. Default: 20000.
    pub(super) in_flight: Option<u64>,
    /// Series of commands in /metrics before departments fold into other. Default: 20000.
    pub(super) series: Option<u64>,
    /// The largest request head. Default: 32KiB.
    pub(super) head_bytes: Option<String>,
    /// Fields in a request head. Default: 100.
    pub(super) head_fields: Option<u64>,
    /// For a whole TLS handshake. Default: 10s.
    pub(super) handshake: Option<String>,
    /// For a whole HTTP/1.1 head, or for what opens HTTP/2. Default: 10s.
    pub(super) head_time: Option<String>,
    /// A connection without a command. Default: 180s.
    pub(super) idle: Option<String>,
    /// Between two pieces of a request body. Default: 60s.
    pub(super) body_idle: Option<String>,
    /// What a request body must bring every second, on average; 0B is no limit. Default: 500B.
    pub(super) body_rate: Option<String>,
    /// Between two pieces of an answer that a caller takes. Default: 30s.
    pub(super) answer_idle: Option<String>,
    /// How old a connection becomes, give or take a tenth. Default: 1h.
    pub(super) connection_age: Option<String>,
    /// How many commands a connection carries before it takes no more. Default: any number.
    pub(super) connection_commands: Option<u64>,
    /// Idle connections kept per upstream and worker. Default: 64.
    pub(super) upstream_idle: Option<u64>,
    /// How long an idle upstream connection is kept. Default: 55s.
    pub(super) upstream_idle_time: Option<String>,
}
