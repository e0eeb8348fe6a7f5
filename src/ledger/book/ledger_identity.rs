//! The identity of a ledger: which gateway's counts a book holds, whatever its path or file.
//!
//! Guarantees:
//! - It is derived from the book's first epoch, which is written once and sealed when it ends. So it stays the same for
//!   the life of the ledger, also after a migration and after compaction.
//! - A copy and a backup have the identity of their original.
//!
//! `docs/ledger.md` has the rule, so that anyone can compute it.

use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};

use crate::model::hex_text;

/// The length of an identity in bytes: 128 bits of the hash.
const IDENTITY_BYTES: usize = 16;

/// Returns the identity of a book; `None` before its first epoch, when the book has no counts.
pub(crate) fn ledger_identity(book: &Connection) -> rusqlite::Result<Option<String>> {
    let query = "SELECT gateway, boot_id, process_id, started_at FROM epoch ORDER BY epoch LIMIT 1";
    let first = book.query_row(query, [], |row| {
        let (gateway, boot_id): (String, String) = (row.get(0)?, row.get(1)?);
        let (process_id, started_at): (i64, String) = (row.get(2)?, row.get(3)?);
        Ok(identity_of_first_epoch(&gateway, &boot_id, process_id, &started_at))
    });
    first.optional()
}

fn identity_of_first_epoch(gateway: &str, boot_id: &str, process_id: i64, started_at: &str) -> String {
    let digest = Sha256::digest(format!("tallygate ledger\n{gateway}\n{boot_id}\n{process_id}\n{started_at}\n"));
    hex_text(digest.get(..IDENTITY_BYTES).unwrap_or(&digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected text was computed with `printf 'tallygate ledger\n...' | sha256sum | cut -c1-32`.
    #[test]
    fn identity_equals_the_documented_rule() {
        let boot_id = "0c5bf1a5-1d52-4a80-8d3c-2f0e4c6a9b11";
        assert_eq!(
            identity_of_first_epoch("edge-0", boot_id, 7, "2026-11-24T03:10:00.25Z"),
            "f7759f16effeb66887ca8923c609ee8e"
        );
    }
}
