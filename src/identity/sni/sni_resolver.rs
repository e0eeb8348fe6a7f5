//! Shows the server's certificate to callers that name a host the listener serves, and to nobody else.
//!
//! rustls asks after it has put a ClientHello together from however many pieces it came in (a post-quantum one never fits
//! into one packet): nobody looks into a handshake by hand here, and there is no other configuration to fall back to.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::server_names::ListenerHosts;

/// What rustls calls it when nothing is shown; it is the only sign of it.
const NO_CERTIFICATE_RESOLVED: &str = "no server certificate chain resolved";

/// One certificate, for the hosts of one listener.
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

/// Whether a handshake failed because its server name, or the lack of one, is not served here.
pub fn is_unserved_host_error(fault: &rustls::Error) -> bool {
    matches!(fault, rustls::Error::General(what) if what == NO_CERTIFICATE_RESOLVED)
}
