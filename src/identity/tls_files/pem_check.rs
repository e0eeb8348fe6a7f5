//! A check of PEM text with authorities, before a configuration names it.
//!
//! Guarantees: what passes can be a trust anchor.
//!
//! Leaves to others: the validity of single certificates (`trust`).

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

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
    if store.is_empty() { Err("holds no certificate; write those of the authorities as PEM".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
