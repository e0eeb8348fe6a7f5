//! The trust anchors of a listener or a subsystem's connector: the bundles of certificate authorities.
//!
//! rustls accepts every certificate as an anchor, even one that has expired or is no authority. This module checks each
//! certificate before it becomes an anchor.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::identity::certificate::expiry::{self, ExpiringItem};
use crate::identity::tls_files::TlsFindings;

use super::name_constraints::unjudged_kinds;

/// The authorities that passed the checks.
#[derive(Debug)]
pub(crate) struct TrustStore {
    pub(crate) roots: RootCertStore,
    /// One entry per root, in the order of the roots.
    pub(crate) authorities: Vec<TrustedAuthority>,
}

/// The facts about an authority that webpki does not keep.
#[derive(Debug)]
pub(crate) struct TrustedAuthority {
    pub(crate) path: PathBuf,
    /// The name of the authority, for display.
    pub(crate) name: String,
    pub(crate) valid_until: Timestamp,
    subject: Box<[u8]>,
    issuer: Box<[u8]>,
    key: Box<[u8]>,
    /// The most intermediate authorities that may stand below this authority (pathLenConstraint).
    pub(crate) path_length: Option<usize>,
    /// Whether its keyUsage, if present, includes cRLSign.
    pub(crate) may_sign_lists: bool,
    pub(crate) digest: [u8; 32],
}

/// Reads the bundles; problems go to `findings`.
pub(crate) fn read_trust_anchors(bundles: &[PathBuf], now: Timestamp, findings: &mut TlsFindings<'_>) -> TrustStore {
    let mut trust = TrustStore { roots: RootCertStore::empty(), authorities: Vec::new() };
    for path in bundles {
        for der in findings.read_authorities(path) {
            trust.add_authority(path, &der, now, findings);
        }
    }
    trust
}

/// Reads the authorities that the system trusts. Those that cannot be used are left out: no configuration names them.
/// Webpki judges the certificates below them.
pub(crate) fn read_system_anchors(findings: &mut TlsFindings<'_>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(findings.read_system_authorities());
    roots
}

impl TrustStore {
    fn add_authority(
        &mut self,
        path: &Path,
        der: &CertificateDer<'static>,
        now: Timestamp,
        findings: &mut TlsFindings<'_>,
    ) {
        let Ok(([], authority)) = X509Certificate::from_der(der) else {
            return findings.add_problem(path, "contains a certificate that is not well-formed X.509");
        };
        findings.expiries.push(ExpiringItem {
            role: "ca",
            name: authority.subject().to_string(),
            expires_at: expiry::asn1_timestamp(authority.validity().not_after),
        });
        if let Some(what) = authority_problem(&authority).or_else(|| expiry::validity_problem(&authority, now)) {
            return findings.add_problem(path, what);
        }
        if let Err(error) = self.roots.add(der.clone()) {
            return findings
                .add_problem(path, format!("contains an authority that cannot be used as a trust anchor: {error}"));
        }
        self.authorities.push(TrustedAuthority::from_certificate(path, der, &authority));
    }

    /// Warns of the authorities with name constraints that webpki does not evaluate: webpki refuses every certificate
    /// that has such a name. For verifiers that use webpki alone.
    pub(crate) fn warn_of_unjudged_constraints(&self, findings: &mut TlsFindings<'_>) {
        for (authority, root) in self.authorities.iter().zip(&self.roots.roots) {
            let constraints = root.name_constraints.as_ref();
            let constraints = constraints.map(|constraints| {
                crate::identity::der::der_reader::encode_element(
                    crate::identity::der::der_reader::SEQUENCE,
                    constraints,
                )
            });
            let kinds = constraints.as_deref().and_then(|constraints| {
                x509_parser::extensions::NameConstraints::from_der(constraints)
                    .ok()
                    .and_then(|(_, read)| unjudged_kinds(&read))
            });
            if let Some(kinds) = kinds {
                findings.add_warning(
                    &authority.path,
                    format_args!(
                        "{} has name constraints of a kind that is not supported for subsystems ({kinds}): every \
                         certificate with such a name is rejected; use an authority that constrains DNS names and IP \
                         addresses only",
                        authority.name
                    ),
                );
            }
        }
    }
}

impl TrustStore {
    /// The number of authorities from the one at this position up to one that is self-signed, without the latter. The
    /// way ends at an authority whose issuer is not in the store.
    pub(crate) fn height_of(&self, position: usize) -> usize {
        let (mut height, mut current) = (0, &self.authorities[position]);
        while current.subject != current.issuer && height < self.authorities.len() {
            let Some(above) = self.authorities.iter().find(|other| other.subject == current.issuer) else { break };
            (height, current) = (height + 1, above);
        }
        height
    }
}

impl TrustedAuthority {
    fn from_certificate(path: &Path, der: &CertificateDer<'_>, certificate: &X509Certificate<'_>) -> Self {
        let constraints = certificate.basic_constraints().ok().flatten();
        let path_length = constraints.and_then(|constraints| constraints.value.path_len_constraint);
        Self {
            path: path.to_owned(),
            name: certificate.subject().to_string(),
            valid_until: expiry::asn1_timestamp(certificate.validity().not_after),
            subject: certificate.subject().as_raw().into(),
            issuer: certificate.issuer().as_raw().into(),
            key: certificate.public_key().raw.into(),
            path_length: path_length.map(|length| usize::try_from(length).unwrap_or(usize::MAX)),
            may_sign_lists: may_sign_lists(certificate),
            digest: Sha256::digest(der).into(),
        }
    }

    /// The authority as an issuer of revocation lists.
    pub(crate) fn crl_issuer(&self) -> CrlIssuer<'_> {
        CrlIssuer { name: &self.subject, key: &self.key }
    }
}

/// Whether a certificate's key may sign revocation lists: its keyUsage, if present, includes cRLSign.
pub(crate) fn may_sign_lists(certificate: &X509Certificate<'_>) -> bool {
    certificate.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.crl_sign()))
}

/// RFC 5280 sections 4.2.1.9 and 4.2.1.3: an authority's certificate has `cA` set, and its key may sign certificates.
fn authority_problem(certificate: &X509Certificate<'_>) -> Option<String> {
    let name = certificate.subject();
    if !certificate.is_ca() {
        return Some(format!(
            "{name} is not a certificate authority (basicConstraints does not say CA:TRUE); expected the certificate \
             of the authority that signs the clients' certificates, not a client's"
        ));
    }
    let may_sign = certificate.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
    (!may_sign).then(|| format!("{name} may not sign certificates (keyUsage lacks keyCertSign)"))
}

/// An authority as an issuer of revocation lists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CrlIssuer<'a> {
    /// Its name, encoded.
    pub(crate) name: &'a [u8],
    /// Its key, an encoded SubjectPublicKeyInfo.
    pub(crate) key: &'a [u8],
}
