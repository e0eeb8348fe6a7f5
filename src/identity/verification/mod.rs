//! Verification of the certificate chains of callers, and of servers with chosen names.
//!
//! Guarantees: key usage, path length, name constraints and revocation are checked in addition to the checks of webpki.
//!
//! Leaves to others:
//! - the revocation lists: `revocation`;
//! - the authorities: `trust`.

pub(crate) mod client_verifier;
pub(crate) mod server_verifier;
pub(crate) mod trust_fingerprint;
pub(crate) mod trusted_files;
pub(crate) mod verify_error;
