//! The files of the authority. Each file is written once; keys are readable by their owner only.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;

use crate::identity::{TlsProblem, read_certificates};

use super::{AuthorityError, IssuedFiles};

/// The first certificate in a PEM file. It is the end-entity certificate; the certificates of its issuers follow it.
pub(crate) fn first_certificate(
    path: &Path,
    expected: &'static str,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let found = read_certificates(path, expected)?.into_iter().next();
    found.ok_or_else(|| TlsProblem::new(path, format!("contains nothing; expected {expected}")).into())
}

pub(crate) fn write_pair(files: &IssuedFiles, certificate: &str, key: &KeyPair) -> Result<(), AuthorityError> {
    for path in [&files.certificate, &files.key] {
        if path.exists() {
            return Err(AuthorityError::Exists(path.clone()));
        }
    }
    if let Some(directory) = files.key.parent() {
        std::fs::create_dir_all(directory).map_err(|error| unwritable(directory, &error))?;
    }
    write_new(&files.key, &key.serialize_pem(), 0o600)?;
    write_new(&files.certificate, certificate, 0o644)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| unwritable(path, &error))
}

pub(crate) fn unwritable(path: &Path, error: &std::io::Error) -> AuthorityError {
    AuthorityError::Unwritable { path: path.to_owned(), why: error.to_string() }
}
