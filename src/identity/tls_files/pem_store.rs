//! The PEM files of one load. Each file is read and parsed once, also if several listeners and subsystems name it.
//!
//! Guarantees:
//! - All readers of a file see the same contents, and its digest is that of these contents.
//! - The contents are kept until the store is dropped, at the end of the load.
//!
//! Leaves to others: the bytes (`pem_source`), and the syntax (`pem`).

use std::cell::{RefCell, RefMut};
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use crate::model::hex_text;

use super::key_cache::KeyCache;
use super::pem::{PemError, PemSection, parse_sections};
use super::pem_source::{DiskFiles, PEM_BYTES_MAX, PemSource};
use super::tls_problem::TlsProblem;

/// The PEM files of one load.
pub struct PemStore<'s> {
    source: &'s dyn PemSource,
    files: RefCell<HashMap<PathBuf, Rc<PemFile>>>,
    keys: RefCell<KeyCache>,
}

/// A file with the digest of its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDigest {
    /// The file.
    pub path: PathBuf,
    /// The first 12 hex digits of the SHA-256, as `sha256sum` prints them.
    pub sha256: String,
}

/// A file that was read, or the fault.
#[derive(Debug)]
pub(crate) struct PemFile {
    pub(crate) path: PathBuf,
    contents: Result<PemContents, PemFault>,
}

#[derive(Debug)]
struct PemContents {
    sections: Vec<PemSection>,
    sha256: String,
    is_open_to_everyone: bool,
}

/// The reason why a file has no contents.
#[derive(Debug)]
enum PemFault {
    Unreadable(String),
    TooLong,
    Malformed(PemError),
}

impl<'s> PemStore<'s> {
    /// A store that has read nothing yet.
    pub fn new(source: &'s dyn PemSource) -> Self {
        Self::with_keys(source, KeyCache::default())
    }

    /// A store that has read nothing yet, with the keys of the last load.
    pub fn with_keys(source: &'s dyn PemSource, mut keys: KeyCache) -> Self {
        keys.begin_load();
        Self { source, files: RefCell::default(), keys: RefCell::new(keys) }
    }

    /// Ends the load: its keys, for the next one.
    pub fn into_keys(self) -> KeyCache {
        let mut keys = self.keys.into_inner();
        keys.end_load();
        keys
    }

    /// The keys of this load and the last one.
    pub(crate) fn keys(&self) -> RefMut<'_, KeyCache> {
        self.keys.borrow_mut()
    }

    /// The file of this path. The first call reads it.
    pub(crate) fn file(&self, path: &Path) -> Rc<PemFile> {
        self.file_from(path, self.source)
    }

    /// A file of the system, which is on the disk wherever other files come from.
    pub(crate) fn system_file(&self, path: &Path) -> Rc<PemFile> {
        self.file_from(path, &DiskFiles)
    }

    fn file_from(&self, path: &Path, source: &dyn PemSource) -> Rc<PemFile> {
        let mut files = self.files.borrow_mut();
        if let Some(file) = files.get(path) {
            return Rc::clone(file);
        }
        let file = Rc::new(PemFile { path: path.to_owned(), contents: PemContents::read(path, source) });
        files.insert(path.to_owned(), Rc::clone(&file));
        file
    }
}

impl fmt::Debug for PemStore<'_> {
    /// Omits the files, some of which are keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemStore").field("source", &self.source).finish_non_exhaustive()
    }
}

impl PemFile {
    /// All sections, in their order. `expected` is the purpose of the file in words, such as "a certificate".
    pub(crate) fn sections(&self, expected: &str) -> Result<&[PemSection], TlsProblem> {
        let contents = self.contents.as_ref().map_err(|fault| fault.as_problem(&self.path, expected))?;
        Ok(&contents.sections)
    }

    /// The digest; `None` if the file has no contents.
    pub(crate) fn digest(&self) -> Option<FileDigest> {
        let contents = self.contents.as_ref().ok()?;
        Some(FileDigest { path: self.path.clone(), sha256: contents.sha256.clone() })
    }

    /// Whether every user of this machine may read or write the file.
    pub(crate) fn is_open_to_everyone(&self) -> bool {
        self.contents.as_ref().is_ok_and(|contents| contents.is_open_to_everyone)
    }
}

impl PemContents {
    fn read(path: &Path, source: &dyn PemSource) -> Result<Self, PemFault> {
        let text = source.read_pem(path).map_err(|error| PemFault::Unreadable(error.to_string()))?;
        if text.bytes.len() as u64 > PEM_BYTES_MAX {
            return Err(PemFault::TooLong);
        }
        let sections = parse_sections(&text.bytes).map_err(PemFault::Malformed)?;
        let sha256 = hex_text(&Sha256::digest(text.bytes.as_slice())[..6]);
        Ok(Self { sections, sha256, is_open_to_everyone: text.is_open_to_everyone })
    }
}

impl PemFault {
    fn as_problem(&self, path: &Path, expected: &str) -> TlsProblem {
        match self {
            Self::Unreadable(error) => TlsProblem::new(path, format!("cannot be read: {error}; expected {expected}")),
            Self::TooLong => {
                TlsProblem::new(path, format!("has more than {PEM_BYTES_MAX} bytes, which is the maximum"))
            }
            Self::Malformed(error) => error.as_problem(path),
        }
    }
}
