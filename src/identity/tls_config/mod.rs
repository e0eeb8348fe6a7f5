//! The rustls configurations: of a listener, and towards a subsystem.
//!
//! Guarantees: TLS 1.3 and 1.2 only; nothing is installed process-wide. Leaves to `verification`: the judgement of
//! a chain.

pub(crate) mod client_config;
pub(crate) mod server_config;
