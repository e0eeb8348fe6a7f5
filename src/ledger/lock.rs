//! The lock file beside the book: who keeps this ledger.
//!
//! Guarantees: one keeper at a time on one machine; the lock goes with its process, however that ends. The file itself
//! stays, and names its last holder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::LedgerError;

/// How often and how far apart a start tries: a reader looks at the lock for a moment.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// Takes the lock of the ledger at `book`, or says who has it.
pub(super) fn take(book: &Path) -> Result<File, LedgerError> {
    let path = path_of(book);
    let refused = |action, error| LedgerError::file(action, &path, error);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = file.map_err(|error| refused("open the lock file", error))?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => {
                let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                return written.map(|()| file).map_err(|error| refused("write the lock file", error));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_TRIES),
            Err(TryLockError::Error(error)) => return Err(refused("lock", error)),
        }
    }
    let holder = std::fs::read_to_string(&path).unwrap_or_default();
    Err(LedgerError::Held { path: book.to_owned(), holder: holder.trim().to_owned() })
}

/// Whether a gateway keeps the ledger at `book` now.
pub(super) fn is_held(book: &Path) -> Result<bool, LedgerError> {
    let path = path_of(book);
    let Ok(file) = File::open(&path) else { return Ok(false) }; // a copy, or never kept
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(LedgerError::file("look at the lock of", &path, error)),
    }
}

fn path_of(book: &Path) -> PathBuf {
    book.with_extension("lock")
}
