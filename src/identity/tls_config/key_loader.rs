//! Loads and checks the gateway's own certificate chains and keys, for listeners and towards subsystems.
//!
//! Guarantees: a chain and a key that are returned belong together.
//!
//! Leaves to others: the files (`tls_files`), and the use of the key (`server_config`, `client_config`).

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::InconsistentKeys;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::identity::certificate::expiry::{self, ExpiringItem};
use crate::identity::tls_files::pem_store::PemStore;
use crate::identity::tls_files::{TlsFindings, TlsProblem};

/// The state of building the TLS settings of one listener or subsystem.
pub(crate) struct KeyLoader<'s> {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) now: Timestamp,
    pub(crate) findings: TlsFindings<'s>,
}

impl<'s> KeyLoader<'s> {
    pub(crate) fn new(store: &'s PemStore<'s>, now: Timestamp) -> Self {
        Self { provider: Arc::new(aws_lc_rs::default_provider()), now, findings: TlsFindings::new(store) }
    }

    /// The gateway's own chain and key, if they match.
    pub(crate) fn load_key(&mut self, certificate: &Path, key: &Path) -> Option<Arc<CertifiedKey>> {
        let chain = self.findings.read_certificates(certificate, "a certificate");
        let pair = self.findings.read_key(key);
        self.check_server_certificate(certificate, chain.first()?);
        let certified = self.findings.certified_key(chain, pair?, &self.provider);
        self.findings.value_or_problem(
            certified.map_err(|error| TlsProblem::new(key, unusable_key_message(&error, certificate))),
        )
    }

    fn check_server_certificate(&mut self, path: &Path, leaf: &CertificateDer<'_>) {
        let Ok(([], leaf)) = X509Certificate::from_der(leaf) else {
            return self.findings.add_problem(path, "contains a certificate that is not well-formed X.509");
        };
        if let Some(what) = expiry::validity_problem(&leaf, self.now) {
            self.findings.add_problem(path, what);
        }
        let at = expiry::asn1_timestamp(leaf.validity().not_after);
        self.findings.expiries.push(ExpiringItem { role: "server", name: leaf.subject().to_string(), expires_at: at });
    }
}

fn unusable_key_message(error: &rustls::Error, certificate: &Path) -> String {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
            "this key does not belong to the first certificate in {}; the file must begin with the server's own \
             certificate, followed by its issuers",
            certificate.display()
        ),
        other => format!(
            "this key cannot be used: {other}; expected an ECDSA (P-256, P-384), Ed25519 or RSA (2048 bits or more) key"
        ),
    }
}
