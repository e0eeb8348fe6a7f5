//! Groups of servers in a configuration: backends, the servers of subsystems, and the backends that commands name.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::upstream_policy::{BalanceDocument, HealthCheckDocument, QueueDocument, RetriesDocument};
use super::{HeadersDocument, SubsystemDocument};

/// A group of servers that commands of several subsystems may name.
// The keys are those of a subsystem's servers. They are repeated, because `serde(flatten)` reads a mapping into memory
// first: unknown keys in it would have no place in the file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct BackendDocument {
    /// The id in metrics, and in the backends of commands. No subsystem has the same.
    pub(crate) id: String,
    /// Its servers. An empty list is allowed: the commands are answered with 503.
    pub(crate) upstreams: Option<Vec<UpstreamDocument>>,
    /// Instead of upstreams, the service of which the endpoints are its servers. Only for documents that a controller
    /// has made: it also finds the endpoints.
    #[schemars(skip)]
    pub(crate) endpoints: Option<EndpointsDocument>,
    /// The protocol of its servers: http1 (default), http2, or tcp for commands of subsystems with tlsMode.
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
    pub(crate) timeouts: Option<BackendTimeoutsDocument>,
}

/// The service of which the endpoints are the servers of a backend.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointsDocument {
    /// The service, as the controller names it.
    pub(crate) service: String,
    /// The name of its port.
    pub(crate) port: String,
    /// Whether connections use TLS.
    pub(crate) secure: bool,
    /// Whether a controller has made the document. Not read: [`MemoryDocument`](crate::config) sets it.
    #[serde(skip)]
    pub(crate) is_discoverable: bool,
}

/// The timeouts towards the servers of a backend.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct BackendTimeoutsDocument {
    /// The connect timeout. Default: 2s.
    pub(crate) connect: Option<String>,
    /// The response timeout, for the head of a response. Default: 15s.
    pub(crate) response: Option<String>,
    /// The idle timeout between two pieces of a body. Default: 5m.
    pub(crate) idle: Option<String>,
    /// The longest deadline that a gRPC call may ask for (grpc-timeout). Default: 1h.
    pub(crate) deadline: Option<String>,
}

/// One backend of a command with its share of the requests: exactly one of backend and status.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct BackendShareDocument {
    /// The id of a backend, or of a subsystem with servers.
    pub(crate) backend: Option<String>,
    /// Instead of backend, a status of the gateway's own response, 500 to 599: the backend does not exist.
    pub(crate) status: Option<u64>,
    /// The weight: the share of the requests relative to the others, 0 to 1000000; 0 means none. Default: 1.
    pub(crate) weight: Option<u64>,
    /// Fields to set, add or remove, for the requests of this share. They override the command's for the same fields.
    pub(crate) headers: Option<HeadersDocument>,
}

/// The servers of a subsystem or a backend, wherever they are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerGroup<'a> {
    /// The id of the subsystem or the backend.
    pub(crate) id: &'a str,
    pub(crate) upstreams: &'a [UpstreamDocument],
    pub(crate) endpoints: Option<&'a EndpointsDocument>,
    pub(crate) protocol: Option<&'a str>,
    pub(crate) tls: Option<&'a SubsystemTlsDocument>,
    pub(crate) balance: Option<&'a BalanceDocument>,
    pub(crate) queue: Option<&'a QueueDocument>,
    pub(crate) slow_start: Option<&'a str>,
    pub(crate) retries: Option<&'a RetriesDocument>,
    pub(crate) health_check: Option<&'a HealthCheckDocument>,
    pub(crate) timeouts: ServerTimeouts<'a>,
}

/// The timeouts towards servers, wherever they are written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ServerTimeouts<'a> {
    pub(crate) connect: Option<&'a str>,
    pub(crate) response: Option<&'a str>,
    pub(crate) idle: Option<&'a str>,
    pub(crate) deadline: Option<&'a str>,
}

impl BackendDocument {
    /// Its servers.
    pub(crate) fn servers(&self) -> ServerGroup<'_> {
        let timeouts = self.timeouts.as_ref().map(|timeouts| ServerTimeouts {
            connect: timeouts.connect.as_deref(),
            response: timeouts.response.as_deref(),
            idle: timeouts.idle.as_deref(),
            deadline: timeouts.deadline.as_deref(),
        });
        ServerGroup {
            id: &self.id,
            upstreams: self.upstreams.as_deref().unwrap_or_default(),
            endpoints: self.endpoints.as_ref(),
            protocol: self.protocol.as_deref(),
            tls: self.tls.as_ref(),
            balance: self.balance.as_ref(),
            queue: self.queue.as_ref(),
            slow_start: self.slow_start.as_deref(),
            retries: self.retries.as_ref(),
            health_check: self.health_check.as_ref(),
            timeouts: timeouts.unwrap_or_default(),
        }
    }
}

impl SubsystemDocument {
    /// Its own servers.
    pub(crate) fn servers(&self) -> ServerGroup<'_> {
        let timeouts = self.timeouts.as_ref().map(|timeouts| ServerTimeouts {
            connect: timeouts.connect.as_deref(),
            response: timeouts.response.as_deref(),
            idle: timeouts.idle.as_deref(),
            deadline: timeouts.deadline.as_deref(),
        });
        ServerGroup {
            id: &self.id,
            upstreams: &self.upstreams,
            endpoints: None,
            protocol: self.protocol.as_deref().or(self.tls_mode.as_ref().map(|_| "tcp")),
            tls: self.tls.as_ref(),
            balance: self.balance.as_ref(),
            queue: self.queue.as_ref(),
            slow_start: self.slow_start.as_deref(),
            retries: self.retries.as_ref(),
            health_check: self.health_check.as_ref(),
            timeouts: timeouts.unwrap_or_default(),
        }
    }
}

/// The mutual authentication of the gateway and a backend over TLS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct SubsystemTlsDocument {
    /// PEM bundles of the authorities that may certify the servers; at least one, or systemAuthorities.
    #[serde(default)]
    pub(crate) authorities: Vec<PathBuf>,
    /// Instead of authorities: whether those that the system trusts may certify the servers. Default: false.
    pub(crate) system_authorities: Option<bool>,
    /// The names of which the servers' certificates must hold one, at most 5; serverName is then only the SNI. Default:
    /// serverName, or the host of the URL.
    #[serde(default)]
    pub(crate) subject_alt_names: Vec<SubjectAltNameDocument>,
    /// The gateway's own PEM chain, for servers that ask for a client certificate; requires key.
    pub(crate) certificate: Option<PathBuf>,
    /// The key of that certificate.
    pub(crate) key: Option<PathBuf>,
    /// The name that the servers' certificates must hold. Default: the host of the URL.
    pub(crate) server_name: Option<String>,
}

/// A name in the certificate of a server: exactly one of dns and uri.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct SubjectAltNameDocument {
    /// A DNS name, without wildcards.
    pub(crate) dns: Option<String>,
    /// A URI, such as spiffe://city.example/cameras.
    pub(crate) uri: Option<String>,
}

/// One server of a subsystem or a backend.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct UpstreamDocument {
    /// <http://host:port>, <https://host:port> or unix:/path/of/socket; with protocol tcp: tcp://host:port,
    /// tls://host:port or unix:/path/of/socket
    pub(crate) url: String,
    /// The most requests in flight on this server. Default: unlimited.
    pub(crate) max_requests: Option<u64>,
    /// The weight: the server's share of the requests relative to the others, 0 to 1000; 0 means none. Default: 1.
    pub(crate) weight: Option<u64>,
}
