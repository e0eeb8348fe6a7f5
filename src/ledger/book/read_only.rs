//! Opens a book for reading, also on storage where the reader has no write permission.
//!
//! A book is in SQLite's WAL mode. SQLite reads such a file only if it can find or create the index of its log beside
//! the file (sqlite.org/wal.html, "Read-Only Databases"). A ledger that was closed cleanly has neither log nor index.
//! So SQLite would refuse a reader without write permission, or a read-only mount. Such a book is opened as an
//! immutable file instead.
//!
//! Guarantees: a book is opened as immutable only if it has no log and no gateway keeps it. [`FrozenBook::has_changed`]
//! returns after the read whether this was still the case.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::ledger::files::book_path::{LOG_SUFFIX, path_with_suffix};
use crate::ledger::files::file_identity::FileIdentity;
use crate::ledger::files::lock;
use crate::ledger::values::error::LedgerError;

use super::connection;
use super::connection::{BUSY_TIMEOUT, open_error};

/// A connection, and the book's state if it is read as an immutable file.
pub(crate) type OpenedBook = (Connection, Option<FrozenBook>);

/// Opens the book at `path`, which must be its canonical path.
pub(crate) fn open_read_only(path: &Path) -> Result<OpenedBook, LedgerError> {
    match open_with_flags(path, OpenFlags::empty()) {
        Err(error) if needs_write_access(&error) => open_immutable(path, error),
        opened => opened.map(|connection| (connection, None)).map_err(|error| open_error(path, error)),
    }
}

fn open_immutable(path: &Path, error: rusqlite::Error) -> Result<OpenedBook, LedgerError> {
    if has_log(path) {
        return Err(LedgerError::UnreadableLog { path: path.to_owned(), source: error });
    }
    let frozen = FrozenBook::from_path(path).filter(|_| !matches!(lock::is_held(path), Ok(true)));
    let Some(frozen) = frozen else {
        return Err(open_error(path, error)); // the file does not exist, or a gateway is starting on it
    };
    let connection = open_with_flags(Path::new(&immutable_uri(path)), OpenFlags::SQLITE_OPEN_URI);
    connection.map(|connection| (connection, Some(frozen))).map_err(|_| open_error(path, error))
}

/// Opens the file and reads a page: only then does SQLite open log and index.
fn open_with_flags(path: &Path, more: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = connection::open_connection(path, OpenFlags::SQLITE_OPEN_READ_ONLY | more)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

fn needs_write_access(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen))
}

fn has_log(path: &Path) -> bool {
    path_with_suffix(path, LOG_SUFFIX).metadata().is_ok_and(|log| log.len() > 0)
}

/// Returns the URI of an immutable file (sqlite.org/uri.html). Every byte except the unreserved ones is escaped.
fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            _ => _ = write!(uri, "%{byte:02X}"), // writing to a String cannot fail
        }
    }
    uri + "?immutable=1"
}

/// A book without a log: all data is in its own file, and does not change until a gateway starts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrozenBook {
    identity: FileIdentity,
    length: u64,
    modified: Option<SystemTime>,
}

impl FrozenBook {
    /// Returns the state of the book at `path` if it has no log.
    pub(crate) fn from_path(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok().filter(|_| !has_log(path))?;
        let (length, modified) = (metadata.len(), metadata.modified().ok());
        Some(Self { identity: FileIdentity::from_metadata(&metadata), length, modified })
    }

    /// Returns whether the book at `path` has changed: then a read of it may mix two moments.
    pub(crate) fn has_changed(&self, path: &Path) -> bool {
        Self::from_path(path) != Some(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_escaped_in_a_uri() {
        assert_eq!(immutable_uri(Path::new("/a b/50%?#é.db")), "file:/a%20b/50%25%3F%23%C3%A9.db?immutable=1");
    }
}
