//! Opens a book for reading, also where its reader may not write.
//!
//! A book is in SQLite's WAL mode, and SQLite reads such a file only if it can make or find its log's index beside it
//! (sqlite.org/wal.html, "Read-Only Databases"). A ledger that was closed well has neither log nor index, so a reader who
//! may not write there, or a read-only mount, would be refused. Such a book is opened as an immutable file instead.
//!
//! Guarantees: a book is opened as immutable only if it has no log and no gateway keeps it; [`FrozenBook::has_changed`]
//! says whether that was still so after the reading.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::connection;
use super::connection::{BUSY_TIMEOUT, open_error};
use crate::ledger::files::book_path::{LOG_SUFFIX, path_with_suffix};
use crate::ledger::files::file_identity::FileIdentity;
use crate::ledger::files::lock;
use crate::ledger::values::error::LedgerError;

/// A connection, and what the book was if it is read as an immutable file.
pub(crate) type OpenedBook = (Connection, Option<FrozenBook>);

/// Opens the book at `path`, its canonical path.
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
        return Err(open_error(path, error)); // there is no such file, or a gateway begins on it at this moment
    };
    let connection = open_with_flags(Path::new(&immutable_uri(path)), OpenFlags::SQLITE_OPEN_URI);
    connection.map(|connection| (connection, Some(frozen))).map_err(|_| open_error(path, error))
}

/// Opens, and reads a page: SQLite looks for log and index only then.
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

/// The URI of a file that nobody changes (sqlite.org/uri.html); every byte but the plain ones is escaped.
fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            _ => _ = write!(uri, "%{byte:02X}"), // a String takes everything
        }
    }
    uri + "?immutable=1"
}

/// A book that has no log: all of it is in its own file, and stays what it is until a gateway begins on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrozenBook {
    identity: FileIdentity,
    length: u64,
    modified: Option<SystemTime>,
}

impl FrozenBook {
    /// The book at `path`, if it has no log.
    pub(crate) fn from_path(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok().filter(|_| !has_log(path))?;
        let (length, modified) = (metadata.len(), metadata.modified().ok());
        Some(Self { identity: FileIdentity::from_metadata(&metadata), length, modified })
    }

    /// Whether the book at `path` is not what it was: a reading of it may mix two moments.
    pub(crate) fn has_changed(&self, path: &Path) -> bool {
        Self::from_path(path) != Some(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_escaped_in_a_uri() {
        assert_eq!(immutable_uri(Path::new("/a b/50%?#é.db")), "file:/a%20b/50%25%3F%23%C3%A9.db?immutable=1");
    }
}
