//! The operator's door: metrics, health, the state of the configuration, and usage, over plain HTTP/1.1.
//!
//! Guarantees: nothing here changes anything, shows a secret or is reachable on a traffic listener; connections, requests
//! and waits have limits, so a slow scraper cannot hold the gateway, and silent connections keep no probe out. It authenticates
//! nobody: bind it to loopback or to a network of operators.

mod connection_limit;
mod endpoints;
mod host_check;
mod response;
mod server;
mod shared_scrape;
mod state;
mod usage_api;

pub use self::state::AdminState;
pub use server::serve_admin;
pub use shared_scrape::SharedScrapes;
