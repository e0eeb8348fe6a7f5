//! The settings of traces, read once, at start.

use std::fmt;
use std::time::Duration;

/// The settings of traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracingSettings {
    /// The collector.
    pub endpoint: TraceEndpoint,
    /// One of so many traces that begin here is recorded; 0 stands for none.
    pub one_of: u32,
    /// Whether a caller that sends `traceparent` decides for its own traces.
    pub is_parent_based: bool,
    /// The name of the service in spans.
    pub service_name: String,
    /// The longest time of one request to the collector.
    pub timeout: Duration,
    /// The most spans that wait.
    pub queue: usize,
}

/// The URL of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEndpoint {
    /// Whether it has TLS.
    pub is_tls: bool,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Host and port, as in the field `Host`.
    pub authority: String,
    /// The path.
    pub path: String,
}

impl fmt::Display for TraceEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.is_tls { "https" } else { "http" }, self.authority, self.path)
    }
}
