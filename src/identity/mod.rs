//! Identity: TLS, and the mapping from a verified client certificate to a caller.
//!
//! Guarantees:
//! - A [`Caller`] is made only from the peer certificate of a finished handshake whose chain was verified: in the
//!   handshake, or right after it where the handshake accepts every chain (`allowInsecureFallback`).
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
//! - the call of [`TrustSet::still_accepts`] for the callers of open connections after a reload: `proxy`.

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
pub(crate) use certificate::certificate_summary::is_hidden;
pub use certificate::client_identities::{BadCertificate, identities_of_der};
pub(crate) use certificate::expiry::asn1_timestamp;
pub use certificate::expiry::{EXPIRY_WARNING_DAYS, ExpiringItem, expiry_warnings, next_expiry};
pub(crate) use certificate::forwarded_certificate::base64_text;
pub use certificate::forwarded_certificate::{CertificateForwarding, ForwardedCertificate, ShownCertificate};
pub use certificate::subject_pattern::SubjectPattern;
pub use certificate::unaccepted_certificate::UnacceptedCertificate;
pub use certificate::verified_caller::Caller;
pub use sni::host_pattern::HostPattern;
pub use sni::server_names::{ConnectionHosts, ListenerHosts, MissingSni};
pub use sni::sni_resolver::{is_unserved_host_error, unserved_host_error};
pub use tls_config::client_config::{SubsystemTls, SubsystemTlsFiles, system_client_tls};
pub use tls_config::request_verdict::{CertificateFault, CertificateRefusal};
pub use tls_config::server_config::{HandshakePeer, ServerTls};
pub use tls_config::trust_set::TrustSet;
pub use tls_files::key_cache::KeyCache;
pub use tls_files::memory_texts::{MEMORY_BYTES_MAX, MEMORY_TEXTS_MAX, MemoryOrDisk, MemoryTextError, MemoryTexts};
pub use tls_files::pem_check::{authority_digests, check_authorities, check_client_pair};
pub use tls_files::pem_source::{DiskFiles, MEMORY_PREFIX, PemSource, PemText, is_memory_name};
pub use tls_files::pem_store::{FileDigest, PemStore};
pub use tls_files::{
    AuthRefusal, CertificateFiles, ClientAuth, ClientAuthMode, ExpiredCrlPolicy, PathBufDisplay, TlsFiles, TlsProblem,
    read_certificates,
};
pub(crate) use tls_files::{read_private_key, read_revocation_list};
pub use verification::server_verifier::SubjectAltName;
pub use verification::trusted_files::{AuthorityInUse, RevocationListInUse, TrustedFiles};
pub use verification::verify_error::describe_tls_error;
