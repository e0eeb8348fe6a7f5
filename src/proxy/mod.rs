//! The door for traffic: accepts connections, tells who calls, and takes every command through its life.
//!
//! Read [`exchange`] first. Guarantees: a command is counted as received before anything is decided; nothing is forwarded
//! without `Admitted`, which only `admit` makes; whatever is admitted settles exactly once, however it ends.
//! Knows neither the configuration file nor Prometheus' text, and decides nothing itself: `policy` and `limit` do.

pub mod exchange;

// The steps, in their order.
mod admit;
mod connection;
mod forward;
mod frames;
mod here;
mod http1;
mod http2;
mod interim;
mod listener;
mod refuse;
mod thread;

// What they hold.
mod account;
mod alarms;
mod call;
mod caps;
mod compress;
mod departing;
mod handshakes;
mod heads;
mod live;
mod load;
mod mirror;
mod patient;
mod peer;
mod peers;
mod progress;
mod proxied;
mod pulse;
mod seats;
mod waiters;
mod worker;

// What crosses.
mod body;
mod extended;
mod fault;
mod fields;
mod grpc;
mod head;
mod headers;
mod hpack;
mod message_body;
mod numbers;
mod pace;
mod request_body;
mod request_id;
mod silence;
mod socket;
mod tunnel;
mod untaken;
mod upstream;
pub mod wire;

pub use caps::Caps;
pub use fault::Fault;
pub use head::Head;
pub use listener::{AcceptSettings, ConnectionsMax, Listener};
#[doc(hidden)] // for fuzz/ only
pub use proxied::read as read_proxy_header;
pub use thread::{Stop, WorkerHandle, start_worker};
pub use upstream::{Checks, UpstreamHealth};
pub use worker::WorkerParts;
