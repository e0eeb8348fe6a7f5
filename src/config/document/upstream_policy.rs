//! The policies of a subsystem's servers in a configuration: load balancing, queue, retries and health checks.

use schemars::JsonSchema;
use serde::Deserialize;

/// The load balancing policy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "leastRequest, roundRobin, { hash: department }, { hash: { header: NAME } } or { cookie: { name: NAME } } was \
                 expected"
)]
pub(crate) enum BalanceDocument {
    /// leastRequest (default), roundRobin, or consistentHash, which is { hash: department }.
    Word(String),
    /// Sticky routing by a hash.
    Hash(ByHashDocument),
    /// Sticky routing by a cookie that the gateway sets.
    Cookie(ByCookieDocument),
}

/// Sticky routing by a cookie that the gateway sets.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
pub(crate) struct ByCookieDocument {
    /// The cookie.
    pub(crate) cookie: SessionCookieDocument,
}

/// The cookie of sticky routing. It is HttpOnly, and its value says nothing about servers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
pub(crate) struct SessionCookieDocument {
    /// Its name.
    pub(crate) name: String,
    /// Its path. Default: /.
    pub(crate) path: Option<String>,
    /// Its domain. Default: the host of the request alone.
    pub(crate) domain: Option<String>,
    /// Its age, in whole seconds. Default: until the browser ends.
    pub(crate) max_age: Option<String>,
    /// Whether it is sent over TLS alone. Default: as on the connection that it is set on.
    pub(crate) secure: Option<bool>,
    /// Strict, Lax or None. Default: that of the browser.
    pub(crate) same_site: Option<String>,
    /// balanced (default): a server that is added takes over its share of the sessions; or persistent: a session stays
    /// at its server as long as that exists.
    pub(crate) mode: Option<String>,
    /// With mode persistent, which requires it: at least 16 characters that nobody can guess, the same in all gateways.
    /// Who knows them can find out the server of a session.
    pub(crate) secret: Option<String>,
    /// Whether a session moves to another server for good, with a new value of the cookie, when its server has failed.
    /// Default: false; it returns to its server.
    pub(crate) change_on_failure: Option<bool>,
}

/// Sticky routing by a hash.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
pub(crate) struct ByHashDocument {
    /// The input of the hash.
    pub(crate) hash: HashByDocument,
}

/// The input of the hash.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "department or { header: NAME } was expected")]
pub(crate) enum HashByDocument {
    /// department
    Word(String),
    /// The value of a header.
    Header(HashHeaderDocument),
}

/// The header that is the input of the hash.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
pub(crate) struct HashHeaderDocument {
    /// Its name.
    pub(crate) header: String,
}

/// The queue for commands while all healthy servers are at their limit of requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct QueueDocument {
    /// The most commands that may wait. Default: 0, no queue.
    pub(crate) length: Option<u64>,
    /// The longest wait of one command. Default: 1s.
    pub(crate) timeout: Option<String>,
}

/// The retry policy for failed attempts of GET, HEAD, OPTIONS, PUT and DELETE without a body.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct RetriesDocument {
    /// The most retries of one command: 1 (default) to 10.
    pub(crate) attempts: Option<u64>,
    /// The retry budget: the most retries per 100 commands. Default: 20.
    pub(crate) budget_percent: Option<u64>,
    /// Retried beside broken connections: statuses from 400 to 599, and connect-failure; at most 32. Default: none.
    #[serde(default)]
    pub(crate) on: Vec<RetryOnDocument>,
    /// The delay before each retry, with a jitter of plus or minus a tenth, at most 10s. Default: 0s, none.
    pub(crate) backoff: Option<String>,
}

/// A failure that is retried.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a status between 400 and 599, or connect-failure, was expected")]
pub(crate) enum RetryOnDocument {
    /// A status, 400 to 599.
    Status(u64),
    /// connect-failure: no server could be connected to, and nothing was sent.
    Word(String),
}

/// The active health check of servers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct HealthCheckDocument {
    /// The path to GET, such as /healthz; the subsystem's prefix is not prepended.
    pub(crate) path: String,
    /// The time from the end of a check to the next one. Default: 10s.
    pub(crate) interval: Option<String>,
    /// The timeout of a whole check. Default: 2s.
    pub(crate) timeout: Option<String>,
    /// The number of consecutive passed checks that make a server healthy. Default: 2.
    pub(crate) rise: Option<u64>,
    /// The number of consecutive failed checks that make a server unhealthy. Default: 3.
    pub(crate) fall: Option<u64>,
    /// The statuses of a healthy server: one, such as "200", or the first and the last. Default: 200..399.
    pub(crate) status: Option<String>,
}
