//! What a configuration file looks like: the shapes of the document, and nothing of their meaning.
//!
//! Leaf values (rates, durations, sizes, names, addresses) stay text here and are read in `compile`, so that every
//! problem is found in one go. `docs/config.schema.json` is made from these types.

mod command_shape;
mod upstream_policy;

use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use command_shape::{
    CorsDocument, HeaderEditsDocument, HeadersDocument, MirrorDocument, RedirectDocument, RewriteDocument,
};
pub(crate) use upstream_policy::{
    BalanceDocument, HashByDocument, HealthCheckDocument, QueueDocument, RetriesDocument,
};

/// A Tallygate configuration.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, title = "Tallygate configuration")]
pub(crate) struct ConfigDocument {
    /// Files with more departments, subsystems and grants: paths and globs, relative to this file, such as
    /// departments.d/*.yaml.
    #[serde(default)]
    pub(crate) include: Vec<String>,
    /// The gateway's name in ledger and logs. Default: tallygate.
    pub(crate) gateway: Option<String>,
    /// Where callers come in; at least one.
    #[serde(default)]
    pub(crate) listeners: Vec<ListenerDocument>,
    /// Where operators come in.
    pub(crate) admin: Option<AdminDocument>,
    /// Where and how usage is kept.
    pub(crate) ledger: LedgerDocument,
    /// In which calendar days and months are read.
    pub(crate) calendar: Option<CalendarDocument>,
    /// Traffic threads. Default: one per core, at most the smallest maxRequests of a server.
    pub(crate) workers: Option<u64>,
    /// Limits on the whole gateway.
    pub(crate) limits: Option<GatewayLimitsDocument>,
    /// Who may call; at least one.
    #[serde(default)]
    pub(crate) departments: Vec<Arc<DepartmentDocument>>,
    /// What may be called.
    #[serde(default)]
    pub(crate) subsystems: Vec<Arc<SubsystemDocument>>,
    /// Who may run what; nothing is allowed that no grant names.
    #[serde(default)]
    pub(crate) grants: Vec<Arc<GrantDocument>>,
    /// How the gateway stops.
    pub(crate) shutdown: Option<ShutdownDocument>,
    /// What one gateway carries at most.
    pub(crate) capacity: Option<CapacityDocument>,
}

/// A file that is included: lists that go on where those of the main file end.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IncludedDocument {
    #[serde(default)]
    pub(crate) departments: Vec<Arc<DepartmentDocument>>,
    #[serde(default)]
    pub(crate) subsystems: Vec<Arc<SubsystemDocument>>,
    #[serde(default)]
    pub(crate) grants: Vec<Arc<GrantDocument>>,
}

/// A place where callers come in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct ListenerDocument {
    /// Its name.
    pub(crate) name: String,
    /// IP address and port, such as 0.0.0.0:8443.
    pub(crate) address: String,
    /// Its keys and trust.
    pub(crate) tls: TlsDocument,
    /// Connections it carries at most. Default: capacity.connections.
    pub(crate) connections: Option<u64>,
    /// Ranges of balancers that begin each connection with a PROXY header (version 1 or 2), and are believed.
    #[serde(default)]
    pub(crate) proxy_protocol: Vec<String>,
    /// Ranges of proxies whose X-Forwarded-For is kept, and added to.
    #[serde(default)]
    pub(crate) forwarded_for: Vec<String>,
}

/// Keys and trust of a listener.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct TlsDocument {
    /// PEM chain, own certificate first.
    pub(crate) certificate: PathBuf,
    /// PEM key.
    pub(crate) key: PathBuf,
    /// How callers show who they are.
    pub(crate) client_auth: Option<ClientAuthDocument>,
    /// The hosts that are served: names, *.name for one label below it, addresses, or * for any. Default: those of the
    /// certificate.
    pub(crate) server_names: Option<Vec<String>>,
    /// What becomes of callers whose handshake names no host: allow (default) or refuse.
    pub(crate) missing_server_name: Option<String>,
}

/// How client certificates are asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct ClientAuthDocument {
    /// required (default) or optional.
    pub(crate) mode: Option<String>,
    /// PEM bundles of certificate authorities; at least one.
    #[serde(default)]
    pub(crate) authorities: Vec<PathBuf>,
    /// PEM revocation lists.
    #[serde(default)]
    pub(crate) revocation: Vec<PathBuf>,
    /// What becomes of callers whose authority's revocation list has expired: refuse (default) or allow.
    pub(crate) expired_revocation: Option<String>,
}

/// Where operators come in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct AdminDocument {
    /// IP address and port, such as 127.0.0.1:9090.
    pub(crate) address: String,
    /// Names that are answered for, beside IP addresses and localhost. Default: none.
    pub(crate) hosts: Option<Vec<String>>,
}

/// Where and how usage is kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct LedgerDocument {
    /// The book, a SQLite file; the tally lies beside it.
    pub(crate) path: PathBuf,
    /// The death that an answered command's count survives at once: process (default) or machine.
    pub(crate) durability: Option<String>,
    /// How soon a count also survives the death of the machine. Default: 50ms.
    pub(crate) sync_every: Option<String>,
    /// How old a day is when its hours are forgotten and only its sums are kept, or never. Default: 92d.
    pub(crate) compact_after: Option<String>,
}

/// In which calendar days and months are read.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct CalendarDocument {
    /// Whole hours from UTC. Default: "+08:00".
    pub(crate) offset: Option<String>,
}

/// Limits on the whole gateway.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct GatewayLimitsDocument {
    /// How fast all departments together may call.
    pub(crate) total: Option<TotalLimitDocument>,
}

/// How fast all departments together may call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct TotalLimitDocument {
    /// N/s, N/m or N/h.
    pub(crate) rate: String,
    /// How many may come at once after a rest. Default: the number in the rate.
    pub(crate) burst: Option<u64>,
}

/// How fast, and how many at once.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct LimitsDocument {
    /// N/s, N/m or N/h.
    pub(crate) rate: Option<String>,
    /// How many may come at once after a rest. Default: the number in the rate.
    pub(crate) burst: Option<u64>,
    /// How many may be in flight at once.
    pub(crate) concurrent: Option<u64>,
}

/// Who pays and who is limited.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct DepartmentDocument {
    /// What ledger, metrics and bill call it, for ever.
    pub(crate) id: String,
    /// What people call it. Default: the id.
    pub(crate) name: Option<String>,
    /// The certificates that call for it; at least one.
    #[serde(default)]
    pub(crate) callers: Vec<CallerDocument>,
    /// What limits it.
    pub(crate) limits: Option<LimitsDocument>,
    /// How much it may use in a month.
    pub(crate) quota: Option<QuotaDocument>,
    /// Whether nobody may call for it at the moment. Default: false.
    pub(crate) disabled: Option<bool>,
}

/// One identity in a certificate: exactly one of the three.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct CallerDocument {
    /// A URI SAN, such as spiffe://city.example/department/traffic-police.
    pub(crate) uri: Option<String>,
    /// A DNS SAN.
    pub(crate) dns: Option<String>,
    /// A subject.
    pub(crate) subject: Option<SubjectDocument>,
}

/// The subject of a certificate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct SubjectDocument {
    /// Its commonName.
    pub(crate) common_name: String,
    /// Its organizationalUnit, if it must have exactly that one; without it, the commonName alone decides.
    pub(crate) organizational_unit: Option<String>,
}

/// How much a department may use.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct QuotaDocument {
    /// The period: month.
    pub(crate) per: String,
    /// Units per period.
    pub(crate) units: u64,
    /// Percentages of use at which operators are warned, ascending.
    #[serde(default)]
    pub(crate) warn: Vec<u64>,
    /// What happens beyond: refuse (default) or allow.
    pub(crate) exceeded: Option<String>,
}

/// A system of the city.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct SubsystemDocument {
    /// What ledger, metrics and bill call it.
    pub(crate) id: String,
    /// The hosts it is called by. Default: any.
    pub(crate) hosts: Option<Vec<String>>,
    /// The prefix of its paths, such as /cameras. Default: /.
    pub(crate) path: Option<String>,
    /// Whether the prefix stays on the path that is forwarded. Default: false.
    pub(crate) keep_path: Option<bool>,
    /// Its servers; at least one.
    #[serde(default)]
    pub(crate) upstreams: Vec<UpstreamDocument>,
    /// What its servers speak: http1 (default) or http2.
    pub(crate) protocol: Option<String>,
    /// For servers with an https URL.
    pub(crate) tls: Option<SubsystemTlsDocument>,
    /// How a server is chosen. Default: leastRequest.
    pub(crate) balance: Option<BalanceDocument>,
    /// Where commands wait when all servers that are well carry as many as they may.
    pub(crate) queue: Option<QueueDocument>,
    /// How long a server that is new, or well again, takes to get its whole share. Default: no time.
    pub(crate) slow_start: Option<String>,
    /// How often a failed attempt is made again. Default: never.
    pub(crate) retries: Option<RetriesDocument>,
    /// How its servers are asked whether they are well. Default: not at all, only commands tell.
    pub(crate) health_check: Option<HealthCheckDocument>,
    /// How long to wait for it.
    pub(crate) timeouts: Option<TimeoutsDocument>,
    /// The commands it names.
    #[serde(default)]
    pub(crate) commands: Vec<CommandDocument>,
    /// Fields that are set or removed, for all its commands.
    pub(crate) headers: Option<HeadersDocument>,
    /// Which pages a browser lets read its answers, for all its commands.
    pub(crate) cors: Option<CorsDocument>,
    /// Whether answers of its commands are compressed for callers that take that. Default: false.
    pub(crate) compress: Option<bool>,
    /// What happens to requests that are none of its commands: refuse (default) or allow.
    pub(crate) other_commands: Option<String>,
}

/// How the gateway and a subsystem prove themselves to each other over TLS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct SubsystemTlsDocument {
    /// PEM bundles of the authorities that may name the subsystem; at least one.
    #[serde(default)]
    pub(crate) authorities: Vec<PathBuf>,
    /// The gateway's own PEM chain, for a subsystem that asks who calls; with key.
    pub(crate) certificate: Option<PathBuf>,
    /// The key of that certificate.
    pub(crate) key: Option<PathBuf>,
    /// The name that the subsystem's certificate must hold. Default: the host of its URL.
    pub(crate) server_name: Option<String>,
}

/// One server of a subsystem.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct UpstreamDocument {
    /// <http://host:port>, <https://host:port> or unix:/path/of/socket
    pub(crate) url: String,
    /// How many requests it carries at once. Default: any number.
    pub(crate) max_requests: Option<u64>,
    /// Its part of the requests, in relation to those of the others, 0 to 1000; with 0 it gets none. Default: 1.
    pub(crate) weight: Option<u64>,
}

/// How long to wait for a subsystem.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct TimeoutsDocument {
    /// For a connection. Default: 2s.
    pub(crate) connect: Option<String>,
    /// For the head of an answer. Default: 15s.
    pub(crate) response: Option<String>,
    /// Between two pieces of a body. Default: 5m.
    pub(crate) idle: Option<String>,
    /// The longest that a gRPC call may ask for (grpc-timeout). Default: 1h.
    pub(crate) deadline: Option<String>,
}

/// A named operation of a subsystem.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct CommandDocument {
    /// What ledger, metrics and bill call it.
    pub(crate) id: String,
    /// Which requests it is.
    pub(crate) r#match: MatchDocument,
    /// What one call counts in units. Default: 1.
    pub(crate) units: Option<u64>,
    /// What limits each department on it.
    pub(crate) limits: Option<LimitsDocument>,
    /// What its request body may be.
    pub(crate) body: Option<BodyDocument>,
    /// The protocol its connection may switch to, such as websocket. Default: none.
    pub(crate) upgrade: Option<String>,
    /// Fields that are set or removed; what the subsystem says about the same fields does not hold for it.
    pub(crate) headers: Option<HeadersDocument>,
    /// Another path for what is forwarded.
    pub(crate) rewrite: Option<RewriteDocument>,
    /// Where its callers are sent, instead of anything being forwarded.
    pub(crate) redirect: Option<RedirectDocument>,
    /// Which pages a browser lets read its answers; in the place of all that the subsystem says about it.
    pub(crate) cors: Option<CorsDocument>,
    /// Where copies of its requests go, whose answers nobody reads.
    pub(crate) mirror: Option<MirrorDocument>,
    /// Whether its answers are compressed for callers that take that. Default: what the subsystem says.
    pub(crate) compress: Option<bool>,
    /// As ledger.durability, for this command.
    pub(crate) durability: Option<String>,
}

/// Which requests a command is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct MatchDocument {
    /// GET, POST, ... Default: any.
    pub(crate) method: Option<String>,
    /// The path below the subsystem's: literal segments, {name} for one, {*name} for the rest.
    pub(crate) path: Option<String>,
    /// Instead of method and path, a gRPC method: package.Service/Method, or package.Service/* for all of a service.
    pub(crate) grpc: Option<String>,
}

/// What a request body may be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct BodyDocument {
    /// The largest, such as 16MiB. Default: 1MiB.
    pub(crate) max: Option<String>,
}

/// Who may run what.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct GrantDocument {
    /// The department's id.
    pub(crate) department: String,
    /// The subsystem's id.
    pub(crate) subsystem: String,
    /// Globs on command ids; at least one.
    #[serde(default)]
    pub(crate) commands: Vec<String>,
}

/// How the gateway stops.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct ShutdownDocument {
    /// Not ready, but still accepting. Default: 5s.
    pub(crate) delay: Option<String>,
    /// How long commands in flight may take to finish. Default: 30s.
    pub(crate) grace: Option<String>,
}

/// What one gateway carries at most.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct CapacityDocument {
    /// Connections from callers, all listeners together. Default: 10000, or as many as file descriptors allow.
    pub(crate) connections: Option<u64>,
    /// Connections of one department. Default: 1000.
    pub(crate) department_connections: Option<u64>,
    /// Connections from one IPv4 address, or from one IPv6 network of 64 bits. Default: 1000.
    pub(crate) address_connections: Option<u64>,
    /// TLS handshakes under way; beyond it the oldest that has had a second is given up; until then there may be twice
    /// as many. Default: 1024.
    pub(crate) handshakes: Option<u64>,
    /// Commands in flight. Default: 20000.
    pub(crate) in_flight: Option<u64>,
    /// Series of commands in /metrics before departments fold into other. Default: 20000.
    pub(crate) series: Option<u64>,
    /// The largest request head. Default: 32KiB.
    pub(crate) head_bytes: Option<String>,
    /// Fields in a request head. Default: 100.
    pub(crate) head_fields: Option<u64>,
    /// For a whole TLS handshake. Default: 10s.
    pub(crate) handshake: Option<String>,
    /// For a whole HTTP/1.1 head, or for what opens HTTP/2. Default: 10s.
    pub(crate) head_time: Option<String>,
    /// A connection without a command. Default: 180s.
    pub(crate) idle: Option<String>,
    /// Between two pieces of a request body. Default: 60s.
    pub(crate) body_idle: Option<String>,
    /// What a request body must bring every second, on average; 0B is no limit. Default: 500B.
    pub(crate) body_rate: Option<String>,
    /// Between two pieces of an answer that a caller takes. Default: 30s.
    pub(crate) answer_idle: Option<String>,
    /// How old a connection becomes, give or take a tenth. Default: 1h.
    pub(crate) connection_age: Option<String>,
    /// How many commands a connection carries before it takes no more. Default: any number.
    pub(crate) connection_commands: Option<u64>,
    /// Idle connections kept per upstream and worker. Default: 64.
    pub(crate) upstream_idle: Option<u64>,
    /// How long an idle upstream connection is kept. Default: 55s.
    pub(crate) upstream_idle_time: Option<String>,
}
