//! The certificate of a caller that was accepted although the certificate was not (`allowInsecureFallback`).
//!
//! Guarantees: the text is bounded and printable. It is a claim of the peer and identifies nobody.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::certificate_summary::CertificateSummary;
use super::client_identities::LEAF_BYTES_MAX;

/// The most characters of a reason that are kept.
const REASON_CHARACTERS_MAX: usize = 256;

/// A certificate that was not accepted, on a connection that was. Cheap to clone. The peer holds the key of the
/// certificate: the handshake has proven that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnacceptedCertificate {
    /// Why the certificate was not accepted, at most 256 characters.
    pub reason: Arc<str>,
    /// The claims of the certificate; `None` if it cannot be parsed.
    pub summary: Option<Arc<CertificateSummary>>,
    /// If the only fault is that no known authority has signed the chain: the words of OpenSSL for it.
    pub openssl_reason: Option<&'static str>,
    /// The certificate, up to the largest size of a caller's certificate.
    pub(crate) der: Option<Arc<[u8]>>,
}

impl UnacceptedCertificate {
    /// The certificate of a chain, with the reason why it was not accepted. `is_untrusted` says that the only fault is
    /// an unknown authority.
    pub(crate) fn new(chain: &[CertificateDer<'_>], reason: &str, is_untrusted: bool) -> Self {
        let reason: String = reason.chars().filter(|one| !one.is_control()).take(REASON_CHARACTERS_MAX).collect();
        let leaf = chain.first().map(|leaf| &**leaf).unwrap_or_default();
        let is_small = leaf.len() <= LEAF_BYTES_MAX;
        Self {
            reason: reason.into(),
            summary: CertificateSummary::from_der(leaf).map(Arc::new),
            openssl_reason: (is_untrusted && is_small).then(|| openssl_reason(chain)),
            der: is_small.then(|| leaf.into()),
        }
    }

    /// Whether the only fault is that no known authority has signed the chain.
    pub fn is_untrusted(&self) -> bool {
        self.openssl_reason.is_some()
    }
}

/// What OpenSSL 3 finds wrong with a chain without a known authority (`X509_verify_cert_error_string`).
fn openssl_reason(chain: &[CertificateDer<'_>]) -> &'static str {
    match (chain, chain.last().is_some_and(is_self_issued)) {
        ([_], true) => "self-signed certificate",
        (_, true) => "self-signed certificate in certificate chain",
        ([_], false) => "unable to verify the first certificate",
        (_, false) => "unable to get local issuer certificate",
    }
}

/// Whether subject and issuer are the same.
pub(crate) fn is_self_issued(der: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, read)| read.subject().as_raw() == read.issuer().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_bounded_and_printable() {
        let junk = [CertificateDer::from(&b"junk"[..])];
        let kept = UnacceptedCertificate::new(&junk, &format!("a\r\nb{}", "x".repeat(1_000)), false);
        assert!(kept.reason.starts_with("abx"));
        assert_eq!(kept.reason.len(), REASON_CHARACTERS_MAX);
        assert_eq!((kept.summary.clone(), kept.is_untrusted()), (None, false));
    }

    #[test]
    fn large_certificate_is_not_kept() {
        let large = vec![0; LEAF_BYTES_MAX + 1];
        let kept = UnacceptedCertificate::new(&[CertificateDer::from(large.as_slice())], "large", true);
        assert_eq!((kept.is_untrusted(), kept.der), (false, None));
    }
}
