//! Identity: TLS, and the mapping from a verified client certificate to a caller.
//!
//! Guarantees:
//! - A [`Caller`] is made only from the peer certificate of a finished handshake that rustls verified.
//! - One pure function, [`identities_of_der`], reads the identities of a certificate.
//! - A listener that asks for client certificates never resumes a session. So every connection's certificate is checked
//!   against the current authorities and revocation lists.
//! - Private keys are never logged or shown.
//! - A handshake and the commands after it are held to the same hosts, by one match ([`ListenerHosts`]).
//!
//! Leaves to others:
//! - the department of a caller: `policy`;
//! - the moment to read the files again: `app`;
//! - the problems of files as problems of the configuration: `config`;
//! - the call of [`ServerTls::still_accepts`] for the callers of open connections after a reload: `proxy`.

mod certificate;
mod der;
mod revocation;
mod sni;
mod tests;
mod tls_config;
mod tls_files;
mod trust;
mod verification;

pub use certificate::certificate_summary::CertificateSummary;
pub use certificate::client_identities::{BadCertificate, identities_of_der};
pub(crate) use certificate::expiry::asn1_timestamp;
pub use certificate::expiry::{EXPIRY_WARNING_DAYS, ExpiringItem, expiry_warnings, next_expiry};
pub use certificate::verified_caller::Caller;
pub use sni::server_names::{ConnectionHosts, HostPattern, HostPolicy, ListenerHosts, MissingSni};
pub use sni::sni_resolver::is_unserved_host_error;
pub use tls_config::client_config::{SubsystemTls, SubsystemTlsFiles};
pub use tls_config::server_config::ServerTls;
pub use tls_files::pem_source::{DiskFiles, PemSource, PemText};
pub use tls_files::pem_store::{FileDigest, PemStore};
pub use tls_files::{ClientAuth, ExpiredCrlPolicy, PathBufDisplay, TlsFiles, TlsProblem, read_certificates};
pub(crate) use tls_files::{read_private_key, read_revocation_list};
pub use verification::trusted_files::{AuthorityInUse, RevocationListInUse, TrustedFiles};
pub use verification::verify_error::describe_tls_error;
