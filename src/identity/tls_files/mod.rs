//! The TLS files of listeners and subsystems: keys, certificates, authorities and revocation lists, and the problems
//! found in them.
//!
//! Guarantees: a file is read and parsed once per [`PemStore`].
//!
//! Leaves to others: trust (`trust`, `revocation`), and the rustls configurations (`tls_config`).

mod client_auth;
pub(crate) mod key_cache;
pub(crate) mod memory_texts;
mod pem;
pub(crate) mod pem_check;
pub(crate) mod pem_source;
pub(crate) mod pem_store;
mod system_bundle;
mod tls_problem;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

pub use self::client_auth::{AuthRefusal, ClientAuth, ClientAuthMode, ExpiredCrlPolicy};
use self::key_cache::KeyDigest;
use self::pem::{PemSection, SectionKind};
use self::pem_source::DiskFiles;
use self::pem_store::{FileDigest, PemFile, PemStore};
pub(crate) use self::system_bundle::system_bundle;
pub use self::tls_problem::PathBufDisplay;
pub use self::tls_problem::TlsProblem;
use super::certificate::expiry::{self, ExpiringItem};
use super::certificate::forwarded_certificate::CertificateForwarding;
use super::sni::host_pattern::HostPattern;
use super::sni::server_names::MissingSni;

/// The files of a listener: its certificates with their keys, and the authorities of callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates, at least one. The first one serves handshakes without a server name.
    pub certificates: Vec<CertificateFiles>,
    /// Whether they are written as a list (`tls.certificates`), or one of them directly below `tls`.
    pub is_list: bool,
    /// The treatment of handshakes that name no host.
    pub missing_sni: MissingSni,
}

/// One certificate of a listener: its files, its hosts, and the callers that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM chain, own certificate first.
    pub certificate: PathBuf,
    /// PEM key.
    pub key: PathBuf,
    /// The hosts; `None` means those of the certificate.
    pub server_names: Option<Vec<HostPattern>>,
    /// The client authentication (mTLS); `None` requests no client certificates.
    pub client_auth: Option<Arc<ClientAuth>>,
    /// Whether `client_auth` is the default of all certificates (`tls.clientAuth`), and not of this one alone.
    pub has_default_auth: bool,
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
    /// One certificate, written directly below `tls`, for the hosts that it is valid for.
    pub fn single(certificate: PathBuf, key: PathBuf, client_auth: Option<ClientAuth>) -> Self {
        let client_auth = client_auth.map(Arc::new);
        let only = CertificateFiles { certificate, key, server_names: None, client_auth, has_default_auth: true };
        Self { certificates: vec![only], is_list: false, missing_sni: MissingSni::default() }
    }

    /// The paths of all files, for the file watcher. A file may occur several times.
    pub fn paths(&self) -> Vec<PathBuf> {
        let own = self.certificates.iter().flat_map(|files| [&files.certificate, &files.key]);
        let trusted = self.client_auths().flat_map(|(_, auth)| auth.authorities.iter().chain(&auth.revocation_lists));
        own.chain(trusted).cloned().collect()
    }

    /// Each setting of client authentication once, with the position of its first certificate.
    pub(crate) fn client_auths(&self) -> impl Iterator<Item = (usize, &Arc<ClientAuth>)> {
        let mut known = HashSet::new();
        let all = self.certificates.iter().enumerate();
        all.filter_map(|(index, files)| Some((index, files.client_auth.as_ref()?)))
            .filter(move |(_, auth)| known.insert(Arc::clone(auth)))
    }

    /// Whether some handshake succeeds without a client certificate.
    pub fn accepts_anonymous(&self) -> bool {
        let requires = |auth: &Arc<ClientAuth>| auth.mode == ClientAuthMode::Required;
        self.certificates.iter().any(|files| !files.client_auth.as_ref().is_some_and(requires))
    }

    /// Whether subsystems get fields about some client certificate.
    pub fn forwards_certificates(&self) -> bool {
        self.client_auths().any(|(_, auth)| auth.forwarding != CertificateForwarding::None)
    }

    /// The key below `tls` that names a file of a certificate.
    pub(crate) fn key_of_certificate(&self, index: usize, file: &Path) -> String {
        let place = if self.is_list { format!(".certificates[{index}]") } else { String::new() };
        let files = &self.certificates[index];
        if files.certificate == file {
            format!("{place}.certificate")
        } else if files.key == file {
            format!("{place}.key")
        } else {
            place
        }
    }

    /// The key below `tls` of the client authentication of a certificate.
    pub(crate) fn key_of_client_auth(&self, index: usize) -> String {
        let is_own = self.is_list && !self.certificates[index].has_default_auth;
        let place = if is_own { format!(".certificates[{index}]") } else { String::new() };
        place + ".clientAuth"
    }

    /// The key below `tls` that names an authority or a revocation list of a certificate.
    pub(crate) fn key_of_trust(&self, index: usize, file: &Path) -> String {
        let place = self.key_of_client_auth(index);
        let Some(auth) = &self.certificates[index].client_auth else { return place };
        let position = |list: &[PathBuf]| list.iter().position(|path| path == file);
        if let Some(position) = position(&auth.authorities) {
            return format!("{place}.authorities[{position}]");
        }
        position(&auth.revocation_lists).map_or_else(|| place.clone(), |at| format!("{place}.revocation[{at}]"))
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

    /// A chain with its key, from the last load if both are unchanged.
    ///
    /// # Errors
    /// If the key cannot be used, or does not belong to the chain.
    pub(crate) fn certified_key(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
    ) -> Result<Arc<CertifiedKey>, rustls::Error> {
        let digest = KeyDigest::new(&chain, &key);
        self.store.keys().get_or_make(digest, || CertifiedKey::from_der(chain, key, provider))
    }

    /// The certificates in the bundle of the system.
    pub(crate) fn read_system_authorities(&mut self) -> Vec<CertificateDer<'static>> {
        let Some(path) = system_bundle() else {
            self.add_problem(Path::new("systemAuthorities"), system_bundle::no_bundle_message());
            return Vec::new();
        };
        let file = self.store.system_file(&path);
        self.files.extend(file.digest());
        let found = self.find_sections(&file, &WANTED_AUTHORITIES);
        found.into_iter().filter_map(|section| section.certificate(&path).ok()).collect()
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
