//! Revocation lists: read, judged, and handed to rustls.
//!
//! Guarantees: a list that is expired, not yet valid, forged or unreadable is a problem when the files are loaded, never
//! silently skipped; only if the configuration says `expiredRevocation: allow` is an expired one a warning instead. rustls then checks the whole chain of each caller against the lists: once one list is
//! configured, every issuer in a caller's chain must have a current one, or the caller is refused.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::expiry::{self, Expiry};
use super::files::{ExpiredLists, Findings, sections};
use super::trust::Trust;

/// What lists are looked at with.
#[derive(Clone, Copy)]
pub(super) struct Judging<'a> {
    pub(super) trust: &'a Trust,
    pub(super) now: Timestamp,
    pub(super) expired: ExpiredLists,
}

/// Reads the lists; what is wrong with them goes to `findings`.
pub(super) fn read(
    paths: &[PathBuf],
    judging: Judging<'_>,
    findings: &mut Findings,
) -> Vec<CertificateRevocationListDer<'static>> {
    let mut lists = Vec::new();
    for path in paths {
        let found = findings.keep(sections::<CertificateRevocationListDer<'static>>(path, "a revocation list"));
        for der in found.unwrap_or_default() {
            examine(path, &der, judging, findings);
            lists.push(der);
        }
    }
    warn_of_uncovered_authorities(judging.trust, &lists, findings);
    lists
}

fn examine(path: &Path, der: &[u8], judging: Judging<'_>, findings: &mut Findings) {
    let parsed = CertificateRevocationList::from_der(der);
    let (Ok(([], list)), Ok(_)) = (parsed, webpki::OwnedCertRevocationList::from_der(der)) else {
        return findings
            .problem(path, "holds a revocation list that is not a well-formed X.509 v2 one (RFC 5280 section 5)");
    };
    let Some(until) = list.next_update().map(expiry::timestamp) else {
        return findings
            .problem(path, "holds a revocation list without nextUpdate; issue one that says how long it holds");
    };
    findings.expiries.push(Expiry { role: "crl", name: list.issuer().to_string(), at: until });
    match (out_of_time(&list, until, judging.now), judging.expired) {
        (Some(what), ExpiredLists::Allow) if judging.now > until => {
            findings.warn(path, format_args!("{what}; until then it is believed, because expiredRevocation is allow"));
        }
        (Some(what), _) => findings.problem(path, what),
        (None, _) => {}
    }
    match signer(&list, &judging.trust.authorities) {
        Signer::Known => {}
        Signer::Unknown => findings.warn(
            path,
            format_args!(
                "the revocation list of {} is of none of the configured authorities; it is used only for callers that \
                 show an intermediate certificate of that name",
                list.issuer()
            ),
        ),
        Signer::Forged(what) => findings.problem(path, what),
    }
}

fn out_of_time(list: &CertificateRevocationList<'_>, until: Timestamp, now: Timestamp) -> Option<String> {
    let (issuer, from) = (list.issuer(), expiry::timestamp(list.last_update()));
    if now < from {
        return Some(format!(
            "the revocation list of {issuer} is of {from}, and it is {now}; check this machine's clock"
        ));
    }
    (now > until)
        .then(|| format!("the revocation list of {issuer} expired at {until}, and it is {now}; fetch a new one"))
}

/// Who signed a list.
enum Signer {
    /// One of the authorities.
    Known,
    /// Somebody else: perhaps an intermediate authority that callers show.
    Unknown,
    /// It names an authority that did not sign it, or may not.
    Forged(String),
}

fn signer(list: &CertificateRevocationList<'_>, authorities: &[(PathBuf, CertificateDer<'static>)]) -> Signer {
    let parsed = authorities.iter().filter_map(|(_, der)| X509Certificate::from_der(der).ok());
    let namesakes: Vec<X509Certificate<'_>> = parsed
        .map(|(_, authority)| authority)
        .filter(|authority| authority.subject().as_raw() == list.issuer().as_raw())
        .collect();
    if namesakes.is_empty() {
        return Signer::Unknown;
    }
    let Some(signer) = namesakes.iter().find(|authority| list.verify_signature(authority.public_key()).is_ok()) else {
        return Signer::Forged(format!(
            "the revocation list names {} as its issuer, but was not signed by it",
            list.issuer()
        ));
    };
    let usage = signer.key_usage().ok().flatten();
    if usage.is_none_or(|usage| usage.value.crl_sign()) {
        return Signer::Known;
    }
    Signer::Forged(format!("{} signed this revocation list, but may not (its keyUsage lacks cRLSign)", list.issuer()))
}

/// Nobody gets in through an authority without a list, once there is a list at all; better said now than found out.
fn warn_of_uncovered_authorities(trust: &Trust, lists: &[CertificateRevocationListDer<'_>], findings: &mut Findings) {
    if lists.is_empty() {
        return;
    }
    let issuers: Vec<Vec<u8>> = lists
        .iter()
        .filter_map(|der| CertificateRevocationList::from_der(der).ok())
        .map(|(_, list)| list.issuer().as_raw().to_vec())
        .collect();
    for (path, der) in &trust.authorities {
        let Ok((_, authority)) = X509Certificate::from_der(der) else { continue };
        if !issuers.iter().any(|issuer| issuer == authority.subject().as_raw()) {
            findings.warn(
                path,
                format_args!(
                    "{} has no revocation list here although other authorities have: callers that it certified are refused",
                    authority.subject()
                ),
            );
        }
    }
}
