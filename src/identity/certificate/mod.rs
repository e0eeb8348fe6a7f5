//! The contents of a certificate: identities, use as a server, expiry, a summary for the log.
//!
//! Guarantees: the functions are pure and verify no signature.
//!
//! Leaves to `verification`: signatures and trust.

pub(crate) mod certificate_summary;
pub(crate) mod client_identities;
pub(crate) mod distinguished_name;
pub(crate) mod expiry;
pub(crate) mod forwarded_certificate;
pub(crate) mod server_certificate;
pub(crate) mod subject_pattern;
pub(crate) mod unaccepted_certificate;
pub(crate) mod verified_caller;
