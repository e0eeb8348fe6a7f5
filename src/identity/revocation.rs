//! Revocation lists: read, judged when they are loaded, and asked about the chains of callers.
//!
//! Guarantees: a list that is expired, not yet valid, forged, not supported or unreadable is a problem when the files are
//! loaded, never silently skipped; only if the configuration says `expiredRevocation: allow`, or if a newer list for the
//! same certificates lies beside it, an expired one is a warning instead. A list is its issuer's by name and signature, and says something about
//! those certificates only that its scope covers. Of several lists of one issuer all are asked: whoever is on one is
//! revoked. Once one list is configured, every certificate of a caller's chain needs one that covers it, or the caller is
//! refused.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::CertificateRevocationListDer;

use super::expiry::Expiry;
use super::files::{ExpiredLists, Findings};
use super::list::{BadList, ListIssuer, NotItsList, RevocationList};
use super::scope::ScopedCertificate;
use super::signed::SUPPORTED;
use super::trust::{Trust, TrustedAuthority};

/// What lists are looked at with.
#[derive(Clone, Copy)]
pub(super) struct Judging<'a> {
    pub(super) trust: &'a Trust,
    pub(super) now: Timestamp,
    pub(super) expired: ExpiredLists,
    pub(super) algorithms: &'a WebPkiSupportedAlgorithms,
}

/// A list, and the file it was in.
#[derive(Debug)]
pub(super) struct ListInFile {
    pub(super) path: PathBuf,
    pub(super) list: RevocationList,
}

/// All lists of a listener.
#[derive(Debug, Default)]
pub(super) struct RevocationLists {
    pub(super) lists: Vec<ListInFile>,
    expired: ExpiredLists,
}

/// What the lists say about a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RevocationStatus {
    /// A list that covers it is current, and it is on none.
    Good,
    /// It is on a list that covers it.
    Revoked,
    /// All lists that cover it have expired, the last one then.
    Expired(Timestamp),
    /// No list covers it.
    Unknown,
}

/// A certificate, as its issuer's lists look at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListedCertificate<'a> {
    pub(super) serial: &'a [u8],
    pub(super) scoped: ScopedCertificate<'a>,
}

impl RevocationLists {
    /// Whether none are configured, so that nothing is checked.
    pub(super) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// What the lists of an issuer say about a certificate of its.
    pub(super) fn status(
        &self,
        certificate: &ListedCertificate<'_>,
        issuer: &ListIssuer<'_>,
        (now, algorithms): (Timestamp, &WebPkiSupportedAlgorithms),
    ) -> RevocationStatus {
        let covers = |list: &&RevocationList| {
            list.is_named(issuer.name)
                && list.scope.covers(&certificate.scoped)
                && list.is_of(issuer, algorithms).is_ok() // last: it may verify a signature
        };
        let mut status = RevocationStatus::Unknown;
        for list in self.lists.iter().map(|in_file| &in_file.list).filter(covers) {
            let is_current = now < list.until || self.expired == ExpiredLists::Allow;
            status = match (status, is_current) {
                _ if list.names(certificate.serial) => return RevocationStatus::Revoked,
                (_, true) | (RevocationStatus::Good, _) => RevocationStatus::Good,
                (RevocationStatus::Expired(last), false) => RevocationStatus::Expired(last.max(list.until)),
                (_, false) => RevocationStatus::Expired(list.until),
            };
        }
        status
    }

    /// When the last list of the last authority ends, after which nobody is let in; `None` if that will not happen: there
    /// are no lists, or expired ones are believed.
    pub(super) fn last_end(&self, trust: &Trust) -> Option<Timestamp> {
        if self.expired == ExpiredLists::Allow {
            return None;
        }
        trust.authorities.iter().filter_map(|authority| self.of(authority).map(|list| list.until).max()).max()
    }

    /// The lists that a configured authority has signed.
    fn of<'a>(&'a self, authority: &'a TrustedAuthority) -> impl Iterator<Item = &'a RevocationList> {
        let lists = self.lists.iter().map(|in_file| &in_file.list);
        lists.filter(|list| list.is_signed_by(authority.issuer().key))
    }
}

/// Reads the lists; what is wrong with them goes to `findings`.
pub(super) fn read(paths: &[PathBuf], judging: Judging<'_>, findings: &mut Findings) -> RevocationLists {
    let mut lists = Vec::new();
    for path in paths {
        for der in findings.lists(path) {
            lists.extend(read_one(path, &der, judging, findings).map(|list| ListInFile { path: path.clone(), list }));
        }
    }
    for ListInFile { path, list } in &lists {
        judge_dates((path, list), &lists, judging, findings);
    }
    let read = RevocationLists { lists, expired: judging.expired };
    warn_of_uncovered_authorities(judging.trust, &read, findings);
    read
}

fn read_one(
    path: &Path,
    der: &CertificateRevocationListDer<'_>,
    judging: Judging<'_>,
    findings: &mut Findings,
) -> Option<RevocationList> {
    let mut list = match RevocationList::read(der) {
        Ok(list) => list,
        Err(bad) => {
            findings.problem(path, unusable(&bad));
            return None;
        }
    };
    findings.expiries.push(Expiry { role: "crl", name: list.issuer_name.clone(), at: list.until });
    match signer(&list, judging) {
        Signer::Known => {}
        Signer::Unknown => findings.warn(
            path,
            format_args!(
                "the revocation list of {} is of none of the configured authorities; it is used only for callers that \
                 show an intermediate certificate of that name",
                list.issuer_name
            ),
        ),
        Signer::Forged(what) => findings.problem(path, what),
    }
    list.settle();
    Some(list)
}

fn unusable(bad: &BadList) -> String {
    match bad {
        BadList::Malformed => {
            "holds a revocation list that is not a well-formed X.509 v2 one (RFC 5280 section 5)".to_owned()
        }
        BadList::Endless => {
            "holds a revocation list without nextUpdate; issue one that says how long it holds".to_owned()
        }
        BadList::Unsupported(what) => format!("holds a revocation list that is not supported: it {what}"),
    }
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

fn signer(list: &RevocationList, judging: Judging<'_>) -> Signer {
    let mut namesake = None;
    for authority in &judging.trust.authorities {
        match list.is_of(&authority.issuer(), judging.algorithms) {
            Ok(()) if authority.may_sign_lists => return Signer::Known,
            Ok(()) => {
                return Signer::Forged(format!(
                    "{} signed this revocation list, but may not (its keyUsage lacks cRLSign)",
                    list.issuer_name
                ));
            }
            Err(NotItsList::OtherName) => {}
            Err(NotItsList::Unsupported) => namesake = Some(NotItsList::Unsupported),
            Err(NotItsList::OtherKey) => namesake = namesake.or(Some(NotItsList::OtherKey)),
        }
    }
    match namesake {
        None => Signer::Unknown,
        Some(NotItsList::Unsupported) => Signer::Forged(format!(
            "the revocation list of {} is signed with an algorithm that is not supported; {SUPPORTED}; let the authority \
             sign it with one of these",
            list.issuer_name
        )),
        Some(_) => Signer::Forged(format!(
            "the revocation list names {} as its issuer, but was not signed by it; if that authority has another key \
             under the same name, name the certificate of that key in clientAuth.authorities, too",
            list.issuer_name
        )),
    }
}

fn judge_dates(
    (path, list): (&Path, &RevocationList),
    all: &[ListInFile],
    judging: Judging<'_>,
    findings: &mut Findings,
) {
    let (issuer, from, until, now) = (&list.issuer_name, list.from, list.until, judging.now);
    if now < from {
        let what = format!("the revocation list of {issuer} is of {from}, and it is {now}; check this machine's clock");
        return findings.problem(path, what);
    }
    if now < until {
        return;
    }
    let expired = format!("the revocation list of {issuer} expired at {until}, and it is {now}");
    let is_newer = |other: &ListInFile| now < other.list.until && other.list.speaks_of_the_same_as(list);
    if let Some(newer) = all.iter().find(|other| is_newer(other)) {
        let newer = newer.path.display();
        return findings.warn(path, format_args!("{expired}; a newer one is in {newer}, so take this one out"));
    }
    match judging.expired {
        ExpiredLists::Refuse => findings.problem(path, format!("{expired}; fetch a new one")),
        ExpiredLists::Allow => findings.warn(
            path,
            format_args!("{expired}; fetch a new one; until then it is believed, because expiredRevocation is allow"),
        ),
    }
}

/// Nobody gets in through an authority without a list, once there is a list at all; better said now than found out.
fn warn_of_uncovered_authorities(trust: &Trust, lists: &RevocationLists, findings: &mut Findings) {
    if lists.is_empty() {
        return;
    }
    for authority in &trust.authorities {
        if lists.of(authority).next().is_none() {
            findings.warn(
                &authority.path,
                format_args!(
                    "{} has no revocation list here although other authorities have: callers that it certified are refused",
                    authority.name
                ),
            );
        }
    }
}
