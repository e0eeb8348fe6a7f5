//! The admin server: metrics, health endpoints, the configuration status, and usage, over plain HTTP/1.1.
//!
//! Guarantees:
//! - No endpoint changes the gateway, shows a secret, or is reachable on a traffic listener.
//! - Connections, requests and waits have limits: a slow scraper cannot block the gateway.
//! - Idle connections cannot keep a health probe out.
//! - A page of hours, however large or slow, takes nothing from `/metrics`: it has limits and errors of its own.
//!
//! Leaves to the operator: access control. The admin server authenticates no client; bind it to loopback or to a
//! network of operators.

mod accept_header;
mod config_page;
mod connection_limit;
mod endpoints;
mod host_check;
mod hours_api;
mod query_text;
mod readiness_page;
mod response;
mod response_body;
mod server;
mod shared_scrape;
mod state;
mod usage_api;

pub use self::state::AdminState;
pub use hours_api::HourPages;
pub use server::serve_admin;
pub use shared_scrape::SharedScrapes;
