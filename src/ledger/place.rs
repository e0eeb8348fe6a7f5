//! Where a ledger lies: the book's own path, and the names of the files beside it.
//!
//! Guarantees: one book has one path, whatever links lead to it, so lock, tally and log are looked for beside the book and
//! not beside a link. Leaves hard links to `lock`: they are equal names, and no path tells them apart.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::error::LedgerError;

/// The write-ahead log of SQLite, after the book's whole name (sqlite.org/tempfiles.html).
pub(super) const LOG: &str = "-wal";
/// The index of that log.
pub(super) const LOG_INDEX: &str = "-shm";

/// The book's own path: absolute, with the links of its folder and of the file itself followed. A book that is not there
/// yet gets the path that it will have.
pub(super) fn canonical(book: &Path) -> Result<PathBuf, LedgerError> {
    match book.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => canonical_of_new(book),
        Err(error) => Err(LedgerError::file("find", book, error)),
    }
}

fn canonical_of_new(book: &Path) -> Result<PathBuf, LedgerError> {
    if book.symlink_metadata().is_ok() {
        return Err(LedgerError::LinkToNothing(book.to_owned()));
    }
    let name = book.file_name().ok_or_else(|| LedgerError::NotABook(book.to_owned()))?;
    let folder = book.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().map_err(|error| LedgerError::file("find the folder", folder, error))?;
    Ok(folder.join(name))
}

/// The file whose name is the book's with `suffix` behind it.
pub(super) fn beside(book: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(book);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_of_folder_and_file_lead_to_one_path() {
        let made = tempfile::tempdir().expect("a folder");
        let folder = made.path().canonicalize().expect("it is there");
        std::fs::create_dir(folder.join("data")).expect("a folder");
        symlink("data", folder.join("link")).expect("a link of the folder");
        symlink("data/ledger.db", folder.join("other.db")).expect("a link of the file");
        let book = folder.join("data/ledger.db");
        assert_eq!(canonical(&folder.join("link/ledger.db")).expect("a new book"), book);
        let dangling = canonical(&folder.join("other.db")).expect_err("it leads to nothing");
        assert!(matches!(dangling, LedgerError::LinkToNothing(_)), "{dangling}");
        std::fs::write(&book, "").expect("a file");
        for way in ["data/ledger.db", "link/ledger.db", "other.db", "data/../link/ledger.db"] {
            assert_eq!(canonical(&folder.join(way)).expect("a book"), book, "{way}");
        }
        assert!(canonical(&folder.join("none/ledger.db")).is_err(), "no folder");
    }

    #[test]
    fn the_log_is_named_after_the_whole_book() {
        assert_eq!(beside(Path::new("a/ledger.sqlite"), LOG), Path::new("a/ledger.sqlite-wal"));
    }
}
