//! Load balancing, queueing, retries and health checks of a subsystem's servers: the configured policies as plain
//! values.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;

use super::session_cookie::SessionCookie;

/// The load balancing policy: how a server is chosen among several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadBalancing {
    /// Least request: of two random servers, the one with fewer requests in flight.
    LeastRequest,
    /// Round robin.
    RoundRobin,
    /// Sticky routing by a hash: requests with the same hash stay with one server while it is healthy.
    Hash(HashSource),
}

/// The input of the hash for sticky routing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashSource {
    /// The department's id.
    Department,
    /// The first value of a header. Requests without the header are balanced by least request.
    Header(HeaderName),
    /// The session in a cookie. A request without one begins a session.
    Cookie(Box<SessionCookie>),
}

/// The queue of commands that wait while all healthy servers are at their limit of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePolicy {
    /// The most commands that may wait, over all workers; 0 disables the queue.
    pub length: usize,
    /// The longest wait of one command.
    pub timeout: Duration,
}

/// The retry policy for failed attempts. It applies to requests that are safe to repeat and have no body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The most retries of one command.
    pub attempts: u32,
    /// The retry budget: the most retries per 100 commands of a worker.
    pub budget_percent: u32,
    /// The statuses that are retried, in addition to connections that broke before the head of a response and to
    /// attempts that exceeded their timeout.
    pub on: Vec<u16>,
    /// Whether connection failures are retried: no server could be connected to, and nothing was sent.
    pub on_connect_failure: bool,
    /// The backoff: the delay before each retry, with a jitter of plus or minus 10 %.
    pub backoff: Option<Duration>,
}

/// The active health check of a server, over the path that commands take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckPolicy {
    /// The path to GET; the subsystem's prefix is not prepended.
    pub path: String,
    /// The time from the end of a check to the next one, with a jitter of plus or minus 10 %.
    pub interval: Duration,
    /// The timeout of a whole check: connection, TLS and the head of the response.
    pub timeout: Duration,
    /// The number of consecutive passed checks that make a server healthy.
    pub rise: u32,
    /// The number of consecutive failed checks that make a server unhealthy.
    pub fall: u32,
    /// The statuses of a healthy server.
    pub status: RangeInclusive<u16>,
}
