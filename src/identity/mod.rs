//! Who: from a verified client certificate to a caller.
//!
//! Guarantees: a [`Caller`] is made only from the peer certificate of a finished handshake that rustls verified; what a
//! certificate says is read by one pure function, [`identities_of_der`]; a listener that asks for client certificates
//! never resumes a session, so that every connection's certificate is checked against today's authorities and
//! revocation lists; private keys are never logged or shown; a handshake and the commands after it are held to the same hosts,
//! by one match ([`ListenerHosts`]).
//!
//! Leaves to others: which department a caller belongs to (`policy`), when to read the files again (`app`), and asking
//! [`ServerTls::still_accepts`] about the callers of open connections after that (`proxy`).

mod authority;
mod certificate;
mod der;
mod revocation;
mod sni;
mod tests;
mod tls_config;
mod tls_files;
mod trust;
mod verification;

pub use authority::{AuthorityError, CertificateAuthority, ClientRequest, IssuedFiles, ValidityPeriod};
pub use certificate::caller::Caller;
pub use certificate::certificate_summary::CertificateSummary;
pub use certificate::client_identities::{BadCertificate, identities_of_der};
pub use certificate::expiry::{EXPIRY_WARNING_DAYS, ExpiringItem, expiry_warnings, next_expiry};
pub use sni::server_names::{ConnectionHosts, HostPattern, HostPolicy, ListenerHosts, MissingSni};
pub use sni::sni_resolver::is_unserved_host_error;
pub use tls_config::client_config::{SubsystemTls, SubsystemTlsFiles};
pub use tls_config::server_config::ServerTls;
pub use tls_files::{ClientAuth, ExpiredCrlPolicy, PathBufDisplay, TlsFiles, TlsProblem, read_certificates};
pub use verification::trusted_files::{AuthorityInUse, RevocationListInUse, TrustedFiles};
pub use verification::verify_error::describe_tls_error;
