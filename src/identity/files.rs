//! Where a listener's keys and trust come from, and how to say that one of those files is of no use.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::expiry::{self, Expiry};
use super::names::NamePolicy;
use super::pem::{self, PemSection, SectionKind};

/// Where a listener's keys and trust come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM chain, own certificate first.
    pub certificate: PathBuf,
    /// PEM key.
    pub key: PathBuf,
    /// Whom to ask for certificates; `None` asks nobody.
    pub client_auth: Option<ClientAuth>,
    /// Which hosts are served.
    pub names: NamePolicy,
}

/// How client certificates are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Whether a handshake without one fails.
    pub required: bool,
    /// PEM bundles of certificate authorities.
    pub authorities: Vec<PathBuf>,
    /// PEM revocation lists.
    pub revocation: Vec<PathBuf>,
    /// What a revocation list proves once it has expired.
    pub expired_lists: ExpiredLists,
}

/// What becomes of callers whose authority's revocation list is past its nextUpdate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpiredLists {
    /// Such a list proves nothing: its authority's callers are refused until there is a new one.
    #[default]
    Refuse,
    /// It goes on as if it were current: whoever was revoked since then is let in. Shown wherever an operator looks.
    Allow,
}

/// Why the files of a listener cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}")]
pub struct TlsProblem {
    /// The file.
    pub path: PathBufDisplay,
    /// What is wrong, and what to do.
    pub what: String,
}

/// A path that can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathBufDisplay(pub PathBuf);

/// What is gathered while files are read: everything wrong is told at once.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<TlsProblem>,
    pub(super) warnings: Vec<String>,
    pub(super) expiries: Vec<Expiry>,
}

impl Findings {
    /// The good of a result; the bad is noted.
    pub(super) fn keep<T>(&mut self, result: Result<T, TlsProblem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// Notes a problem with a file.
    pub(super) fn problem(&mut self, path: &Path, what: impl Into<String>) {
        self.problems.push(TlsProblem::new(path, what));
    }

    /// Notes something odd about a file that does not stop its use.
    pub(super) fn warn(&mut self, path: &Path, what: impl std::fmt::Display) {
        self.warnings.push(format!("{}: {what}", path.display()));
    }

    /// Warns of what ends soon. What has ended has been told with its file.
    pub(super) fn warn_of_endings(&mut self, now: Timestamp) {
        let ahead: Vec<Expiry> = self.expiries.iter().filter(|expiry| expiry.at > now).cloned().collect();
        self.warnings.extend(expiry::ending_soon(&ahead, now));
    }
}

impl std::fmt::Display for PathBufDisplay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.display())
    }
}

impl TlsProblem {
    pub(super) fn new(path: &Path, what: impl Into<String>) -> Self {
        Self { path: PathBufDisplay(path.to_owned()), what: what.into() }
    }
}

impl TlsFiles {
    /// Every file, to be watched for changes.
    pub fn paths(&self) -> Vec<PathBuf> {
        let own = [&self.certificate, &self.key];
        let trusted = self.client_auth.iter().flat_map(|auth| auth.authorities.iter().chain(&auth.revocation));
        own.into_iter().chain(trusted).cloned().collect()
    }
}

impl Findings {
    /// The certificates in a file of our own, which may hold the key, too.
    pub(super) fn certificates(&mut self, path: &Path, expected: &'static str) -> Vec<CertificateDer<'static>> {
        let beside = [SectionKind::PrivateKey, SectionKind::EncryptedKey, SectionKind::Parameters];
        let found = self.sections(path, &Wanted { expected, ..CERTIFICATES }, &beside);
        self.each(&found, |section| section.certificate(path))
    }

    /// The certificates in a bundle of authorities.
    pub(super) fn authorities(&mut self, path: &Path) -> Vec<CertificateDer<'static>> {
        let wanted = Wanted { expected: "a certificate authority's certificate", ..CERTIFICATES };
        let found = self.sections(path, &wanted, &[]);
        self.each(&found, |section| section.certificate(path))
    }

    /// The revocation lists in a file.
    pub(super) fn lists(&mut self, path: &Path) -> Vec<CertificateRevocationListDer<'static>> {
        let found = self.sections(path, &LISTS, &[]);
        self.each(&found, |section| section.list(path))
    }

    /// The one key in a file, which may hold the certificates, too.
    pub(super) fn key(&mut self, path: &Path) -> Option<PrivateKeyDer<'static>> {
        let beside = [SectionKind::Certificate, SectionKind::TrustedCertificate, SectionKind::Parameters];
        let found = self.sections(path, &KEYS, &beside);
        if let [first, second, ..] = &found[..] {
            let what = format!(
                "holds several private keys (lines {} and {}); expected one, so that it is plain which one counts",
                first.line, second.line
            );
            self.problem(path, what);
            return None;
        }
        self.each(&found, |section| section.key(path)).pop()
    }

    /// The sections of the wanted kinds. What else the file holds is told, unless it may stand `beside` them.
    fn sections(&mut self, path: &Path, wanted: &Wanted, beside: &[SectionKind]) -> Vec<PemSection> {
        let read = pem::read(path, wanted.expected).and_then(|read| wanted.among(path, read));
        let Some((found, others)) = self.keep(read) else { return Vec::new() };
        for other in others.iter().filter(|other| !beside.contains(&other.kind)) {
            self.warn(path, format_args!("line {}: {} is not read from here", other.line, other.kind.name()));
        }
        found
    }

    fn each<T>(&mut self, sections: &[PemSection], read: impl Fn(&PemSection) -> Result<T, TlsProblem>) -> Vec<T> {
        sections.iter().filter_map(|section| self.keep(read(section))).collect()
    }
}

/// What a file is for.
#[derive(Clone, Copy)]
struct Wanted {
    kinds: &'static [SectionKind],
    /// In words, with the article.
    expected: &'static str,
}

const CERTIFICATES: Wanted =
    Wanted { kinds: &[SectionKind::Certificate, SectionKind::TrustedCertificate], expected: "a certificate" };
const LISTS: Wanted = Wanted { kinds: &[SectionKind::RevocationList], expected: "a revocation list" };
const KEYS: Wanted = Wanted { kinds: &[SectionKind::PrivateKey], expected: "a private key" };

impl Wanted {
    /// The wanted sections, at least one, and the others.
    fn among(&self, path: &Path, sections: Vec<PemSection>) -> Result<(Vec<PemSection>, Vec<PemSection>), TlsProblem> {
        let is_wanted = |section: &PemSection| self.kinds.contains(&section.kind);
        let (found, others): (Vec<_>, Vec<_>) = sections.into_iter().partition(is_wanted);
        if !found.is_empty() {
            return Ok((found, others));
        }
        let (noun, expected) = (noun(self.expected), self.expected);
        let instead = contents(&others);
        Err(TlsProblem::new(path, format!("holds no {noun} in PEM form; expected {expected}{instead}")))
    }
}

/// The certificates in a PEM file, in their order; at least one. `expected` says in words what the file is for.
///
/// # Errors
/// If the file cannot be read, is not well-formed PEM, or holds none.
pub fn certificates_of_file(path: &Path, expected: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let mut findings = Findings::default();
    let found = findings.certificates(path, expected);
    findings.problems.into_iter().next().map_or(Ok(found), Err)
}

/// The first revocation list in a PEM file.
pub(super) fn list_of_file(path: &Path) -> Result<CertificateRevocationListDer<'static>, TlsProblem> {
    let (found, _) = pem::read(path, LISTS.expected).and_then(|read| LISTS.among(path, read))?;
    found[0].list(path)
}

/// The key in a PEM file.
pub(super) fn key_of_file(path: &Path, expected: &str) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    let (found, _) = pem::read(path, expected).and_then(|read| KEYS.among(path, read))?;
    found[0].key(path)
}

fn noun(expected: &str) -> &str {
    expected.split_once(' ').map_or(expected, |(_article, noun)| noun)
}

/// What the file holds instead, for somebody who mixed two files up.
fn contents(others: &[PemSection]) -> String {
    let Some(first) = others.iter().find(|other| other.kind != SectionKind::Parameters) else {
        return ", a section that starts with \"-----BEGIN\"; if it is in DER form, openssl can convert it".to_owned();
    };
    if first.kind == SectionKind::EncryptedKey {
        return ", found an encrypted key: decrypt it first, for example with `openssl pkey -in KEY -out PLAIN`"
            .to_owned();
    }
    format!(", found {}: are two files mixed up?", first.kind.name())
}
