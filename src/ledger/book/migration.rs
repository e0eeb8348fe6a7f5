//! Migrates a book of an older format to the present format.
//!
//! Guarantees:
//! - A migration is one transaction, so an interrupted migration has no effect.
//! - Counts do not change.
//! - Seals keep the rule by which they were made, and stay verifiable.
//! - Only a gateway that holds the ledger's lock migrates; readers refuse an older format.
//!
//! Older formats:
//! - Format 1 (the first Tallygate) had no late reference, no sums and no corrections, and its seals hashed their lines
//!   directly. The migration hashes their contents once more and covers the hashes by a seal of the new kind, so that
//!   hours may be removed later.
//! - Formats 1 and 2 did not seal the ending of an epoch. The migration seals the endings that the book then holds.
//! - Formats 1 to 3 had no table of waived units and none of department names.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::ledger::hash_chain::canonical::{self, SealKind};
use crate::ledger::hash_chain::canonical_rows;
use crate::ledger::hash_chain::seal::{self, SealContent};
use crate::ledger::values::error::LedgerError;
use crate::model::{CalendarOffset, Window};

use super::book_reader::{book_format, check_format};
use super::connection::open_error;
use super::schema::{BOOK_FORMAT, SCHEMA, SCHEMA_ADDED_IN_4, SCHEMA_SEALS};
use super::{day_sums, epoch_end, schema_check};

/// Format 1: the migration recreates all of its tables.
const FORMAT_1: u32 = 1;
/// Format 2: the migration recreates only the seals, which have no room for epoch endings.
const FORMAT_2: u32 = 2;
/// Format 3: has neither waived units nor department names.
const FORMAT_3: u32 = 3;

/// Refuses a file that is not a book and a book of a newer format; migrates a book of an older format.
pub(crate) fn migrate_to_current(connection: &mut Connection, path: &Path) -> Result<(), LedgerError> {
    let found = book_format(connection).map_err(|error| open_error(path, error))?;
    if ![FORMAT_1, FORMAT_2, FORMAT_3].contains(&found) {
        return check_format(connection, path);
    }
    tracing::info!(book = %path.display(), from = found, to = BOOK_FORMAT, "migrating the book to the new format");
    let failed = |error| LedgerError::book("migrate to the new format", path, error);
    // Renaming a table must not redirect the references of other tables to it.
    connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON").map_err(failed)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    run_migration(&transaction, found).map_err(failed)?;
    schema_check::check_schema(&transaction, path)?; // a book with an altered schema stays unchanged
    transaction.commit().map_err(failed)?;
    connection.execute_batch("PRAGMA legacy_alter_table = OFF").map_err(failed)
}

fn run_migration(transaction: &Transaction<'_>, found: u32) -> rusqlite::Result<()> {
    match found {
        FORMAT_1 => recreate_tables(transaction)?,
        FORMAT_2 => recreate_seals(transaction)?,
        _ => transaction.execute_batch(SCHEMA_ADDED_IN_4)?,
    }
    if found < FORMAT_3 {
        seal_epoch_ends(transaction)?;
    }
    transaction.pragma_update(None, "user_version", BOOK_FORMAT)
}

fn recreate_tables(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    rename_old_tables(transaction)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute_batch(SCHEMA_ADDED_IN_4)?;
    transaction.execute_batch(SCHEMA_SEALS)?;
    transaction.execute_batch(COPY_OLD_ROWS)?;
    hash_old_contents(transaction)?;
    let calendar: String = transaction.query_row("SELECT calendar_offset FROM meta", [], |row| row.get(0))?;
    day_sums::rebuild_day_sums(transaction, CalendarOffset::parse(&calendar).unwrap_or_default())?;
    day_sums::rebuild_total_sums(transaction)?;
    for table in FORMAT_1_TABLES {
        transaction.execute_batch(&format!("DROP TABLE old_{table}"))?;
    }
    Ok(())
}

/// Migrates the seals of format 2.
fn recreate_seals(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(SCHEMA_ADDED_IN_4)?;
    transaction
        .execute_batch("DROP INDEX seal_of_hour; DROP INDEX seal_of_window; ALTER TABLE seal RENAME TO old_seal")?;
    transaction.execute_batch(SCHEMA_SEALS)?;
    transaction.execute_batch("INSERT INTO seal SELECT * FROM old_seal; DROP TABLE old_seal")
}

/// Seals the endings of epochs, each with the time in the book: a migration needs no clock.
fn seal_epoch_ends(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut query = transaction.prepare("SELECT epoch, ended_at FROM epoch WHERE ending IS NOT NULL ORDER BY epoch")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let ended: Vec<(u32, String)> = rows.collect::<rusqlite::Result<_>>()?;
    for (epoch, ended_at) in ended {
        epoch_end::seal_epoch(transaction, epoch, ended_at.parse().unwrap_or_default())?;
    }
    Ok(())
}

/// The tables of format 1.
const FORMAT_1_TABLES: [&str; 8] = ["meta", "epoch", "outcome", "series", "admission", "usage", "seal", "unsealed"];

fn rename_old_tables(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch("DROP VIEW usage_hourly")?;
    for table in FORMAT_1_TABLES {
        transaction.execute_batch(&format!("ALTER TABLE \"{table}\" RENAME TO old_{table}"))?;
    }
    Ok(())
}

const COPY_OLD_ROWS: &str = "
INSERT INTO meta (id, gateway, calendar_offset) SELECT id, gateway, calendar_offset FROM old_meta;
INSERT INTO epoch SELECT * FROM old_epoch;
INSERT INTO outcome SELECT * FROM old_outcome;
INSERT INTO series SELECT * FROM old_series;
INSERT INTO admission SELECT * FROM old_admission;
INSERT INTO usage SELECT \"window\", series, outcome, epoch, 0, commands, units, request_bytes, response_bytes,
                         duration_ns FROM old_usage;
INSERT INTO seal SELECT number, 1, 'hour', epoch, \"window\", lines, '', previous, hash, sealed_at FROM old_seal;
UPDATE meta SET (head_number, head_hash) = (SELECT number, hash FROM seal ORDER BY number DESC LIMIT 1)
WHERE EXISTS (SELECT 1 FROM seal);
INSERT INTO unsealed SELECT * FROM old_unsealed;
";

/// Stores the hash of the lines of each old seal, and covers these hashes by a new seal.
fn hash_old_contents(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut query = transaction.prepare("SELECT number, epoch, \"window\" FROM seal")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let seals: Vec<(i64, u32, u32)> = rows.collect::<rusqlite::Result<_>>()?;
    for (number, epoch, window) in &seals {
        let lines = canonical_rows::hour_lines(transaction, (*epoch, Window(*window)), FORMAT_1)?;
        let update = "UPDATE seal SET content = ? WHERE number = ?";
        transaction.execute(update, params![canonical::content_hash(&lines), number])?;
    }
    if seals.is_empty() {
        return Ok(());
    }
    let lines = canonical_rows::migration_lines(transaction)?;
    let content = SealContent { kind: SealKind::Migration, epoch: None, window: None, lines };
    seal::append_seal(transaction, content, last_sealed_at(transaction)?).map(drop)
}

/// Returns the time of the last old seal; no migrated row has a later time.
fn last_sealed_at(transaction: &Transaction<'_>) -> rusqlite::Result<Timestamp> {
    let query = "SELECT sealed_at FROM seal ORDER BY number DESC LIMIT 1";
    let text: String = transaction.query_row(query, [], |row| row.get(0))?;
    Ok(text.parse().unwrap_or_default())
}
