//! A certificate resolver: presents the server's certificate only for a server name (SNI) that the listener serves.
//!
//! rustls calls the resolver after it has reassembled the ClientHello from any number of records. A post-quantum
//! ClientHello never fits into one packet, so the gateway does not parse handshakes itself. There is no fallback
//! configuration.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::server_names::ListenerHosts;

/// The error text of rustls when the resolver returns no certificate. It is the only sign of this case.
const NO_CERTIFICATE_RESOLVED: &str = "no server certificate chain resolved";

/// A resolver with one certificate, for the hosts of one listener.
#[derive(Debug)]
pub(crate) struct SniResolver {
    pub(crate) server_key: Arc<CertifiedKey>,
    pub(crate) names: ListenerHosts,
}

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.names.hosts_for_sni(hello.server_name()).map(|_| Arc::clone(&self.server_key))
    }
}

/// Whether a handshake failed because the listener does not serve its server name, or does not accept a missing one.
pub fn is_unserved_host_error(fault: &rustls::Error) -> bool {
    matches!(fault, rustls::Error::General(what) if what == NO_CERTIFICATE_RESOLVED)
}
