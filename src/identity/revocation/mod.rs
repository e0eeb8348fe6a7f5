//! Certificate revocation lists (RFC 5280): parsing, scope, signature, lookup.
//!
//! Guarantees: a list that is not understood whole is not used. Leaves to `verification`: which certificates are
//! looked up.

pub(crate) mod crl;
pub(crate) mod crl_scope;
pub(crate) mod crl_store;
mod serial_set;
