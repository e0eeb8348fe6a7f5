//! The rustls configurations: of a listener (downstream) and of the connector to a subsystem (upstream).
//!
//! Guarantees:
//! - TLS 1.3 and 1.2 only.
//! - No crypto provider is installed process-wide.
//!
//! Leaves to `verification`: the verification of a certificate chain.

pub(crate) mod client_config;
pub(crate) mod key_loader;
pub(crate) mod request_verdict;
pub(crate) mod server_config;
pub(crate) mod trust_set;
