//! Certificate revocation lists (CRL, RFC 5280): parsing, scope, signature, lookup.
//!
//! Guarantees: a list is used only if every part of it is understood.
//!
//! Leaves to `verification`: the choice of the certificates to look up.

pub(crate) mod crl;
pub(crate) mod crl_scope;
pub(crate) mod crl_store;
mod serial_set;
