//! Where a listener's keys and trust come from, and how to say that one of those files is of no use.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{PemObject, SectionKind};

use super::expiry::Expiry;
use super::names::NamePolicy;

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

/// The sections of one kind in a PEM file, at least one.
///
/// `expected` is the kind in words, with its article: "a certificate".
pub(super) fn sections<T: PemObject>(path: &Path, expected: &str) -> Result<Vec<T>, TlsProblem> {
    let text = read(path, expected)?;
    let found: Result<Vec<T>, _> = T::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| TlsProblem::new(path, format!("is not well-formed PEM: {error}")))?;
    if !found.is_empty() {
        return Ok(found);
    }
    Err(TlsProblem::new(
        path,
        format!("holds no {} in PEM form; expected {expected}{}", noun(expected), contents(&text)),
    ))
}

fn read(path: &Path, expected: &str) -> Result<Vec<u8>, TlsProblem> {
    std::fs::read(path).map_err(|error| TlsProblem::new(path, format!("cannot be read: {error}; expected {expected}")))
}

fn noun(expected: &str) -> &str {
    expected.split_once(' ').map_or(expected, |(_article, noun)| noun)
}

/// What the file holds instead, for somebody who mixed two files up.
fn contents(text: &[u8]) -> String {
    let kinds: Vec<&str> =
        <(SectionKind, Vec<u8>)>::pem_slice_iter(text).map_while(Result::ok).map(|(kind, _)| kind_name(kind)).collect();
    match kinds.first() {
        Some(kind) => format!(", found {kind}: are two files mixed up?"),
        None if text.windows(9).any(|part| part == b"ENCRYPTED") => {
            ", found an encrypted key: decrypt it first, for example with `openssl pkey -in KEY -out PLAIN`".to_owned()
        }
        None => ", a section that starts with \"-----BEGIN\"; if it is in DER form, openssl can convert it".to_owned(),
    }
}

fn kind_name(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::Certificate => "a certificate",
        SectionKind::RsaPrivateKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey => "a private key",
        SectionKind::Crl => "a revocation list",
        SectionKind::Csr => "a certificate signing request",
        SectionKind::PublicKey => "a public key",
        _ => "something else",
    }
}
