//! Judges the chains of callers: webpki finds and verifies a path to an authority, then the path is judged here.
//!
//! webpki asks the first list of an issuer's name only, and looks at neither keyUsage nor the path length of an anchor
//! (docs/decisions/certificates.md). So it is given no lists, and its path is looked at again:
//!
//! * each intermediate certificate may sign certificates, the caller's may sign handshakes, where keyUsage is there
//!   (RFC 5280 section 6.1.4 (n), RFC 8446 section 4.4.2.2);
//! * no more intermediate authorities than the anchor allows (its pathLenConstraint);
//! * URIs, directory names and e-mail addresses keep the anchor's name constraints ([`NameRules`]);
//! * no certificate is revoked, and each one's status is known, where lists are configured ([`RevocationLists`]).
//!
//! Guarantees: a path that fails here is as if it were not there; webpki then tries the others. Leaves to rustls:
//! signatures of the handshake itself.

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

use super::constraints::{BrokenRule, NameRules, SplitConstraints};
use super::fault::{PathFault, stand_in, timestamp, told};
use super::list::ListIssuer;
use super::revocation::{ListedCertificate, RevocationLists, RevocationStatus};
use super::scope::ScopedCertificate;
use super::shown::{Refused, ShownCertificate, printable};
use super::trust::{self, Trust, TrustedAuthority};

/// Judges the chains of callers.
#[derive(Debug)]
pub(super) struct CallerVerifier {
    /// Of rustls: for the signatures of handshakes, and what is asked for in them.
    handshakes: Arc<dyn ClientCertVerifier>,
    anchors: Vec<Anchor>,
    /// The anchors as webpki has them, in their order.
    of_webpki: Vec<TrustAnchor<'static>>,
    lists: RevocationLists,
    algorithms: WebPkiSupportedAlgorithms,
    refused: Refused,
}

#[derive(Debug)]
struct Anchor {
    authority: TrustedAuthority,
    names: NameRules,
}

impl CallerVerifier {
    /// Judges by these authorities and lists; `handshakes` is rustls' own verifier with the same authorities.
    pub(super) fn new(
        handshakes: Arc<dyn ClientCertVerifier>,
        trust: Trust,
        lists: RevocationLists,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        let (mut anchors, mut of_webpki) = (Vec::new(), trust.roots.roots);
        for (authority, anchor) in trust.authorities.into_iter().zip(&mut of_webpki) {
            let split = SplitConstraints::of(anchor.name_constraints.as_deref());
            anchor.name_constraints = split.of_webpki;
            anchors.push(Anchor { authority, names: split.rules });
        }
        Self { handshakes, anchors, of_webpki, lists, algorithms, refused: Refused::default() }
    }

    /// The certificate that this thread has refused last; whoever asks takes it.
    pub(super) fn take_refused(&self) -> Option<ShownCertificate> {
        self.refused.take()
    }

    /// Judges a chain at a moment.
    pub(super) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = EndEntityCert::try_from(leaf).map_err(told)?;
        let fault = RefCell::new(None);
        let judge_path = |path: &VerifiedPath<'_>| {
            self.judge_path(leaf, path, now).map_err(|found| {
                let stand_in = stand_in(&found, now);
                fault.borrow_mut().get_or_insert(found);
                stand_in
            })
        };
        let (algorithms, usage) = (self.algorithms.all, KeyUsage::client_auth());
        let verified =
            parsed.verify_for_usage(algorithms, &self.of_webpki, issuers, now, usage, None, Some(&judge_path));
        match verified {
            Ok(_) => Ok(()),
            // A path that webpki has found tells more than those it has not.
            Err(error) => Err(fault.take().map_or_else(|| told(error), |fault| fault.told(now))),
        }
    }

    fn judge_path(&self, leaf: &CertificateDer<'_>, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), PathFault> {
        let anchor = self.anchor_of(path).ok_or_else(|| PathFault::Unreadable("its authority".to_owned()))?;
        let issuers: Vec<CertificateDer<'_>> = path.intermediate_certificates().map(webpki::Cert::der).collect();
        let chain = std::iter::once(leaf).chain(&issuers).map(|der| PathCertificate::read(der));
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        anchor.judge_length(issuers.len())?;
        for (depth, certificate) in chain.iter().enumerate() {
            certificate.judge_usage(depth > 0)?;
            let broken = |BrokenRule(what)| PathFault::Name { subject: certificate.subject(), what };
            anchor.names.judge(&certificate.0).map_err(broken)?;
        }
        if self.lists.is_empty() { Ok(()) } else { self.judge_revocation(&chain, anchor, now) }
    }

    /// The anchor that a path leads to. webpki has it from `of_webpki`; names and keys may repeat there.
    fn anchor_of(&self, path: &VerifiedPath<'_>) -> Option<&Anchor> {
        let found = std::ptr::from_ref(path.anchor()).cast::<()>();
        let is_found = |anchor: &TrustAnchor<'_>| std::ptr::from_ref(anchor).cast::<()>() == found;
        self.anchors.get(self.of_webpki.iter().position(is_found)?)
    }

    fn judge_revocation(&self, chain: &[PathCertificate<'_>], anchor: &Anchor, now: UnixTime) -> Result<(), PathFault> {
        for (depth, certificate) in chain.iter().enumerate() {
            let (issuer, may_sign_lists) = match chain.get(depth + 1) {
                Some(issuer) => (issuer.issuer(), trust::may_sign_lists(&issuer.0)),
                None => (anchor.authority.issuer(), anchor.authority.may_sign_lists),
            };
            if !may_sign_lists {
                return Err(PathFault::UnknownStatus);
            }
            self.judge_status(&certificate.listed(depth > 0), &issuer, now)?;
        }
        Ok(())
    }

    fn judge_status(
        &self,
        certificate: &ListedCertificate<'_>,
        issuer: &ListIssuer<'_>,
        now: UnixTime,
    ) -> Result<(), PathFault> {
        match self.lists.status(certificate, issuer, (timestamp(now), &self.algorithms)) {
            RevocationStatus::Good => Ok(()),
            RevocationStatus::Revoked => Err(PathFault::Revoked),
            RevocationStatus::Expired(at) => Err(PathFault::ListExpired(at)),
            RevocationStatus::Unknown => Err(PathFault::UnknownStatus),
        }
    }
}

impl Anchor {
    /// RFC 5280 section 4.2.1.9.
    fn judge_length(&self, found: usize) -> Result<(), PathFault> {
        match self.authority.path_length {
            Some(allowed) if found > allowed => {
                Err(PathFault::TooLong { authority: self.authority.name.clone(), allowed, found })
            }
            _ => Ok(()),
        }
    }
}

/// A certificate of a path.
struct PathCertificate<'a>(X509Certificate<'a>);

impl<'a> PathCertificate<'a> {
    fn read(der: &'a CertificateDer<'_>) -> Result<Self, PathFault> {
        match X509Certificate::from_der(der) {
            Ok(([], certificate)) => Ok(Self(certificate)),
            _ => Err(PathFault::Unreadable("a certificate of the chain".to_owned())),
        }
    }

    fn subject(&self) -> String {
        printable(&self.0.subject().to_string())
    }

    fn judge_usage(&self, is_authority: bool) -> Result<(), PathFault> {
        let Ok(usage) = self.0.key_usage() else {
            return Err(PathFault::Unreadable(format!("the keyUsage of {}", self.subject())));
        };
        match usage.map(|usage| usage.value) {
            Some(usage) if is_authority && !usage.key_cert_sign() => Err(PathFault::NoAuthority(self.subject())),
            Some(usage) if !is_authority && !usage.digital_signature() => Err(PathFault::NoSignature(self.subject())),
            _ => Ok(()),
        }
    }

    /// As its own revocation lists look at it.
    fn issuer(&self) -> ListIssuer<'_> {
        let certificate = &self.0;
        ListIssuer { name: certificate.subject().as_raw(), key: certificate.public_key().raw }
    }

    /// As its issuer's revocation lists look at it.
    fn listed(&self, is_authority: bool) -> ListedCertificate<'_> {
        let certificate = &self.0;
        let is_points = |id: &x509_parser::der_parser::oid::Oid<'_>| *id == OID_X509_EXT_CRL_DISTRIBUTION_POINTS;
        let points = certificate.extensions().iter().find(|extension| is_points(&extension.oid));
        ListedCertificate {
            serial: certificate.raw_serial(),
            scoped: ScopedCertificate {
                is_authority,
                issuer: certificate.issuer().as_raw(),
                points: points.map(|extension| extension.value),
            },
        }
    }
}

impl ClientCertVerifier for CallerVerifier {
    fn offer_client_auth(&self) -> bool {
        self.handshakes.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.handshakes.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.handshakes.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let judged = self.judge(end_entity, intermediates, now);
        let judged = judged.inspect_err(|_| self.refused.note(end_entity));
        judged.map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.handshakes.verify_tls12_signature(message, certificate, signature);
        verified.inspect_err(|_| self.refused.note(certificate))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.handshakes.verify_tls13_signature(message, certificate, signature);
        verified.inspect_err(|_| self.refused.note(certificate))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.handshakes.supported_verify_schemes()
    }
}
