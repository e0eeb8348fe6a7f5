//! The certificate of a caller that was accepted although the certificate was not (`allowInsecureFallback`).
//!
//! Guarantees: the text is bounded and printable. It is a claim of the peer and identifies nobody.

use std::sync::Arc;

use super::certificate_summary::CertificateSummary;

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
}

impl UnacceptedCertificate {
    /// The certificate `der`, with the reason why it was not accepted.
    pub(crate) fn new(der: &[u8], reason: &str) -> Self {
        let reason: String = reason.chars().filter(|one| !one.is_control()).take(REASON_CHARACTERS_MAX).collect();
        Self { reason: reason.into(), summary: CertificateSummary::from_der(der).map(Arc::new) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_bounded_and_printable() {
        let kept = UnacceptedCertificate::new(b"junk", &format!("a\r\nb{}", "x".repeat(1_000)));
        assert!(kept.reason.starts_with("abx"));
        assert_eq!(kept.reason.len(), REASON_CHARACTERS_MAX);
        assert_eq!(kept.summary, None);
    }
}
