//! Whether the requests of a connection are refused because of its client certificate, after a handshake that accepted
//! it.
//!
//! Guarantees: the verdict follows from the settings and the certificate alone.
//!
//! Leaves to others: the handshake (`trust_set`, `verification`), and the response (`proxy`).

use std::sync::Arc;

use crate::identity::certificate::forwarded_certificate::ShownCertificate;
use crate::identity::tls_files::{AuthRefusal, ClientAuth, ClientAuthMode};

/// Why the requests of a connection are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateFault {
    /// There is no certificate, and one is required.
    Missing,
    /// The certificate was not accepted.
    NotAccepted,
    /// The subject of the certificate is not one of those that are accepted.
    OtherSubject,
}

/// The refusal of all requests of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRefusal {
    /// Why.
    pub fault: CertificateFault,
    /// The page to which the caller is redirected.
    pub error_page: Option<Arc<str>>,
}

impl ClientAuth {
    /// Why the requests of a connection with this certificate are refused; `None` if they are not.
    pub(crate) fn refuse_requests(&self, shown: ShownCertificate<'_>) -> Option<CertificateRefusal> {
        let error_page = match &self.refusal {
            AuthRefusal::Response { error_page } => error_page.clone(),
            AuthRefusal::Handshake => None,
        };
        if self.refusal != AuthRefusal::Handshake
            && let Some(fault) = self.fault_of(shown)
        {
            return Some(CertificateRefusal { fault, error_page });
        }
        let subject = self.subject.as_ref().filter(|subject| !subject.is_match(&shown.verified_subject()));
        subject.map(|_| CertificateRefusal { fault: CertificateFault::OtherSubject, error_page: None })
    }

    fn fault_of(&self, shown: ShownCertificate<'_>) -> Option<CertificateFault> {
        match (shown, self.mode) {
            (ShownCertificate::None, ClientAuthMode::Required) => Some(CertificateFault::Missing),
            (ShownCertificate::None | ShownCertificate::Verified(_), _) => None,
            (ShownCertificate::Unaccepted(_), ClientAuthMode::AllowInsecureFallback) => None,
            (ShownCertificate::Unaccepted(one), ClientAuthMode::AnyAuthority) if one.is_untrusted() => None,
            (ShownCertificate::Unaccepted(_), _) => Some(CertificateFault::NotAccepted),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;

    use super::*;
    use crate::identity::certificate::subject_pattern::SubjectPattern;
    use crate::identity::certificate::unaccepted_certificate::UnacceptedCertificate;
    use ClientAuthMode::{AllowInsecureFallback, AnyAuthority, Optional, Required};

    #[test]
    fn requests_are_refused_by_mode_and_certificate() {
        let leaf = [CertificateDer::from(&b"leaf"[..])];
        let untrusted = UnacceptedCertificate::new(&leaf, "unknown", true);
        let expired = UnacceptedCertificate::new(&leaf, "expired", false);
        let (missing, not_accepted) = (Some(CertificateFault::Missing), Some(CertificateFault::NotAccepted));
        for (mode, expected) in [
            (Required, [missing, None, not_accepted, not_accepted]),
            (Optional, [None, None, not_accepted, not_accepted]),
            (AnyAuthority, [None, None, None, not_accepted]),
            (AllowInsecureFallback, [None, None, None, None]),
        ] {
            let refusal = AuthRefusal::Response { error_page: Some("https://a.example/".into()) };
            let auth = ClientAuth { mode, refusal, ..ClientAuth::default() };
            let shown = [
                ShownCertificate::None,
                ShownCertificate::Verified(&leaf[0]),
                ShownCertificate::Unaccepted(&untrusted),
                ShownCertificate::Unaccepted(&expired),
            ];
            let found = shown.map(|shown| auth.refuse_requests(shown));
            assert_eq!(found.clone().map(|found| found.map(|found| found.fault)), expected, "{mode:?}");
            assert!(found.iter().flatten().all(|found| found.error_page.is_some()));
            let in_handshake = ClientAuth { refusal: AuthRefusal::Handshake, ..auth };
            assert!(shown.iter().all(|shown| in_handshake.refuse_requests(*shown).is_none()), "{mode:?}");
        }
    }

    #[test]
    fn only_a_verified_certificate_has_a_subject() {
        let subject = Some(SubjectPattern::parse("^$|^CN=police$").expect("an expression"));
        let none =
            ClientAuth { subject: Some(SubjectPattern::parse(".").expect("an expression")), ..Default::default() };
        let refused = none.refuse_requests(ShownCertificate::None).expect("a refusal");
        assert_eq!(refused, CertificateRefusal { fault: CertificateFault::OtherSubject, error_page: None });
        let empty = ClientAuth { subject, ..ClientAuth::default() };
        assert_eq!(empty.refuse_requests(ShownCertificate::None), None);
    }
}
