//! The TLS files of listeners and subsystems: keys, certificates, authorities and revocation lists, and the problems
//! found in them.
//!
//! Guarantees: a file is read and parsed once per [`PemStore`].
//!
//! Leaves to others: trust (`trust`, `revocation`), and the rustls configurations (`tls_config`).

mod pem;
pub(crate) mod pem_source;
pub(crate) mod pem_store;
mod tls_problem;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use self::pem::{PemSection, SectionKind};
use self::pem_source::DiskFiles;
use self::pem_store::{FileDigest, PemFile, PemStore};
pub use self::tls_problem::PathBufDisplay;
pub use self::tls_problem::TlsProblem;
use super::certificate::expiry::{self, ExpiringItem};
use super::sni::server_names::HostPolicy;

/// The files with a listener's key, certificate and trust anchors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM chain, own certificate first.
    pub certificate: PathBuf,
    /// PEM key.
    pub key: PathBuf,
    /// The client authentication (mTLS); `None` requests no client certificates.
    pub client_auth: Option<ClientAuth>,
    /// The hosts that the listener serves.
    pub host_policy: HostPolicy,
}

/// The settings of client authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Whether a handshake without a client certificate fails.
    pub required: bool,
    /// PEM bundles of certificate authorities.
    pub authorities: Vec<PathBuf>,
    /// PEM revocation lists.
    pub revocation_lists: Vec<PathBuf>,
    /// The treatment of an expired revocation list.
    pub expired_crl: ExpiredCrlPolicy,
}

/// The treatment of callers whose authority's revocation list is past its nextUpdate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpiredCrlPolicy {
    /// An expired list proves nothing: the callers of its authority are refused until there is a new list.
    #[default]
    Refuse,
    /// An expired list stays in use as if it were current: a caller that was revoked since then is accepted. Every
    /// operator view shows this state.
    Allow,
}

/// The files that one listener or subsystem reads, and the problems and warnings found in them. All problems are
/// reported together.
#[derive(Debug)]
pub(crate) struct TlsFindings<'s> {
    store: &'s PemStore<'s>,
    pub(crate) problems: Vec<TlsProblem>,
    pub(crate) warnings: Vec<String>,
    pub(crate) expiries: Vec<ExpiringItem>,
    /// The files that were read, without those of keys.
    pub(crate) files: Vec<FileDigest>,
}

impl<'s> TlsFindings<'s> {
    pub(crate) fn new(store: &'s PemStore<'s>) -> Self {
        Self { store, problems: Vec::new(), warnings: Vec::new(), expiries: Vec::new(), files: Vec::new() }
    }

    /// The value of a result; an error is recorded as a problem.
    pub(crate) fn value_or_problem<T>(&mut self, result: Result<T, TlsProblem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// Records a problem with a file.
    pub(crate) fn add_problem(&mut self, path: &Path, what: impl Into<String>) {
        self.problems.push(TlsProblem::new(path, what));
    }

    /// Records an oddity of a file that does not prevent its use.
    pub(crate) fn add_warning(&mut self, path: &Path, what: impl std::fmt::Display) {
        self.warnings.push(format!("{}: {what}", path.display()));
    }

    /// Adds warnings of items that expire soon. Expired items have been reported with their files.
    pub(crate) fn warn_of_expiry(&mut self, now: Timestamp) {
        let ahead: Vec<ExpiringItem> = self.expiries.iter().filter(|expiry| expiry.expires_at > now).cloned().collect();
        self.warnings.extend(expiry::expiry_warnings(&ahead, now));
    }
}

impl TlsFiles {
    /// The paths of all files, for the file watcher.
    pub fn paths(&self) -> Vec<PathBuf> {
        let own = [&self.certificate, &self.key];
        let trusted = self.client_auth.iter().flat_map(|auth| auth.authorities.iter().chain(&auth.revocation_lists));
        own.into_iter().chain(trusted).cloned().collect()
    }
}

impl TlsFindings<'_> {
    /// The certificates in a file of the gateway's own, which may hold the key as well.
    pub(crate) fn read_certificates(&mut self, path: &Path, expected: &'static str) -> Vec<CertificateDer<'static>> {
        let wanted = WantedSections { expected, ..WANTED_CERTIFICATES };
        self.read_public(path, &wanted, |section| section.certificate(path))
    }

    /// The certificates in a bundle of authorities.
    pub(crate) fn read_authorities(&mut self, path: &Path) -> Vec<CertificateDer<'static>> {
        self.read_public(path, &WANTED_AUTHORITIES, |section| section.certificate(path))
    }

    /// The revocation lists in a file.
    pub(crate) fn read_revocation_lists(&mut self, path: &Path) -> Vec<CertificateRevocationListDer<'static>> {
        self.read_public(path, &WANTED_REVOCATION_LISTS, |section| section.revocation_list(path))
    }

    /// The one key in a file, which may hold the certificates as well.
    pub(crate) fn read_key(&mut self, path: &Path) -> Option<PrivateKeyDer<'static>> {
        let file = self.store.file(path);
        let found = self.find_sections(&file, &WANTED_KEYS);
        if file.is_open_to_everyone() {
            self.add_warning(
                path,
                "this private key is readable by every user of this machine; restrict it with `chmod 600`",
            );
        }
        if let [first, second, ..] = &found[..] {
            let what = format!(
                "contains several private keys (lines {} and {}); expected exactly one",
                first.line, second.line
            );
            self.add_problem(path, what);
            return None;
        }
        self.value_or_problem(found.first()?.key(path))
    }

    /// Decodes the wanted sections of a file that holds no secret, and records its digest.
    fn read_public<T>(
        &mut self,
        path: &Path,
        wanted: &WantedSections,
        decode: impl Fn(&PemSection) -> Result<T, TlsProblem>,
    ) -> Vec<T> {
        let file = self.store.file(path);
        self.files.extend(file.digest());
        let found = self.find_sections(&file, wanted);
        found.into_iter().filter_map(|section| self.value_or_problem(decode(section))).collect()
    }

    /// The sections of the wanted kinds. A section of a kind that is not expected in the file is a warning.
    fn find_sections<'f>(&mut self, file: &'f PemFile, wanted: &WantedSections) -> Vec<&'f PemSection> {
        let path = &file.path;
        let read = file.sections(wanted.expected).and_then(|read| wanted.split_sections(path, read));
        let Some((found, others)) = self.value_or_problem(read) else { return Vec::new() };
        for other in others.iter().filter(|other| !wanted.beside.contains(&other.kind)) {
            self.add_warning(path, format_args!("line {}: {} is ignored in this file", other.line, other.kind.name()));
        }
        found
    }
}

/// The kinds of sections that a file must hold.
#[derive(Clone, Copy)]
struct WantedSections {
    kinds: &'static [SectionKind],
    /// The kinds that may stand beside the wanted ones without a warning.
    beside: &'static [SectionKind],
    /// The expected contents in words, with the article.
    expected: &'static str,
}

const WANTED_CERTIFICATES: WantedSections = WantedSections {
    kinds: &[SectionKind::Certificate, SectionKind::TrustedCertificate],
    beside: &[SectionKind::PrivateKey, SectionKind::EncryptedKey, SectionKind::Parameters],
    expected: "a certificate",
};
const WANTED_AUTHORITIES: WantedSections =
    WantedSections { beside: &[], expected: "a certificate authority's certificate", ..WANTED_CERTIFICATES };
const WANTED_REVOCATION_LISTS: WantedSections =
    WantedSections { kinds: &[SectionKind::RevocationList], beside: &[], expected: "a revocation list" };
const WANTED_KEYS: WantedSections = WantedSections {
    kinds: &[SectionKind::PrivateKey],
    beside: &[SectionKind::Certificate, SectionKind::TrustedCertificate, SectionKind::Parameters],
    expected: "a private key",
};

impl WantedSections {
    /// The wanted sections, at least one, and the others.
    fn split_sections<'f>(
        &self,
        path: &Path,
        sections: &'f [PemSection],
    ) -> Result<(Vec<&'f PemSection>, Vec<&'f PemSection>), TlsProblem> {
        let is_wanted = |section: &&PemSection| self.kinds.contains(&section.kind);
        let (found, others): (Vec<_>, Vec<_>) = sections.iter().partition(is_wanted);
        if !found.is_empty() {
            return Ok((found, others));
        }
        let (noun, expected) = (noun_of(self.expected), self.expected);
        let instead = describe_contents(&others);
        Err(TlsProblem::new(path, format!("contains no {noun} in PEM form; expected {expected}{instead}")))
    }
}

/// The certificates in a PEM file, in their order; at least one. `expected` is the purpose of the file in words.
///
/// # Errors
/// If the file cannot be read, is not well-formed PEM, or holds no certificate.
pub fn read_certificates(path: &Path, expected: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let store = PemStore::new(&DiskFiles);
    let mut findings = TlsFindings::new(&store);
    let found = findings.read_certificates(path, expected);
    findings.problems.into_iter().next().map_or(Ok(found), Err)
}

/// The first revocation list in a PEM file.
pub(crate) fn read_revocation_list(path: &Path) -> Result<CertificateRevocationListDer<'static>, TlsProblem> {
    let file = PemStore::new(&DiskFiles).file(path);
    let read = file.sections(WANTED_REVOCATION_LISTS.expected)?;
    WANTED_REVOCATION_LISTS.split_sections(path, read)?.0[0].revocation_list(path)
}

/// The key in a PEM file.
pub(crate) fn read_private_key(path: &Path, expected: &str) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    let file = PemStore::new(&DiskFiles).file(path);
    WANTED_KEYS.split_sections(path, file.sections(expected)?)?.0[0].key(path)
}

fn noun_of(expected: &str) -> &str {
    expected.split_once(' ').map_or(expected, |(_article, noun)| noun)
}

/// The contents of a file without a wanted section, for an operator who confused two files.
fn describe_contents(others: &[&PemSection]) -> String {
    let Some(first) = others.iter().find(|other| other.kind != SectionKind::Parameters) else {
        return ", a section that starts with \"-----BEGIN\"; if it is in DER form, openssl can convert it".to_owned();
    };
    if first.kind == SectionKind::EncryptedKey {
        return ", found an encrypted key: decrypt it first, for example with `openssl pkey -in KEY -out PLAIN`"
            .to_owned();
    }
    format!(", found {}: are two files mixed up?", first.kind.name())
}
