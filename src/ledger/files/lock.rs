//! Locks a ledger for its keeper: locks on the lock file beside the book, and on the book itself.
//!
//! Guarantees:
//! - At most one keeper runs at a time on one machine, whatever name or mount leads to the book.
//! - The locks end with their process, however the process ends.
//! - The lock file stays, and contains its last holder.
//! - A book with a second hard link is refused, because the tally and the log beside the other name would not be found.
//!
//! The lock file alone is not enough: the file can be removed, and a container that mounts only the book has its own
//! lock file. So the book's inode is locked too. Both locks are flock(2) locks, which do not conflict with the record
//! locks of fcntl(2) that SQLite takes on the same file. But closing any descriptor of a file drops all record locks of
//! the process (fcntl(2), "Advisory record locking"). So the book is opened here before SQLite opens it, and
//! [`LedgerLock`] must be dropped after the keeper's connections. No other code in this crate opens a book in use,
//! except SQLite.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ledger::values::error::LedgerError;

use super::book_path::LOCK_EXTENSION;
use super::file_identity::FileIdentity;

/// The most attempts of a start, and the pause between two attempts: a reader takes the lock for a moment to test it.
const LOCK_ATTEMPTS_MAX: u32 = 10;
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(10);

/// The exclusive lock on a ledger. Must be dropped after every connection to the book.
#[derive(Debug)]
pub(crate) struct LedgerLock {
    path: PathBuf,
    file: File,
    book: File,
}

/// The result of an attempt to lock.
enum LockAttempt {
    Locked,
    Held,
}

/// Locks the ledger at `book`, which must be its canonical path, or returns an error with the holder. Creates the
/// book's file if it does not exist.
pub(crate) fn acquire(book: &Path) -> Result<LedgerLock, LedgerError> {
    let path = lock_path(book);
    let file = acquire_lock_file(book, &path)?;
    let book_file = open_lock_file(book)?;
    refuse_hard_links(book, &book_file)?;
    match try_lock(&book_file, book)? {
        LockAttempt::Locked => Ok(LedgerLock { path, file, book: book_file }),
        LockAttempt::Held => Err(LedgerError::KeptUnderOtherName(book.to_owned())),
    }
}

/// Unlocks explicitly: a child that this process forked shares the locks until it executes its program, and would
/// otherwise keep them for that time.
impl Drop for LedgerLock {
    fn drop(&mut self) {
        let _ = self.book.unlock(); // fails only if the file cannot be locked at all
        let _ = self.file.unlock();
    }
}

impl LedgerLock {
    /// Returns the path of the lock file and its identity.
    pub(crate) fn lock_file_identity(&self) -> std::io::Result<(PathBuf, FileIdentity)> {
        Ok((self.path.clone(), FileIdentity::from_metadata(&self.file.metadata()?)))
    }

    /// Returns the identity of the book's file.
    pub(crate) fn book_identity(&self) -> std::io::Result<FileIdentity> {
        Ok(FileIdentity::from_metadata(&self.book.metadata()?))
    }
}

fn acquire_lock_file(book: &Path, path: &Path) -> Result<File, LedgerError> {
    let mut file = open_lock_file(path)?;
    if let LockAttempt::Held = try_lock(&file, path)? {
        let holder = std::fs::read_to_string(path).unwrap_or_default();
        return Err(LedgerError::KeptByOtherProcess { path: book.to_owned(), holder: holder.trim().to_owned() });
    }
    let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    written.map(|()| file).map_err(|error| LedgerError::file("write the lock file", path, error))
}

fn open_lock_file(path: &Path) -> Result<File, LedgerError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(path);
    file.map_err(|error| LedgerError::file("open", path, error))
}

fn try_lock(file: &File, path: &Path) -> Result<LockAttempt, LedgerError> {
    for _ in 0..LOCK_ATTEMPTS_MAX {
        match file.try_lock() {
            Ok(()) => return Ok(LockAttempt::Locked),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY_DELAY),
            Err(TryLockError::Error(error)) => return Err(LedgerError::file("lock", path, error)),
        }
    }
    Ok(LockAttempt::Held)
}

fn refuse_hard_links(book: &Path, file: &File) -> Result<(), LedgerError> {
    let links = file.metadata().map_err(|error| LedgerError::file("inspect", book, error))?.nlink();
    if links > 1 { Err(LedgerError::HardLinked { path: book.to_owned(), links }) } else { Ok(()) }
}

/// Returns whether a gateway keeps the ledger at `book` now.
pub(crate) fn is_held(book: &Path) -> Result<bool, LedgerError> {
    let path = lock_path(book);
    let Ok(file) = File::open(&path) else { return Ok(false) }; // a copy, or a ledger that was never kept
    match file.try_lock_shared() {
        Ok(()) => {
            let _ = file.unlock(); // explicitly, as in the drop of a lock
            Ok(false)
        }
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(LedgerError::file("inspect the lock of", &path, error)),
    }
}

fn lock_path(book: &Path) -> PathBuf {
    book.with_extension(LOCK_EXTENSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_lock_is_free_though_a_forked_child_has_its_descriptors() {
        let folder = tempfile::tempdir().expect("a folder");
        let book = folder.path().join("ledger.db");
        let lock = acquire(&book).expect("a lock");
        let of_child = [&lock.file, &lock.book].map(|file| file.try_clone().expect("the same open file"));
        assert!(is_held(&book).expect("it can be asked for"));
        drop(lock);
        assert!(!is_held(&book).expect("it can be asked for"));
        drop(acquire(&book).expect("a second lock"));
        drop(of_child);
    }
}
