//! Checks of PEM texts before a configuration names them: authorities, and certificates that the gateway shows to
//! servers.
//!
//! Guarantees: what passes can be a trust anchor, or can be shown.
//!
//! Leaves to others: expiry, and the certificates of listeners (`tls_config`).

use std::collections::BTreeSet;
use std::path::Path;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};

use super::TlsFindings;
use super::memory_texts::MemoryTexts;
use super::pem_store::PemStore;

/// Checks that a chain belongs to its key. It may be a certificate for clients only.
///
/// # Errors
/// The fault, and what to do.
pub fn check_client_pair(chain: &[u8], key: &[u8]) -> Result<(), String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| format!("the certificate is not PEM: {error:?}"))?;
    if chain.is_empty() {
        return Err("holds no certificate; write the chain as PEM, the own certificate first".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key is not PEM: {error:?}"))?;
    let pair = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
    pair.map(drop).map_err(|error| format!("the key cannot be used for the certificate: {error}"))
}

/// Checks that a text holds certificates, of which each can be a trust anchor.
///
/// # Errors
/// The fault, and what to do.
pub fn check_authorities(pem: &[u8]) -> Result<(), String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("is not PEM: {error:?}"))?;
        store.add(certificate).map_err(|error| format!("holds a certificate that cannot be used: {error}"))?;
    }
    if store.is_empty() {
        Err("holds no certificate; write those of the authorities as PEM".to_owned())
    } else {
        Ok(())
    }
}

/// The certificates in a text with authorities, as a listener reads them: the SHA-256 of each.
///
/// # Errors
/// The fault, and what to do.
pub fn authority_digests(pem: &[u8]) -> Result<BTreeSet<[u8; 32]>, String> {
    const NAME: &str = "memory:authorities";
    let texts = MemoryTexts::default();
    texts.set(NAME, pem.to_vec()).map_err(|error| error.to_string())?;
    let store = PemStore::new(&texts);
    let mut findings = TlsFindings::new(&store);
    let certificates = findings.read_authorities(Path::new(NAME));
    match findings.problems.first() {
        Some(problem) => Err(problem.what.clone()),
        None => Ok(certificates.iter().map(|der| Sha256::digest(der).into()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_without_a_certificate_or_key_is_refused() {
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (chain, expected) in [("", "holds no certificate"), (certificate, "the key is not PEM")] {
            let fault = check_client_pair(chain.as_bytes(), b"").expect_err("a fault");
            assert!(fault.contains(expected), "{fault}");
        }
    }

    #[test]
    fn texts_without_usable_certificates_are_refused() {
        for (text, expected) in [
            ("", "holds no certificate"),
            ("not PEM at all", "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be used"),
            ("-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n", "is not PEM"),
        ] {
            let fault = check_authorities(text.as_bytes()).expect_err("a fault");
            assert!(fault.contains(expected), "{text}: {fault}");
        }
    }
}
