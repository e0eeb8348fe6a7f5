//! Whom a listener trusts to name callers: the bundles of certificate authorities.
//!
//! rustls takes every certificate it is given as an anchor, expired or not an authority at all. Here each is looked at
//! before it is trusted.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::expiry::{self, Expiry};
use super::files::{ClientAuth, ExpiredLists, Findings, sections};

/// The authorities that passed the look.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) roots: RootCertStore,
    pub(super) authorities: Vec<(PathBuf, CertificateDer<'static>)>,
}

/// Names what callers are judged by: two listeners with one mark give the same judgement at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TrustMark([u8; 32]);

impl TrustMark {
    /// The mark of these authorities and lists, in this order.
    pub(super) fn of(auth: &ClientAuth, trust: &Trust, lists: &[CertificateRevocationListDer<'_>]) -> Self {
        let mut digest = Sha256::new();
        digest.update([u8::from(auth.required), u8::from(auth.expired_lists == ExpiredLists::Allow)]);
        let authorities = trust.authorities.iter().map(|(_, der)| (b"a", der.as_ref()));
        for (kind, der) in authorities.chain(lists.iter().map(|der| (b"l", der.as_ref()))) {
            digest.update(kind);
            digest.update((der.len() as u64).to_be_bytes()); // so that no two lists of files read alike
            digest.update(der);
        }
        Self(digest.finalize().into())
    }
}

/// Reads the bundles; what is wrong with them goes to `findings`.
pub(super) fn read(bundles: &[PathBuf], now: Timestamp, findings: &mut Findings) -> Trust {
    let mut trust = Trust { roots: RootCertStore::empty(), authorities: Vec::new() };
    for path in bundles {
        let certificates = findings.keep(sections(path, "a certificate authority's certificate"));
        for der in certificates.unwrap_or_default() {
            trust.add(path, der, now, findings);
        }
    }
    trust
}

impl Trust {
    fn add(&mut self, path: &Path, der: CertificateDer<'static>, now: Timestamp, findings: &mut Findings) {
        let Ok(([], authority)) = X509Certificate::from_der(&der) else {
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
        self.authorities.push((path.to_owned(), der));
    }
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
    let usage = certificate.key_usage().ok().flatten();
    let may_sign = usage.is_none_or(|usage| usage.value.key_cert_sign());
    (!may_sign).then(|| format!("{name} may not sign certificates (keyUsage lacks keyCertSign)"))
}
