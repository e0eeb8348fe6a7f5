//! The door for traffic: accepts connections, tells who calls, and takes every command through its life.
//!
//! Read [`exchange`] first. Guarantees: a command is counted as received before anything is decided; nothing is forwarded
//! without [`admit::Admitted`], which only `admit` makes; whatever is admitted settles exactly once, however it ends.
//! Knows neither the configuration file nor Prometheus' text, and decides nothing itself: `policy` and `limit` do.

pub mod exchange;

mod account;
mod admit;
mod body;
mod connection;
mod forward;
mod head;
mod headers;
mod listener;
mod live;
mod refuse;
mod request_id;
mod socket;
mod upstream;
mod worker;

pub use listener::{AcceptSettings, Listener};
pub use upstream::UpstreamHealth;
pub use worker::{Worker, WorkerHandle, WorkerParts};
