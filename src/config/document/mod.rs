//! The structure of a configuration file: the serde types of the document, without their meaning.
//!
//! Leaf values (rates, durations, sizes, names, addresses) stay text here. `compile` parses them, so that every problem
//! is found in one run. `docs/config.schema.json` is generated from these types and their comments.

mod access_log;
mod backend;
mod command_match;
mod command_shape;
mod tracing;
mod upstream_policy;

use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use access_log::{AccessLogDocument, AccessLogQueueDocument};
pub(crate) use backend::{
    BackendDocument, BackendShareDocument, EndpointsDocument, ServerGroup, ServerTimeouts, SubjectAltNameDocument,
    SubsystemTlsDocument, UpstreamDocument,
};
pub(crate) use command_match::{FieldMatchDocument, MatchDocument, MatchListDocument};
pub(crate) use command_shape::{
    CorsDocument, HeaderEditsDocument, HeadersDocument, MirrorDocument, MirrorsDocument, RedirectDocument,
    RewriteDocument,
};
pub(crate) use tracing::TracingDocument;
pub(crate) use upstream_policy::{
    BalanceDocument, HashByDocument, HealthCheckDocument, QueueDocument, RetriesDocument, RetryOnDocument,
    SessionCookieDocument,
};

/// A Tallygate configuration.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields, title = "Tallygate configuration")]
pub(crate) struct ConfigDocument {
    /// Files with more listeners, departments, subsystems, backends and grants: paths and globs, relative to this file,
    /// such as departments.d/*.yaml.
    #[serde(default)]
    pub(crate) include: Vec<String>,
    /// Files like those of include, each of which fails alone: a file with a problem is excluded, and all else is live.
    #[serde(default)]
    pub(crate) include_isolated: Vec<String>,
    /// The gateway's name in ledger and logs. Default: tallygate.
    pub(crate) gateway: Option<String>,
    /// The listeners for callers; at least one.
    #[serde(default)]
    pub(crate) listeners: Vec<Arc<ListenerDocument>>,
    /// The admin listener for operators.
    pub(crate) admin: Option<AdminDocument>,
    /// The storage of usage: the ledger.
    pub(crate) ledger: LedgerDocument,
    /// The calendar for days and months.
    pub(crate) calendar: Option<CalendarDocument>,
    /// The number of worker threads. Default: one per core, at most the smallest maxRequests of a server.
    pub(crate) workers: Option<u64>,
    /// Limits on the whole gateway.
    pub(crate) limits: Option<GatewayLimitsDocument>,
    /// The departments that may call; at least one.
    #[serde(default)]
    pub(crate) departments: Vec<Arc<DepartmentDocument>>,
    /// The subsystems that may be called.
    #[serde(default)]
    pub(crate) subsystems: Vec<Arc<SubsystemDocument>>,
    /// Groups of servers that commands of several subsystems may name.
    #[serde(default)]
    pub(crate) backends: Vec<Arc<BackendDocument>>,
    /// The authorisation rules: commands that departments may run. Without a grant, a command is refused.
    #[serde(default)]
    pub(crate) grants: Vec<Arc<GrantDocument>>,
    /// The graceful shutdown.
    pub(crate) shutdown: Option<ShutdownDocument>,
    /// The capacity limits of one gateway.
    pub(crate) capacity: Option<CapacityDocument>,
    /// The access log: one line for each command. Default: none.
    pub(crate) access_log: Option<AccessLogDocument>,
    /// Traces: sampled commands as spans for a collector. Default: none.
    pub(crate) tracing: Option<TracingDocument>,
    /// Whether departments can read their own usage at /.well-known/tallygate/usage on every listener. Default: true.
    pub(crate) usage_page: Option<bool>,
}

/// An included file: its lists are appended to those of the main file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IncludedDocument {
    #[serde(default)]
    pub(crate) listeners: Vec<Arc<ListenerDocument>>,
    #[serde(default)]
    pub(crate) departments: Vec<Arc<DepartmentDocument>>,
    #[serde(default)]
    pub(crate) subsystems: Vec<Arc<SubsystemDocument>>,
    #[serde(default)]
    pub(crate) backends: Vec<Arc<BackendDocument>>,
    #[serde(default)]
    pub(crate) grants: Vec<Arc<GrantDocument>>,
}

/// The number of items that a document has of each of its five lists.
pub(crate) type ListCounts = [usize; 5];

impl IncludedDocument {
    /// The number of items of each list.
    pub(crate) fn counts(&self) -> ListCounts {
        let Self { listeners, departments, subsystems, backends, grants } = self;
        [listeners.len(), departments.len(), subsystems.len(), backends.len(), grants.len()]
    }

    /// Appends the items of another document.
    pub(crate) fn append(&mut self, other: &Self) {
        self.listeners.extend_from_slice(&other.listeners);
        self.departments.extend_from_slice(&other.departments);
        self.subsystems.extend_from_slice(&other.subsystems);
        self.backends.extend_from_slice(&other.backends);
        self.grants.extend_from_slice(&other.grants);
    }
}

impl ConfigDocument {
    /// The number of items of each list.
    pub(crate) fn counts(&self) -> ListCounts {
        let Self { listeners, departments, subsystems, backends, grants, .. } = self;
        [listeners.len(), departments.len(), subsystems.len(), backends.len(), grants.len()]
    }

    /// Replaces the items from `begin` to `end` by the items of these documents. The other items stay where they are.
    pub(crate) fn splice(&mut self, (begin, end): (ListCounts, ListCounts), new: &[&IncludedDocument]) {
        splice_list(&mut self.listeners, (begin[0], end[0]), new.iter().flat_map(|one| &one.listeners));
        splice_list(&mut self.departments, (begin[1], end[1]), new.iter().flat_map(|one| &one.departments));
        splice_list(&mut self.subsystems, (begin[2], end[2]), new.iter().flat_map(|one| &one.subsystems));
        splice_list(&mut self.backends, (begin[3], end[3]), new.iter().flat_map(|one| &one.backends));
        splice_list(&mut self.grants, (begin[4], end[4]), new.iter().flat_map(|one| &one.grants));
    }
}

fn splice_list<'n, T: 'n>(list: &mut Vec<Arc<T>>, (begin, end): (usize, usize), new: impl Iterator<Item = &'n Arc<T>>) {
    let new: Vec<Arc<T>> = new.map(Arc::clone).collect(); // of a known length: the rest is moved once
    list.splice(begin..end, new);
}

/// A listener for callers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct ListenerDocument {
    /// Its name.
    pub(crate) name: String,
    /// IP address and port, such as 0.0.0.0:8443.
    pub(crate) address: String,
    /// https (default), http: plain HTTP, without TLS and without client certificates, or tls: only the TLS connections
    /// of subsystems with tlsMode, no HTTP.
    pub(crate) protocol: Option<String>,
    /// Key, certificate and authorities; required for https. For tls, needed where connections are terminated.
    pub(crate) tls: Option<TlsDocument>,
    /// The most connections. Default: capacity.connections.
    pub(crate) connections: Option<u64>,
    /// Ranges of trusted load balancers that begin each connection with a PROXY protocol header (version 1 or 2).
    #[serde(default)]
    pub(crate) proxy_protocol: Vec<String>,
    /// Ranges of proxies whose X-Forwarded-For is kept and extended.
    #[serde(default)]
    pub(crate) forwarded_for: Vec<String>,
    /// Virtual hosts: parts of the listener to which subsystems can be bound; at most 1024.
    #[serde(default)]
    pub(crate) virtual_hosts: Vec<VirtualHostDocument>,
    /// The port at which callers reach the listener, for redirects that replace neither scheme nor port. Default: the
    /// port that the caller names.
    pub(crate) public_port: Option<u64>,
}

/// A virtual host: a part of a listener. For the hosts that it matches most specifically, only those subsystems are
/// found that are bound to it, to its listener, or to no listener.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct VirtualHostDocument {
    /// Its name, unique on the listener.
    pub(crate) name: String,
    /// A name, *.name for one label below, **.name for one or more, or * for all other hosts.
    pub(crate) host: String,
    /// On a listener with https: tls for a virtual host that takes no HTTP; on one with tls: https for one that does.
    /// Default: that of the listener.
    pub(crate) protocol: Option<String>,
}

/// The certificates, keys and authorities of a listener: one certificate, or a list of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct TlsDocument {
    /// PEM chain, own certificate first.
    pub(crate) certificate: Option<PathBuf>,
    /// PEM key.
    pub(crate) key: Option<PathBuf>,
    /// Several certificates, chosen by server name (SNI), instead of certificate, key and serverNames; at most 1,024.
    pub(crate) certificates: Option<Vec<CertificateDocument>>,
    /// The authentication of callers by client certificates (mTLS); with certificates, the default of those that have
    /// none of their own.
    pub(crate) client_auth: Option<ClientAuthDocument>,
    /// The served hosts: names, *.name for one label below, **.name for one or more labels below, addresses, or * for
    /// any. Default: those of the certificate.
    pub(crate) server_names: Option<Vec<String>>,
    /// The treatment of handshakes that name no host (no SNI): allow (default; the first certificate) or refuse.
    pub(crate) missing_server_name: Option<String>,
}

/// One certificate of a listener.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct CertificateDocument {
    /// PEM chain, own certificate first.
    pub(crate) certificate: PathBuf,
    /// PEM key.
    pub(crate) key: PathBuf,
    /// The hosts of this certificate, as tls.serverNames. Default: those of the certificate.
    pub(crate) server_names: Option<Vec<String>>,
    /// The authentication of callers for these hosts. Default: tls.clientAuth.
    pub(crate) client_auth: Option<ClientAuthDocument>,
}

/// The settings of client authentication.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct ClientAuthDocument {
    /// required (default), optional, anyAuthority: also callers whose certificate no known authority has signed, or
    /// allowInsecureFallback: also callers whose certificate fails verification; both as callers without one.
    pub(crate) mode: Option<String>,
    /// PEM bundles of certificate authorities; at least one.
    #[serde(default)]
    pub(crate) authorities: Vec<PathBuf>,
    /// PEM revocation lists.
    #[serde(default)]
    pub(crate) revocation: Vec<PathBuf>,
    /// The treatment of callers whose authority's revocation list has expired: refuse (default) or allow.
    pub(crate) expired_revocation: Option<String>,
    /// The most certificates between the caller's and a self-signed authority, 0 to 100. Default: no such limit.
    pub(crate) max_depth: Option<u64>,
    /// How callers are refused that the mode does not accept: handshake (default), or response: the handshake succeeds,
    /// and each request gets 400.
    pub(crate) refusal: Option<String>,
    /// Beside refusal: response, the URL to which such requests are redirected instead (302).
    pub(crate) error_page: Option<String>,
    /// A regular expression (RE2) for the subject of a verified certificate in the form of RFC 2253; it may match any
    /// part. Other callers get 403.
    pub(crate) subject: Option<String>,
    /// The fields about the certificate that subsystems get: none (default); names: ssl-client-verify, -subject-dn and
    /// -issuer-dn; or certificate: also ssl-client-cert.
    pub(crate) forward: Option<String>,
    /// The realm of these authorities: only departments that name it (departments.realms) have callers here. Default:
    /// the realm without a name, for departments that name none.
    pub(crate) realm: Option<String>,
    /// The treatment of callers with a certificate that no department claims: refuse, or listener (default) for what
    /// the claims on the listener say (departments.callers.unclaimed).
    pub(crate) unclaimed: Option<String>,
}

/// The admin listener for operators.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct AdminDocument {
    /// IP address and port, such as 127.0.0.1:9090.
    pub(crate) address: String,
    /// Host names for requests to the admin listener, beside IP addresses and localhost. Default: none.
    pub(crate) hosts: Option<Vec<String>>,
}

/// The storage of usage: the ledger.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct LedgerDocument {
    /// The book, a SQLite file; the tally is stored beside it.
    pub(crate) path: PathBuf,
    /// The failure that the count of an answered command survives at once: process (default) or machine.
    pub(crate) durability: Option<String>,
    /// The interval after which a count survives the failure of the machine. Default: 50ms.
    pub(crate) sync_every: Option<String>,
    /// The compaction age: older days lose their hourly counts and keep only sums; or never. Default: 92d.
    pub(crate) compact_after: Option<String>,
}

/// The calendar for days and months.
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
    /// The rate limit of all departments together.
    pub(crate) total: Option<TotalLimitDocument>,
}

/// The rate limit of all departments together.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct TotalLimitDocument {
    /// N/s, N/m or N/h.
    pub(crate) rate: String,
    /// The most commands in a burst after an idle period. Default: the number in the rate.
    pub(crate) burst: Option<u64>,
}

/// The rate and concurrency limits.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct LimitsDocument {
    /// N/s, N/m or N/h.
    pub(crate) rate: Option<String>,
    /// The most commands in a burst after an idle period. Default: the number in the rate.
    pub(crate) burst: Option<u64>,
    /// The most commands in flight.
    pub(crate) concurrent: Option<u64>,
}

/// The limits of each client address. IPv6 addresses with the same first 64 bits are one address.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct AddressLimitsDocument {
    /// A name; commands with the same name share these limits and write the same ones. Default: the command's own.
    pub(crate) zone: Option<String>,
    /// One or two rates; each of them holds.
    #[serde(default)]
    pub(crate) rates: Vec<AddressRateDocument>,
    /// The most commands in flight.
    pub(crate) concurrent: Option<u64>,
    /// Ranges of addresses without limits.
    #[serde(default)]
    pub(crate) except: Vec<String>,
    /// The status of refusals: 429 (default) or 503, as nginx has it.
    pub(crate) status: Option<u64>,
}

/// A rate of each client address.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct AddressRateDocument {
    /// N/s, N/m or N/h.
    pub(crate) rate: String,
    /// The most commands in a burst after an idle period: the burst of nginx and 1 more. Default: the number in the
    /// rate.
    pub(crate) burst: Option<u64>,
}

/// The bandwidth limit of one response: how fast its body is sent to the caller.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct BandwidthLimitDocument {
    /// Bytes per second, such as 512KiB; 0B means no limit.
    pub(crate) rate: String,
    /// The bytes at the beginning of a body that are sent without limit. Default: 0B.
    pub(crate) after: Option<String>,
}

/// The client addresses that may call a command. Others are forbidden.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct SourcesDocument {
    /// Only these ranges. Default: all.
    #[serde(default)]
    pub(crate) allow: Vec<String>,
    /// Not these ranges, even if they are allowed.
    #[serde(default)]
    pub(crate) deny: Vec<String>,
}

/// A department: the unit of billing and of limits.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct DepartmentDocument {
    /// The permanent id in the ledger, in metrics and on bills.
    pub(crate) id: String,
    /// The display name. Default: the id.
    pub(crate) name: Option<String>,
    /// The certificates of the department's callers; at least one.
    #[serde(default)]
    pub(crate) callers: Vec<CallerDocument>,
    /// The limits of the department.
    pub(crate) limits: Option<LimitsDocument>,
    /// The quota: the short form of quotas with one entry.
    pub(crate) quota: Option<QuotaDocument>,
    /// The quotas, of which each holds: at most one of units and one of commands for each period.
    #[serde(default)]
    pub(crate) quotas: Vec<QuotaDocument>,
    /// Whether the department is disabled: its callers are refused. Default: false.
    pub(crate) disabled: Option<bool>,
    /// The realms in which its certificates count (clientAuth.realm); at most 65536. Default: the realm without a name.
    #[serde(default)]
    pub(crate) realms: Vec<String>,
}

/// One identity in a certificate, or the callers without a certificate on one listener: exactly one of the four.
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
    /// The name of a listener: its callers without a certificate.
    pub(crate) listener: Option<String>,
    /// Beside listener: true for also its callers with a certificate that no department claims. Default: false.
    pub(crate) unclaimed: Option<bool>,
}

/// The subject of a certificate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct SubjectDocument {
    /// Its commonName.
    pub(crate) common_name: String,
    /// Its organizationalUnit, if it must be exactly this one; without it, the commonName alone decides.
    pub(crate) organizational_unit: Option<String>,
}

/// A quota of a department: a number of units or of commands in a calendar day or month.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct QuotaDocument {
    /// The period: day or month.
    pub(crate) per: String,
    /// Units per period.
    pub(crate) units: Option<u64>,
    /// Instead of units: admitted commands per period.
    pub(crate) commands: Option<u64>,
    /// Percentages of use at which operators are warned, ascending.
    #[serde(default)]
    pub(crate) warn: Vec<u64>,
    /// The action beyond the quota: refuse (default) or allow.
    pub(crate) exceeded: Option<String>,
}

/// A subsystem of the city (upstream).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct SubsystemDocument {
    /// The id in the ledger, in metrics and on bills.
    pub(crate) id: String,
    /// The hosts by which it is called: names, *.name for one label below, **.name for one or more. Default: any.
    pub(crate) hosts: Option<Vec<String>>,
    /// The listeners on which it is called: names, or listener/virtualHost for one virtual host. Default: all.
    pub(crate) listeners: Option<Vec<String>>,
    /// How its TLS connections are forwarded, chosen by server name (hosts): passthrough (as they are) or terminate
    /// (TLS ends at the gateway). Each connection is its one command. Default: none; its commands are HTTP requests.
    pub(crate) tls_mode: Option<String>,
    /// With tlsMode passthrough: the id of the department that its connections are counted for. Default: the department
    /// of the listener's callers without a certificate.
    pub(crate) department: Option<String>,
    /// The prefix of its paths, such as /cameras. Default: /.
    pub(crate) path: Option<String>,
    /// Whether the forwarded path keeps the prefix. Default: false.
    pub(crate) keep_path: Option<bool>,
    /// Its servers; at least one, unless each of its commands names its backends.
    #[serde(default)]
    pub(crate) upstreams: Vec<UpstreamDocument>,
    /// The backends of commands that name none. Default: its own servers.
    pub(crate) backends: Option<Vec<BackendShareDocument>>,
    /// The protocol of its servers: http1 (default) or http2; with tlsMode tcp (default).
    pub(crate) protocol: Option<String>,
    /// TLS to servers with an https or tls URL.
    pub(crate) tls: Option<SubsystemTlsDocument>,
    /// The load balancing policy. Default: leastRequest.
    pub(crate) balance: Option<BalanceDocument>,
    /// The queue for commands while all healthy servers are at their limit of requests.
    pub(crate) queue: Option<QueueDocument>,
    /// The slow start: the time in which a new or recovered server reaches its full share of requests. Default: none.
    pub(crate) slow_start: Option<String>,
    /// The retry policy for failed attempts. Default: no retries.
    pub(crate) retries: Option<RetriesDocument>,
    /// The active health check of its servers. Default: none; only the results of commands count.
    pub(crate) health_check: Option<HealthCheckDocument>,
    /// The timeouts towards its servers.
    pub(crate) timeouts: Option<TimeoutsDocument>,
    /// The named commands.
    #[serde(default)]
    pub(crate) commands: Vec<CommandDocument>,
    /// Fields to set or remove, for all its commands.
    pub(crate) headers: Option<HeadersDocument>,
    /// The origins whose pages may read its responses, for all its commands.
    pub(crate) cors: Option<CorsDocument>,
    /// Whether responses of its commands are compressed for callers that accept it. Default: false.
    pub(crate) compress: Option<bool>,
    /// The bandwidth limit of each response, for all its commands. Default: none.
    pub(crate) bandwidth_limit: Option<BandwidthLimitDocument>,
    /// The treatment of requests that match none of its commands: refuse (default), allow, or next for less specific
    /// subsystems.
    pub(crate) other_commands: Option<String>,
    /// Whether matches may be equal to earlier ones, which then win. Not possible in a file, where it is a mistake.
    #[serde(skip)]
    pub(crate) is_shadowable: bool,
}

/// The timeouts towards a subsystem.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct TimeoutsDocument {
    /// The connect timeout. Default: 2s.
    pub(crate) connect: Option<String>,
    /// The response timeout, for the head of a response. Default: 15s.
    pub(crate) response: Option<String>,
    /// The idle timeout between two pieces of a body. Default: 5m.
    pub(crate) idle: Option<String>,
    /// The longest deadline that a gRPC call may ask for (grpc-timeout). Default: 1h.
    pub(crate) deadline: Option<String>,
    /// The request timeout: from the arrival of a command to the last byte of its response. Default: 0s, none.
    pub(crate) request: Option<String>,
    /// The attempt timeout: from the sending of a request to the last byte of its response. Default: 0s, none.
    pub(crate) attempt: Option<String>,
}

/// The timeouts of one command.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct CommandTimeoutsDocument {
    /// The request timeout; 0s means none. Default: the subsystem's.
    pub(crate) request: Option<String>,
    /// The attempt timeout; 0s means none. Default: the subsystem's.
    pub(crate) attempt: Option<String>,
}

/// A named operation of a subsystem.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct CommandDocument {
    /// The id in the ledger, in metrics and on bills.
    pub(crate) id: String,
    /// The requests that are this command: one set of conditions, or a list of sets of which one must hold. Required,
    /// except in a subsystem with tlsMode, where it is not possible.
    pub(crate) r#match: Option<MatchListDocument>,
    /// The number of units that one call counts. Default: 1.
    pub(crate) units: Option<u64>,
    /// The limits of each department on this command.
    pub(crate) limits: Option<LimitsDocument>,
    /// The limits of each client address.
    pub(crate) address_limits: Option<AddressLimitsDocument>,
    /// The client addresses that may call it. Default: all.
    pub(crate) sources: Option<SourcesDocument>,
    /// The limits of its request body.
    pub(crate) body: Option<BodyDocument>,
    /// The protocol to which a connection may be upgraded, such as websocket. Default: none.
    pub(crate) upgrade: Option<String>,
    /// Fields to set or remove. They override the subsystem's settings for the same fields.
    pub(crate) headers: Option<HeadersDocument>,
    /// The backends that its requests are forwarded to, with their weights; at most 16. Default: the subsystem's.
    pub(crate) backends: Option<Vec<BackendShareDocument>>,
    /// The rewrite of the forwarded host and path.
    pub(crate) rewrite: Option<RewriteDocument>,
    /// The redirect of callers; then nothing is forwarded.
    pub(crate) redirect: Option<RedirectDocument>,
    /// Whether its requests are refused as unknown commands (404), so that no less specific command takes them.
    /// Default: false.
    pub(crate) refuse: Option<bool>,
    /// The origins whose pages may read its responses. Replaces the subsystem's setting as a whole.
    pub(crate) cors: Option<CorsDocument>,
    /// The mirroring of requests to other subsystems; the responses are discarded.
    pub(crate) mirror: Option<MirrorsDocument>,
    /// Whether its responses are compressed for callers that accept it. Default: the subsystem's setting.
    pub(crate) compress: Option<bool>,
    /// The bandwidth limit of each of its responses. Replaces the subsystem's setting as a whole.
    pub(crate) bandwidth_limit: Option<BandwidthLimitDocument>,
    /// As ledger.durability, for this command.
    pub(crate) durability: Option<String>,
    /// Its request timeout and its attempt timeout. Each overrides the subsystem's.
    pub(crate) timeouts: Option<CommandTimeoutsDocument>,
}

/// The limits of a request body.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct BodyDocument {
    /// The largest size, such as 16MiB. Default: 1MiB.
    pub(crate) max: Option<String>,
}

/// An authorisation rule: commands that a department may run.
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
    /// The limits of the department on each of these commands, instead of the command's own. Of several grants of a
    /// command, the first with limits counts.
    pub(crate) limits: Option<LimitsDocument>,
}

/// The graceful shutdown.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct ShutdownDocument {
    /// The delay in which the gateway is not ready but still accepts; with `quiet` at most. Default: 5s.
    pub(crate) delay: Option<String>,
    /// The delay ends early when no new connection has come for this time; less than `delay`. Default: it does not.
    pub(crate) quiet: Option<String>,
    /// The grace period in which commands in flight may finish. Default: 30s.
    pub(crate) grace: Option<String>,
}

/// The capacity limits of one gateway.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct CapacityDocument {
    /// The most connections from callers, over all listeners. Default: 10000, or what file descriptors allow.
    pub(crate) connections: Option<u64>,
    /// The most connections of one department. Default: 1000.
    pub(crate) department_connections: Option<u64>,
    /// The most connections from one IPv4 address, or from one IPv6 network of 64 bits. Default: 1000.
    pub(crate) address_connections: Option<u64>,
    /// The most concurrent TLS handshakes; above, the oldest handshake of at least one second is closed. Hard limit:
    /// twice this number. Default: 1024.
    pub(crate) handshakes: Option<u64>,
    /// The most commands in flight. Default: 20000.
    pub(crate) in_flight: Option<u64>,
    /// The most series of commands in /metrics before departments fold into other. Default: 20000.
    pub(crate) series: Option<u64>,
    /// The largest request head. Default: 32KiB.
    pub(crate) head_bytes: Option<String>,
    /// The most fields in a request head. Default: 100.
    pub(crate) head_fields: Option<u64>,
    /// The timeout of a whole TLS handshake. Default: 10s.
    pub(crate) handshake: Option<String>,
    /// The header timeout of a whole HTTP/1.1 request head, or of the HTTP/2 preface. Default: 10s.
    pub(crate) head_time: Option<String>,
    /// The idle timeout of a connection without a command. Default: 180s.
    pub(crate) idle: Option<String>,
    /// The idle timeout between two pieces of a request body. Default: 60s.
    pub(crate) body_idle: Option<String>,
    /// The minimum rate of a request body: its average bytes per second; 0B disables the limit. Default: 500B.
    pub(crate) body_rate: Option<String>,
    /// The write timeout between two pieces of a response that a caller accepts. Default: 30s.
    pub(crate) response_idle: Option<String>,
    /// The maximum age of a connection, with a jitter of plus or minus a tenth. Default: 1h.
    pub(crate) connection_age: Option<String>,
    /// The most commands on one connection; then it is closed gracefully. Default: unlimited.
    pub(crate) connection_commands: Option<u64>,
    /// The most idle connections in the pool per upstream and worker. Default: 64.
    pub(crate) upstream_idle: Option<u64>,
    /// The idle timeout of a pooled upstream connection. Default: 55s.
    pub(crate) upstream_idle_time: Option<String>,
}
