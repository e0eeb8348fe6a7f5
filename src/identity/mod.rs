//! Who: from a verified client certificate to a caller.
//!
//! Guarantees: a [`Caller`] is made only from the peer certificate of a finished handshake that rustls verified; what a
//! certificate says is read by one pure function, [`identities_of_der`]; a listener that asks for client certificates
//! never resumes a session, so that every connection's certificate is checked against today's authorities and
//! revocation lists; private keys are never logged or shown; a handshake and the commands after it are held to the same hosts,
//! by one match ([`ServerNames`]).
//!
//! Leaves to others: which department a caller belongs to (`policy`), when to read the files again (`app`), and asking
//! [`ServerTls::still_trusts`] about the callers of open connections after that (`proxy`).

mod authority;
mod caller;
mod certificate;
mod client;
mod constraints;
mod der;
mod expiry;
mod fault;
mod files;
#[cfg(test)]
mod handshakes;
#[cfg(test)]
mod judging;
mod list;
#[cfg(test)]
mod loading;
mod names;
mod own;
mod pem;
mod resolver;
mod revocation;
mod scope;
mod serials;
mod server;
mod shown;
mod signed;
mod trust;
mod trusted;
mod verifier;

pub use authority::{Authority, AuthorityError, ClientRequest, Issued, Validity};
pub use caller::Caller;
pub use certificate::{BadCertificate, identities_of_der};
pub use client::{SubsystemTls, SubsystemTlsFiles};
pub use expiry::{Expiry, WARNING_DAYS, ending_soon, next_ending};
pub use fault::fault_in_words;
pub use files::{ClientAuth, ExpiredLists, PathBufDisplay, TlsFiles, TlsProblem, certificates_of_file};
pub use names::{HostPattern, MissingName, NamePolicy, ServedNames, ServerNames};
pub use resolver::names_no_served_host;
pub use server::ServerTls;
pub use shown::ShownCertificate;
pub use trusted::{AuthorityInUse, ListInUse, TrustedFiles};
