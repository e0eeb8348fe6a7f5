//! The revocation lists of a listener: loaded, checked, and looked up for the chains of callers.
//!
//! Guarantees:
//! - A list that is expired, not yet valid, forged, unsupported or unreadable is a problem at load time. It is never
//!   skipped silently.
//! - An expired list is a warning instead of a problem in two cases only: with the setting
//!   `expiredRevocation: allow`, or if a newer list for the same certificates is present.
//! - A list belongs to its issuer by name and signature. It applies only to the certificates that its scope covers.
//! - All lists of one issuer are looked up. A certificate on any of them is revoked.
//! - Once one list is configured, every certificate of a caller's chain needs a list that covers it. Otherwise the
//!   caller is refused.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::CertificateRevocationListDer;

use crate::identity::certificate::expiry::ExpiringItem;
use crate::identity::der::signed_bytes::SUPPORTED_ALGORITHMS_TEXT;
use crate::identity::tls_files::{ExpiredCrlPolicy, TlsFindings};
use crate::identity::trust::trust_anchors::{CrlIssuer, TrustStore, TrustedAuthority};

use super::crl::{BadRevocationList, CrlMismatch, RevocationList};
use super::crl_scope::ScopedCertificate;

/// The context in which lists are checked.
#[derive(Clone, Copy)]
pub(crate) struct CrlContext<'a> {
    pub(crate) trust: &'a TrustStore,
    pub(crate) now: Timestamp,
    pub(crate) expired: ExpiredCrlPolicy,
    pub(crate) algorithms: &'a WebPkiSupportedAlgorithms,
}

/// A list, and the path of its file.
#[derive(Debug)]
pub(crate) struct CrlFile {
    pub(crate) path: PathBuf,
    pub(crate) list: RevocationList,
}

/// All lists of a listener.
#[derive(Debug, Default)]
pub(crate) struct CrlStore {
    pub(crate) lists: Vec<CrlFile>,
    expired: ExpiredCrlPolicy,
}

/// The revocation status of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RevocationStatus {
    /// A current list covers the certificate, and no list names it.
    Good,
    /// A list that covers the certificate names it.
    Revoked,
    /// All lists that cover the certificate have expired, the last one at this time.
    Expired(Timestamp),
    /// No list covers the certificate.
    Unknown,
}

/// The fields of a certificate that a lookup in its issuer's lists needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RevocationQuery<'a> {
    pub(crate) serial: &'a [u8],
    pub(crate) scoped: ScopedCertificate<'a>,
}

impl CrlStore {
    /// Whether no lists are configured. Then revocation is not checked.
    pub(crate) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// The status of a certificate according to the lists of its issuer.
    pub(crate) fn status_of(
        &self,
        certificate: &RevocationQuery<'_>,
        issuer: &CrlIssuer<'_>,
        (now, algorithms): (Timestamp, &WebPkiSupportedAlgorithms),
    ) -> RevocationStatus {
        let covers = |list: &&RevocationList| {
            list.has_issuer_name(issuer.name)
                && list.scope.covers(&certificate.scoped)
                && list.is_issued_by(issuer, algorithms).is_ok() // last: it may verify a signature
        };
        let mut status = RevocationStatus::Unknown;
        for list in self.lists.iter().map(|in_file| &in_file.list).filter(covers) {
            let is_current = now < list.next_update || self.expired == ExpiredCrlPolicy::Allow;
            status = match (status, is_current) {
                _ if list.contains_serial(certificate.serial) => return RevocationStatus::Revoked,
                (_, true) | (RevocationStatus::Good, _) => RevocationStatus::Good,
                (RevocationStatus::Expired(last), false) => RevocationStatus::Expired(last.max(list.next_update)),
                (_, false) => RevocationStatus::Expired(list.next_update),
            };
        }
        status
    }

    /// The nextUpdate of the last list of the last authority. From then on no caller is accepted. `None` if that case
    /// cannot occur: no lists are configured, or expired lists stay in use.
    pub(crate) fn last_next_update(&self, trust: &TrustStore) -> Option<Timestamp> {
        if self.expired == ExpiredCrlPolicy::Allow {
            return None;
        }
        trust
            .authorities
            .iter()
            .filter_map(|authority| self.lists_of(authority).map(|list| list.next_update).max())
            .max()
    }

    /// The lists that a configured authority has signed.
    fn lists_of<'a>(&'a self, authority: &'a TrustedAuthority) -> impl Iterator<Item = &'a RevocationList> {
        let lists = self.lists.iter().map(|in_file| &in_file.list);
        lists.filter(|list| list.is_signed_by(authority.crl_issuer().key))
    }
}

/// Reads the lists; problems go to `findings`.
pub(crate) fn read_crls(paths: &[PathBuf], context: CrlContext<'_>, findings: &mut TlsFindings<'_>) -> CrlStore {
    let mut lists = Vec::new();
    for path in paths {
        for der in findings.read_revocation_lists(path) {
            lists.extend(read_crl(path, &der, context, findings).map(|list| CrlFile { path: path.clone(), list }));
        }
    }
    for CrlFile { path, list } in &lists {
        check_dates((path, list), &lists, context, findings);
    }
    let read = CrlStore { lists, expired: context.expired };
    warn_of_uncovered_authorities(context.trust, &read, findings);
    read
}

fn read_crl(
    path: &Path,
    der: &CertificateRevocationListDer<'_>,
    context: CrlContext<'_>,
    findings: &mut TlsFindings<'_>,
) -> Option<RevocationList> {
    let mut list = match RevocationList::parse(der) {
        Ok(list) => list,
        Err(bad) => {
            findings.add_problem(path, unusable_message(&bad));
            return None;
        }
    };
    findings.expiries.push(ExpiringItem { role: "crl", name: list.issuer_name.clone(), expires_at: list.next_update });
    match find_signer(&list, context) {
        CrlSigner::Known => {}
        CrlSigner::Unknown => findings.add_warning(
            path,
            format_args!(
                "the revocation list of {} belongs to none of the configured authorities; it is used only for clients \
                 that present an intermediate certificate of that name",
                list.issuer_name
            ),
        ),
        CrlSigner::Forged(what) => findings.add_problem(path, what),
    }
    list.shrink();
    Some(list)
}

fn unusable_message(bad: &BadRevocationList) -> String {
    match bad {
        BadRevocationList::Malformed => {
            "contains a revocation list that is not well-formed X.509 v2 (RFC 5280 section 5)".to_owned()
        }
        BadRevocationList::NoNextUpdate => {
            "contains a revocation list without nextUpdate; issue one with an expiry time".to_owned()
        }
        BadRevocationList::Unsupported(what) => format!("contains a revocation list that is not supported: it {what}"),
    }
}

/// The signer of a list.
enum CrlSigner {
    /// One of the authorities.
    Known,
    /// An unknown signer: perhaps an intermediate authority that callers present.
    Unknown,
    /// The list names an authority that did not sign it, or that may not sign lists.
    Forged(String),
}

fn find_signer(list: &RevocationList, context: CrlContext<'_>) -> CrlSigner {
    let mut namesake = None;
    for authority in &context.trust.authorities {
        match list.is_issued_by(&authority.crl_issuer(), context.algorithms) {
            Ok(()) if authority.may_sign_lists => return CrlSigner::Known,
            Ok(()) => {
                return CrlSigner::Forged(format!(
                    "{} signed this revocation list, but may not (its keyUsage lacks cRLSign)",
                    list.issuer_name
                ));
            }
            Err(CrlMismatch::OtherName) => {}
            Err(CrlMismatch::Unsupported) => namesake = Some(CrlMismatch::Unsupported),
            Err(CrlMismatch::OtherKey) => namesake = namesake.or(Some(CrlMismatch::OtherKey)),
        }
    }
    match namesake {
        None => CrlSigner::Unknown,
        Some(CrlMismatch::Unsupported) => CrlSigner::Forged(format!(
            "the revocation list of {} is signed with an algorithm that is not supported; {SUPPORTED_ALGORITHMS_TEXT}; \
             have the authority sign it with one of these",
            list.issuer_name
        )),
        Some(_) => CrlSigner::Forged(format!(
            "the revocation list names {} as its issuer, but was not signed by it; if that authority has another key \
             under the same name, add the certificate of that key to clientAuth.authorities",
            list.issuer_name
        )),
    }
}

fn check_dates(
    (path, list): (&Path, &RevocationList),
    all: &[CrlFile],
    context: CrlContext<'_>,
    findings: &mut TlsFindings<'_>,
) {
    let (issuer, from, until, now) = (&list.issuer_name, list.this_update, list.next_update, context.now);
    if now < from {
        let what = format!(
            "the revocation list of {issuer} was issued at {from}, and it is {now}; check this machine's clock"
        );
        return findings.add_problem(path, what);
    }
    if now < until {
        return;
    }
    let expired = format!("the revocation list of {issuer} expired at {until}, and it is {now}");
    let is_newer = |other: &CrlFile| now < other.list.next_update && other.list.has_same_scope_as(list);
    if let Some(newer) = all.iter().find(|other| is_newer(other)) {
        let newer = newer.path.display();
        return findings.add_warning(path, format_args!("{expired}; a newer one is in {newer}, so remove this one"));
    }
    match context.expired {
        ExpiredCrlPolicy::Refuse => findings.add_problem(path, format!("{expired}; fetch a new one")),
        ExpiredCrlPolicy::Allow => findings.add_warning(
            path,
            format_args!("{expired}; fetch a new one; until then it is accepted, because expiredRevocation is allow"),
        ),
    }
}

/// Warns of authorities without a list. Once any list is configured, such an authority's callers are refused. The
/// warning at load time makes the cause visible before the first refusal.
fn warn_of_uncovered_authorities(trust: &TrustStore, lists: &CrlStore, findings: &mut TlsFindings<'_>) {
    if lists.is_empty() {
        return;
    }
    for authority in &trust.authorities {
        if lists.lists_of(authority).next().is_none() {
            findings.add_warning(
                &authority.path,
                format_args!(
                    "{} has no revocation list, although other authorities have one: clients with its certificates are \
                     rejected",
                    authority.name
                ),
            );
        }
    }
}
