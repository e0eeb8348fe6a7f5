//! Which hosts a listener serves: matching of SNI and authority, and the certificate shown.
//!
//! Guarantees: one match for the handshake and for each command. Leaves to `proxy`: what is refused.

pub(crate) mod server_names;
pub(crate) mod sni_resolver;
