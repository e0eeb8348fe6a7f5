//! The traffic proxy: accepts connections, identifies callers, and carries every command from receipt to settlement.
//!
//! Read [`exchange`] first.
//!
//! Guarantees:
//! - A command is counted as received before any decision about it.
//! - Nothing is forwarded without an `Admitted`, and only `exchange::admit` makes one.
//! - Every admitted command settles exactly once, however it ends.
//!
//! Leaves to others: decisions about access and limits (`policy`, `limit`). The proxy reads neither the configuration
//! file nor the text format of Prometheus.

pub mod exchange; // the life of one command, from its head to its response

// The order of the folders, from top to bottom. A folder imports only folders below it:
// `downstream`, `exchange`, `worker`, `usage_page` and `upstream`, `capacity`, `message`, `io`.

mod worker; // the state of one traffic thread

mod capacity; // concurrency limits: connections, handshakes, commands in flight
mod downstream; // the client side: listener, TLS, HTTP/1.1 and HTTP/2 servers
mod io; // byte streams, timers, wakers
pub mod message; // grammar, header rules, bodies
mod upstream; // the subsystem side: connection pools, load balancing, health
mod usage_page; // what departments read about their own usage

pub use capacity::connections::ConnectionLimits;
pub use downstream::listener::{AcceptSettings, ConnectionsMax, CurrentSettings, TrafficListener};
#[doc(hidden)] // for fuzz/ only
pub use downstream::proxy_protocol::read_proxy_header;
pub use downstream::worker_thread::{WorkerHandle, WorkerShutdown, start_worker};
pub use message::grammar::malformed::MalformedRequest;
pub use message::request_head::RequestHead;
pub use upstream::{HealthChecker, UpstreamHealth};
#[doc(hidden)] // for fuzz/ only
pub use upstream::{ResponseEnd, WholeResponse, read_whole_response};
pub use usage_page::{UsagePageQueue, UsagePages, UsageSources};
pub use worker::{TrafficComponents, WorkerSettings};
