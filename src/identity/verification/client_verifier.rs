//! The verifier of client certificate chains: webpki finds and verifies a path to an authority, then this module checks
//! the path.
//!
//! webpki looks up only the first list with an issuer's name. It checks neither keyUsage nor the path length of an
//! anchor (docs/decisions/certificates.md). So webpki gets no lists, and this module checks the path again:
//!
//! * keyUsage, where present: each intermediate certificate may sign certificates, and the caller's may sign handshakes
//!   (RFC 5280 section 6.1.4 (n), RFC 8446 section 4.4.2.2);
//! * path length: at most the number of intermediate authorities that the anchor allows (its pathLenConstraint), and at
//!   most `maxDepth` certificates between the caller's and a self-signed authority;
//! * name constraints: URIs, directory names and e-mail addresses satisfy those of the anchor
//!   ([`NameConstraintRules`]);
//! * revocation, where lists are configured: the status of each certificate is known, and none is revoked
//!   ([`CrlStore`]).
//!
//! Guarantees: a path that fails a check here is treated as absent; webpki then tries the other paths.
//!
//! With `allowInsecureFallback` or `refusal: response` the handshake accepts every chain, and the same checks follow
//! after it.
//!
//! Leaves to rustls: the signatures of the handshake itself, in every mode.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::OID_X509_EXT_CRL_DISTRIBUTION_POINTS;
use x509_parser::prelude::FromDer;

use crate::identity::certificate::certificate_summary::{RefusedCertificates, escape_hidden};
use crate::identity::revocation::crl_scope::ScopedCertificate;
use crate::identity::revocation::crl_store::{CrlStore, RevocationQuery, RevocationStatus};
use crate::identity::tls_files::{ClientAuth, ClientAuthMode};
use crate::identity::trust::name_constraints::{ConstraintViolation, NameConstraintRules, SplitConstraints};
use crate::identity::trust::trust_anchors::CrlIssuer;
use crate::identity::trust::trust_anchors::{self, TrustStore, TrustedAuthority};

use super::verify_error::{ChainError, is_untrusted, placeholder_webpki_error, tls_error_from_webpki, unix_timestamp};

/// The verifier of client certificate chains.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    /// The verifier of rustls: for the signatures of handshakes, and for the contents of the certificate request.
    handshake_verifier: Arc<dyn ClientCertVerifier>,
    anchors: Vec<VerifierAnchor>,
    /// The anchors in the form of webpki, in the same order.
    webpki_anchors: Vec<TrustAnchor<'static>>,
    lists: CrlStore,
    algorithms: WebPkiSupportedAlgorithms,
    max_depth: Option<usize>,
    /// The chains that a handshake accepts although their verification fails. It is repeated after the handshake
    /// (`ServerTls::identify_peer`): a finished handshake is no evidence.
    tolerance: HandshakeTolerance,
    refused: Arc<RefusedCertificates>,
}

/// The chains that a handshake accepts although their verification fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandshakeTolerance {
    None,
    /// Those that no known authority has signed (`anyAuthority`).
    Untrusted,
    /// All.
    All,
}

impl HandshakeTolerance {
    fn of(auth: &ClientAuth) -> Self {
        match auth.mode {
            _ if auth.accepts_any_in_handshake() => Self::All,
            ClientAuthMode::AnyAuthority => Self::Untrusted,
            _ => Self::None,
        }
    }
}

/// What a verifier needs beside authorities and lists.
pub(crate) struct VerifierSettings<'a> {
    pub(crate) auth: &'a ClientAuth,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
    /// Where refused certificates are recorded; shared by the verifiers of a listener.
    pub(crate) refused: Arc<RefusedCertificates>,
}

#[derive(Debug)]
struct VerifierAnchor {
    authority: TrustedAuthority,
    /// The number of authorities up to one that is self-signed, without the latter.
    height: usize,
    names: NameConstraintRules,
}

impl ClientVerifier {
    /// A verifier with these authorities and lists. `handshakes` is the verifier of rustls with the same authorities.
    pub(crate) fn new(
        handshakes: Arc<dyn ClientCertVerifier>,
        trust: TrustStore,
        lists: CrlStore,
        settings: VerifierSettings<'_>,
    ) -> Self {
        let heights: Vec<usize> = (0..trust.authorities.len()).map(|position| trust.height_of(position)).collect();
        let (mut anchors, mut of_webpki) = (Vec::new(), trust.roots.roots);
        for ((authority, height), anchor) in trust.authorities.into_iter().zip(heights).zip(&mut of_webpki) {
            let split = SplitConstraints::from_extension(anchor.name_constraints.as_deref());
            anchor.name_constraints = split.for_webpki;
            anchors.push(VerifierAnchor { authority, height, names: split.rules });
        }
        Self {
            handshake_verifier: handshakes,
            anchors,
            webpki_anchors: of_webpki,
            lists,
            algorithms: settings.algorithms,
            max_depth: settings.auth.max_depth,
            tolerance: HandshakeTolerance::of(settings.auth),
            refused: settings.refused,
        }
    }

    /// Verifies a chain at a moment.
    pub(crate) fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = EndEntityCert::try_from(leaf).map_err(tls_error_from_webpki)?;
        let fault = RefCell::new(None);
        let judge_path = |path: &VerifiedPath<'_>| {
            self.check_path(leaf, path, now).map_err(|found| {
                let stand_in = placeholder_webpki_error(&found, now);
                fault.borrow_mut().get_or_insert(found);
                stand_in
            })
        };
        let (algorithms, usage) = (self.algorithms.all, KeyUsage::client_auth());
        let verified =
            parsed.verify_for_usage(algorithms, &self.webpki_anchors, issuers, now, usage, None, Some(&judge_path));
        match verified {
            Ok(_) => Ok(()),
            // The error of a path that webpki has found says more than the errors of its failed searches.
            Err(error) => {
                Err(fault.take().map_or_else(|| tls_error_from_webpki(error), |fault| fault.into_tls_error(now)))
            }
        }
    }

    fn check_path(&self, leaf: &CertificateDer<'_>, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), ChainError> {
        let anchor = self.anchor_of(path).ok_or_else(|| ChainError::Unreadable("its authority".to_owned()))?;
        let issuers: Vec<CertificateDer<'_>> = path.intermediate_certificates().map(webpki::Cert::der).collect();
        let chain = std::iter::once(leaf).chain(&issuers).map(|der| PathCertificate::parse(der));
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        anchor.check_path_length(issuers.len())?;
        self.check_depth(issuers.len() + anchor.height)?;
        for (depth, certificate) in chain.iter().enumerate() {
            certificate.check_key_usage(depth > 0)?;
            let violation =
                |ConstraintViolation(what)| ChainError::NameConstraint { subject: certificate.subject(), what };
            anchor.names.check_certificate(&certificate.0).map_err(violation)?;
        }
        if self.lists.is_empty() { Ok(()) } else { self.check_revocation(&chain, anchor, now) }
    }

    /// The anchor of a path. The path refers into `webpki_anchors`, so the anchor is found by address: names and keys
    /// may repeat there.
    fn anchor_of(&self, path: &VerifiedPath<'_>) -> Option<&VerifierAnchor> {
        let found = std::ptr::from_ref(path.anchor()).cast::<()>();
        let is_found = |anchor: &TrustAnchor<'_>| std::ptr::from_ref(anchor).cast::<()>() == found;
        self.anchors.get(self.webpki_anchors.iter().position(is_found)?)
    }

    fn check_depth(&self, found: usize) -> Result<(), ChainError> {
        match self.max_depth {
            Some(allowed) if found > allowed => Err(ChainError::TooDeep { allowed, found }),
            _ => Ok(()),
        }
    }

    fn check_revocation(
        &self,
        chain: &[PathCertificate<'_>],
        anchor: &VerifierAnchor,
        now: UnixTime,
    ) -> Result<(), ChainError> {
        for (depth, certificate) in chain.iter().enumerate() {
            let (issuer, may_sign_lists) = match chain.get(depth + 1) {
                Some(issuer) => (issuer.crl_issuer(), trust_anchors::may_sign_lists(&issuer.0)),
                None => (anchor.authority.crl_issuer(), anchor.authority.may_sign_lists),
            };
            if !may_sign_lists {
                return Err(ChainError::UnknownStatus);
            }
            self.check_status(&certificate.revocation_query(depth > 0), &issuer, now)?;
        }
        Ok(())
    }

    fn check_status(
        &self,
        certificate: &RevocationQuery<'_>,
        issuer: &CrlIssuer<'_>,
        now: UnixTime,
    ) -> Result<(), ChainError> {
        match self.lists.status_of(certificate, issuer, (unix_timestamp(now), &self.algorithms)) {
            RevocationStatus::Good => Ok(()),
            RevocationStatus::Revoked => Err(ChainError::Revoked),
            RevocationStatus::Expired(at) => Err(ChainError::ListExpired(at)),
            RevocationStatus::Unknown => Err(ChainError::UnknownStatus),
        }
    }
}

impl VerifierAnchor {
    /// The path length constraint of the anchor (RFC 5280 section 4.2.1.9).
    fn check_path_length(&self, found: usize) -> Result<(), ChainError> {
        match self.authority.path_length {
            Some(allowed) if found > allowed => {
                Err(ChainError::TooLong { authority: self.authority.name.clone(), allowed, found })
            }
            _ => Ok(()),
        }
    }
}

/// A certificate of a path.
struct PathCertificate<'a>(X509Certificate<'a>);

impl<'a> PathCertificate<'a> {
    fn parse(der: &'a CertificateDer<'_>) -> Result<Self, ChainError> {
        match X509Certificate::from_der(der) {
            Ok(([], certificate)) => Ok(Self(certificate)),
            _ => Err(ChainError::Unreadable("a certificate of the chain".to_owned())),
        }
    }

    fn subject(&self) -> String {
        escape_hidden(&self.0.subject().to_string())
    }

    fn check_key_usage(&self, is_authority: bool) -> Result<(), ChainError> {
        let Ok(usage) = self.0.key_usage() else {
            return Err(ChainError::Unreadable(format!("the keyUsage of {}", self.subject())));
        };
        match usage.map(|usage| usage.value) {
            Some(usage) if is_authority && !usage.key_cert_sign() => Err(ChainError::NotAuthority(self.subject())),
            Some(usage) if !is_authority && !usage.digital_signature() => {
                Err(ChainError::MayNotSignHandshakes(self.subject()))
            }
            _ => Ok(()),
        }
    }

    /// The certificate as an issuer of revocation lists.
    fn crl_issuer(&self) -> CrlIssuer<'_> {
        let certificate = &self.0;
        CrlIssuer { name: certificate.subject().as_raw(), key: certificate.public_key().raw }
    }

    /// The fields for a lookup in the revocation lists of its issuer.
    fn revocation_query(&self, is_authority: bool) -> RevocationQuery<'_> {
        let certificate = &self.0;
        let is_points = |id: &x509_parser::der_parser::oid::Oid<'_>| *id == OID_X509_EXT_CRL_DISTRIBUTION_POINTS;
        let points = certificate.extensions().iter().find(|extension| is_points(&extension.oid));
        RevocationQuery {
            serial: certificate.raw_serial(),
            scoped: ScopedCertificate {
                is_authority,
                issuer: certificate.issuer().as_raw(),
                points: points.map(|extension| extension.value),
            },
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.handshake_verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.handshake_verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.handshake_verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.tolerance == HandshakeTolerance::All {
            return Ok(ClientCertVerified::assertion()); // the chain is verified after the handshake
        }
        let judged = self.verify_chain(end_entity, intermediates, now);
        let is_tolerated =
            |fault: &Error| self.tolerance == HandshakeTolerance::Untrusted && is_untrusted(fault, end_entity);
        let judged = judged.or_else(|fault| if is_tolerated(&fault) { Ok(()) } else { Err(fault) });
        let judged = judged.inspect_err(|_| self.refused.record(end_entity));
        judged.map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.handshake_verifier.verify_tls12_signature(message, certificate, signature);
        verified.inspect_err(|_| self.refused.record(certificate))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.handshake_verifier.verify_tls13_signature(message, certificate, signature);
        verified.inspect_err(|_| self.refused.record(certificate))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.handshake_verifier.supported_verify_schemes()
    }
}
