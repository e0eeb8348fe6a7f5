//! Verifies the certificate chains of callers.
//!
//! Guarantees: key usage, path length, name constraints and revocation are checked beside what webpki checks.
//! Leaves to `revocation`: the lists; to `trust`: the authorities.

pub(crate) mod client_verifier;
pub(crate) mod trust_fingerprint;
pub(crate) mod trusted_files;
pub(crate) mod verify_error;
