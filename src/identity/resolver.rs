//! Shows the server's certificate to callers that name a host the listener serves, and to nobody else.
//!
//! rustls asks after it has put a ClientHello together from however many pieces it came in (a post-quantum one never fits
//! into one packet): nobody looks into a handshake by hand here, and there is no other configuration to fall back to.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::names::ServerNames;

/// What rustls calls it when nothing is shown; it is the only sign of it.
const NOTHING_SHOWN: &str = "no server certificate chain resolved";

/// One certificate, for the hosts of one listener.
#[derive(Debug)]
pub(super) struct ForServedNames {
    pub(super) own: Arc<CertifiedKey>,
    pub(super) names: ServerNames,
}

impl ResolvesServerCert for ForServedNames {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.names.bind(hello.server_name()).map(|_| Arc::clone(&self.own))
    }
}

/// Whether a handshake failed because its server name, or the lack of one, is not served here.
pub fn names_no_served_host(fault: &rustls::Error) -> bool {
    matches!(fault, rustls::Error::General(what) if what == NOTHING_SHOWN)
}
