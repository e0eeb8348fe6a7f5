//! A certificate resolver: presents a server certificate only for a server name (SNI) that the listener serves.
//!
//! rustls calls the resolver after it has reassembled the ClientHello from any number of records. A post-quantum
//! ClientHello never fits into one packet, so the gateway does not parse handshakes itself. There is no fallback
//! configuration.
//!
//! Guarantees: a handshake never succeeds with the trust set of another server name. Each trust set has a resolver of
//! its own, which refuses the names of the other sets.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::server_names::ListenerHosts;

/// The error text of rustls when the resolver returns no certificate. It is the only sign of this case.
const NO_CERTIFICATE_RESOLVED: &str = "no server certificate chain resolved";

/// The certificates of a listener with their keys, and the trust set of each.
#[derive(Debug)]
pub(crate) struct ServerKeys {
    pub(crate) keys: Vec<Arc<CertifiedKey>>,
    /// The position of the trust set of each certificate, in the same order.
    pub(crate) trust_sets: Vec<usize>,
    pub(crate) hosts: ListenerHosts,
}

impl ServerKeys {
    /// The trust set of a handshake that named this host, or none. `None` if the handshake must fail.
    pub(crate) fn trust_set_for_sni(&self, server_name: Option<&str>) -> Option<usize> {
        let first = *self.hosts.certificates_for_sni(server_name)?.first()?;
        self.trust_sets.get(first).copied()
    }
}

/// The resolver of one trust set.
#[derive(Debug)]
pub(crate) struct SniResolver {
    pub(crate) server_keys: Arc<ServerKeys>,
    pub(crate) trust_set: usize,
}

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let ServerKeys { keys, trust_sets, hosts } = &*self.server_keys;
        let found = hosts.certificates_for_sni(hello.server_name())?;
        let of_set = || found.iter().filter(|certificate| trust_sets.get(**certificate) == Some(&self.trust_set));
        // Several certificates have keys of different types. Without a common scheme, rustls fails with its own error.
        let usable = of_set().find(|certificate| {
            keys.get(**certificate).is_some_and(|own| own.key.choose_scheme(hello.signature_schemes()).is_some())
        });
        keys.get(*usable.or_else(|| of_set().next())?).map(Arc::clone)
    }
}

/// The error of a connection that names a server which nobody has here, before any handshake.
pub fn unserved_host_error() -> rustls::Error {
    rustls::Error::General(NO_CERTIFICATE_RESOLVED.to_owned())
}

/// Whether a handshake failed because the listener does not serve its server name, or does not accept a missing one.
pub fn is_unserved_host_error(fault: &rustls::Error) -> bool {
    matches!(fault, rustls::Error::General(what) if what == NO_CERTIFICATE_RESOLVED)
}
