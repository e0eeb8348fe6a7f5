//! Whom a listener trusts to name callers: the bundles of certificate authorities.
//!
//! rustls takes every certificate it is given as an anchor, expired or not an authority at all. Here each is looked at
//! before it is trusted.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::constraints::unjudged_kinds;
use super::expiry::{self, Expiry};
use super::files::{ClientAuth, ExpiredLists, Findings};
use super::list::ListIssuer;
use super::revocation::RevocationLists;

/// The authorities that passed the look.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) roots: RootCertStore,
    /// One for each of the roots, in their order.
    pub(super) authorities: Vec<TrustedAuthority>,
}

/// What is known of an authority beside what webpki keeps.
#[derive(Debug)]
pub(super) struct TrustedAuthority {
    pub(super) path: PathBuf,
    /// Its name, for people.
    pub(super) name: String,
    pub(super) until: Timestamp,
    subject: Box<[u8]>,
    key: Box<[u8]>,
    /// How many intermediate authorities may stand below it (pathLenConstraint).
    pub(super) path_length: Option<usize>,
    /// Whether its keyUsage, if there is one, says cRLSign.
    pub(super) may_sign_lists: bool,
    digest: [u8; 32],
}

/// Names what callers are judged by: two listeners with one mark give the same judgement at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TrustMark([u8; 32]);

impl TrustMark {
    /// The mark of these authorities and lists, in this order.
    pub(super) fn of(auth: &ClientAuth, trust: &Trust, lists: &RevocationLists) -> Self {
        let mut digest = Sha256::new();
        digest.update([u8::from(auth.required), u8::from(auth.expired_lists == ExpiredLists::Allow)]);
        let authorities = trust.authorities.iter().map(|authority| (b"a", authority.digest));
        for (kind, part) in authorities.chain(lists.lists.iter().map(|in_file| (b"l", in_file.list.digest))) {
            digest.update(kind);
            digest.update(part);
        }
        Self(digest.finalize().into())
    }
}

/// Reads the bundles; what is wrong with them goes to `findings`.
pub(super) fn read(bundles: &[PathBuf], now: Timestamp, findings: &mut Findings) -> Trust {
    let mut trust = Trust { roots: RootCertStore::empty(), authorities: Vec::new() };
    for path in bundles {
        for der in findings.authorities(path) {
            trust.add(path, &der, now, findings);
        }
    }
    trust
}

impl Trust {
    fn add(&mut self, path: &Path, der: &CertificateDer<'static>, now: Timestamp, findings: &mut Findings) {
        let Ok(([], authority)) = X509Certificate::from_der(der) else {
            return findings.problem(path, "holds a certificate that is not well-formed X.509");
        };
        findings.expiries.push(Expiry {
            role: "ca",
            name: authority.subject().to_string(),
            at: expiry::timestamp(authority.validity().not_after),
        });
        if let Some(what) = not_an_authority(&authority).or_else(|| expiry::out_of_time(&authority, now)) {
            return findings.problem(path, what);
        }
        if let Err(error) = self.roots.add(der.clone()) {
            return findings.problem(path, format!("holds an authority that cannot be trusted: {error}"));
        }
        self.authorities.push(TrustedAuthority::of(path, der, &authority));
    }

    /// Says which authorities constrain names in a way that webpki does not judge: it refuses every certificate that has
    /// such a name. For those who have no judgement beside webpki's.
    pub(super) fn warn_of_unjudged_constraints(&self, findings: &mut Findings) {
        for (authority, root) in self.authorities.iter().zip(&self.roots.roots) {
            let constraints = root.name_constraints.as_ref();
            let constraints = constraints.map(|constraints| super::der::encode(super::der::SEQUENCE, constraints));
            let kinds = constraints.as_deref().and_then(|constraints| {
                x509_parser::extensions::NameConstraints::from_der(constraints)
                    .ok()
                    .and_then(|(_, read)| unjudged_kinds(&read))
            });
            if let Some(kinds) = kinds {
                findings.warn(
                    &authority.path,
                    format_args!(
                        "{} has name constraints of a kind that is not judged towards subsystems ({kinds}): every \
                         certificate with such a name is refused; use an authority that constrains DNS names and IP \
                         addresses only",
                        authority.name
                    ),
                );
            }
        }
    }
}

impl TrustedAuthority {
    fn of(path: &Path, der: &CertificateDer<'_>, certificate: &X509Certificate<'_>) -> Self {
        let constraints = certificate.basic_constraints().ok().flatten();
        let path_length = constraints.and_then(|constraints| constraints.value.path_len_constraint);
        Self {
            path: path.to_owned(),
            name: certificate.subject().to_string(),
            until: expiry::timestamp(certificate.validity().not_after),
            subject: certificate.subject().as_raw().into(),
            key: certificate.public_key().raw.into(),
            path_length: path_length.map(|length| usize::try_from(length).unwrap_or(usize::MAX)),
            may_sign_lists: may_sign_lists(certificate),
            digest: Sha256::digest(der).into(),
        }
    }

    /// As its revocation lists look at it.
    pub(super) fn issuer(&self) -> ListIssuer<'_> {
        ListIssuer { name: &self.subject, key: &self.key }
    }
}

/// Whether a certificate's key may sign revocation lists: its keyUsage, if there is one, says so.
pub(super) fn may_sign_lists(certificate: &X509Certificate<'_>) -> bool {
    certificate.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.crl_sign()))
}

/// RFC 5280 sections 4.2.1.9 and 4.2.1.3: an authority says so, and its key may sign certificates.
fn not_an_authority(certificate: &X509Certificate<'_>) -> Option<String> {
    let name = certificate.subject();
    if !certificate.is_ca() {
        return Some(format!(
            "{name} is not a certificate authority (basicConstraints does not say CA:TRUE); expected the certificate of \
             whoever signs the callers' certificates, not one of theirs"
        ));
    }
    let may_sign = certificate.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
    (!may_sign).then(|| format!("{name} may not sign certificates (keyUsage lacks keyCertSign)"))
}
