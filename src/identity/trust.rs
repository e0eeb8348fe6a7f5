//! Whom a listener trusts to name callers: the bundles of certificate authorities.
//!
//! rustls takes every certificate it is given as an anchor, expired or not an authority at all. Here each is looked at
//! before it is trusted.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::expiry::{self, Expiry};
use super::files::{Findings, sections};

/// The authorities that passed the look.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) roots: RootCertStore,
    pub(super) authorities: Vec<(PathBuf, CertificateDer<'static>)>,
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
