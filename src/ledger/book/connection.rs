//! Opens SQLite: the only module that creates a connection to a book.
//!
//! Guarantees: nothing that another program has added to a book's schema runs on a connection of this program:
//! - Triggers and views are off.
//! - Functions in the schema are restricted (`trusted_schema`).
//! - The schema cannot be written directly (`SQLITE_DBCONFIG_DEFENSIVE`).
//!
//! Leaves to `schema_check`: whether the schema is the format's own.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::ledger::values::error::LedgerError;

/// Opens a book with `flags`.
pub(crate) fn open_connection(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    for (what, value) in [
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
    ] {
        connection.set_db_config(what, value)?;
    }
    Ok(connection)
}

/// The longest wait of a read or an update while another process locks the book.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

/// Returns the error for a file that could not be opened as a book.
pub(crate) fn open_error(path: &Path, error: rusqlite::Error) -> LedgerError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => LedgerError::NotABook(path.to_owned()),
        _ => LedgerError::book("open", path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_and_views_are_disabled() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let planted = "CREATE TABLE a (b); CREATE VIEW c AS SELECT 1;
                       CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET b = 7; END";
        Connection::open(&path).expect("a file").execute_batch(planted).expect("planted");
        let book = open_connection(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).expect("a connection");
        book.execute_batch("INSERT INTO a VALUES (1)").expect("a row");
        assert_eq!(book.query_row("SELECT b FROM a", [], |row| row.get::<_, i64>(0)), Ok(1));
        assert!(book.prepare("SELECT * FROM c").is_err(), "a view");
        book.execute_batch("PRAGMA writable_schema = ON").expect("the pragma is accepted, without effect");
        assert!(book.execute_batch("DELETE FROM sqlite_schema").is_err(), "the schema by hand");
    }
}
