//! The reason why a TLS file cannot be used: path, reason and advice.

use std::path::Path;
use std::path::PathBuf;

/// The reason why a TLS file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}")]
pub struct TlsProblem {
    /// The file.
    pub path: PathBufDisplay,
    /// The key below `tls` that names the file, such as `.certificates[3].key`. Empty if unknown.
    pub key: String,
    /// The fault, and the advice how to correct it.
    pub what: String,
}

/// A path that implements `Display`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathBufDisplay(pub PathBuf);

impl std::fmt::Display for PathBufDisplay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.display())
    }
}

impl TlsProblem {
    pub(crate) fn new(path: &Path, what: impl Into<String>) -> Self {
        Self { path: PathBufDisplay(path.to_owned()), key: String::new(), what: what.into() }
    }
}
