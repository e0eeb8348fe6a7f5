//! The door for traffic: accepts connections, tells who calls, and takes every command through its life.
//!
//! Read [`exchange`] first. Guarantees: a command is counted as received before anything is decided; nothing is forwarded
//! without `Admitted`, which only `exchange::admit` makes; whatever is admitted settles exactly once, however it ends.
//! Knows neither the configuration file nor Prometheus' text, and decides nothing itself: `policy` and `limit` do.

pub mod exchange;

// The steps, in their order.

// What they hold.
mod worker;

// What crosses.
mod capacity;
mod downstream;
mod io;
pub mod message;
mod upstream;

pub use capacity::connections::ConnectionLimits;
pub use downstream::listener::{AcceptSettings, ConnectionsMax, TrafficListener};
#[doc(hidden)] // for fuzz/ only
pub use downstream::proxy_protocol::read_proxy_header;
pub use downstream::worker_thread::{WorkerHandle, WorkerShutdown, start_worker};
pub use message::grammar::malformed::MalformedRequest;
pub use message::request_head::RequestHead;
pub use upstream::{HealthChecker, UpstreamHealth};
pub use worker::WorkerParts;
