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
mod listener;
mod refuse;
mod thread;

// What they hold.
mod account;
mod alarms;
mod call;
mod caps;
mod handshakes;
mod live;
mod peer;
mod peers;
mod progress;
mod proxied;
mod worker;

// What crosses.
mod body;
mod fields;
mod head;
mod headers;
mod request_body;
mod request_id;
mod silence;
mod socket;
mod upstream;

pub use caps::Caps;
pub use head::{Head, Malformed};
pub use listener::{AcceptSettings, ConnectionsMax, Listener};
pub use thread::{Stop, WorkerHandle, start_worker};
pub use upstream::UpstreamHealth;
pub use worker::WorkerParts;
