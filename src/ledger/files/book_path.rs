//! The paths of a ledger: the book's canonical path, and the names of the files beside the book.
//!
//! Guarantees: one book has one path, whichever links lead to the book. So lock, tally and log are looked for beside
//! the book and not beside a link.
//!
//! Leaves to `lock`: hard links, which are equal names that no path can distinguish.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::ledger::values::error::LedgerError;

/// The tally's extension.
pub(crate) const TALLY_EXTENSION: &str = "tally";

/// The suffix of SQLite's write-ahead log, after the book's whole name (sqlite.org/tempfiles.html).
pub(crate) const LOG_SUFFIX: &str = "-wal";
/// The suffix of the index of that log.
pub(crate) const LOG_INDEX_SUFFIX: &str = "-shm";

/// The extension of the lock file.
pub(crate) const LOCK_EXTENSION: &str = "lock";
/// The begin of the extension of a tally that a start has set aside.
pub(crate) const ASIDE_EXTENSION: &str = "tally-aside-";
/// The suffix of the rollback journal of SQLite (sqlite.org/tempfiles.html).
const JOURNAL_SUFFIX: &str = "-journal";
/// The suffix of an incomplete backup.
pub(crate) const DRAFT_SUFFIX: &str = ".part";

/// Returns whether a file has the name of one that lies beside a book: tally, lock, log, index, journal, or incomplete
/// backup.
pub fn is_companion(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let suffixes = [LOG_SUFFIX, LOG_INDEX_SUFFIX, JOURNAL_SUFFIX, DRAFT_SUFFIX];
    [TALLY_EXTENSION, LOCK_EXTENSION].contains(&&*extension)
        || extension.starts_with(ASIDE_EXTENSION)
        || suffixes.iter().any(|suffix| name.ends_with(suffix))
}

/// Returns the book's canonical path: absolute, with the links of its folder and of the file itself resolved. For a
/// book that does not exist yet, returns the path that the book will get.
pub(crate) fn canonical_path(book: &Path) -> Result<PathBuf, LedgerError> {
    match book.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => canonical_path_of_new(book),
        Err(error) => Err(LedgerError::file("find", book, error)),
    }
}

fn canonical_path_of_new(book: &Path) -> Result<PathBuf, LedgerError> {
    if book.symlink_metadata().is_ok() {
        return Err(LedgerError::DanglingLink(book.to_owned()));
    }
    let name = book.file_name().ok_or_else(|| LedgerError::NotABook(book.to_owned()))?;
    let folder = book.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().map_err(|error| LedgerError::file("resolve the folder", folder, error))?;
    Ok(folder.join(name))
}

/// Returns the book's name with `suffix` appended.
pub(crate) fn path_with_suffix(book: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(book);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_to_folder_and_file_resolve_to_one_path() {
        let made = tempfile::tempdir().expect("a folder");
        let folder = made.path().canonicalize().expect("it is there");
        std::fs::create_dir(folder.join("data")).expect("a folder");
        symlink("data", folder.join("link")).expect("a link of the folder");
        symlink("data/ledger.db", folder.join("other.db")).expect("a link of the file");
        let book = folder.join("data/ledger.db");
        assert_eq!(canonical_path(&folder.join("link/ledger.db")).expect("a new book"), book);
        let dangling = canonical_path(&folder.join("other.db")).expect_err("the link is dangling");
        assert!(matches!(dangling, LedgerError::DanglingLink(_)), "{dangling}");
        std::fs::write(&book, "").expect("a file");
        for way in ["data/ledger.db", "link/ledger.db", "other.db", "data/../link/ledger.db"] {
            assert_eq!(canonical_path(&folder.join(way)).expect("a book"), book, "{way}");
        }
        assert!(canonical_path(&folder.join("none/ledger.db")).is_err(), "no folder");
    }

    #[test]
    fn files_beside_a_book_are_known_by_their_names() {
        for (name, expected) in [
            ("ledger.tally", true),
            ("ledger.tally-aside-20261130T101500123", true),
            ("ledger.lock", true),
            ("ledger.db-wal", true),
            ("ledger.db-shm", true),
            ("ledger.db-journal", true),
            ("2026-11-29.db.part", true),
            ("ledger.db", false),
            ("tally", false),
            ("edge-wal.db", false),
            ("ledger", false),
        ] {
            assert_eq!(is_companion(&Path::new("data").join(name)), expected, "{name}");
        }
    }

    #[test]
    fn write_ahead_log_is_named_after_the_full_book_name() {
        assert_eq!(path_with_suffix(Path::new("a/ledger.sqlite"), LOG_SUFFIX), Path::new("a/ledger.sqlite-wal"));
    }
}
