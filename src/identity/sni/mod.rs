//! The hosts that a listener serves: matching of the SNI and of the request authority, and certificate selection.
//!
//! Guarantees: one match serves both the handshake and each command.
//!
//! Leaves to `proxy`: the refusal of a command for another host.

pub(crate) mod host_pattern;
pub(crate) mod server_names;
pub(crate) mod sni_resolver;
