//! Writes the book, the SQLite file that finance reads. All writes of the keeper go through this type.
//!
//! Guarantees:
//! - Each update is one transaction with `synchronous = FULL`.
//! - Rows carry whole sums, so a repeated update changes nothing (idempotent).
//! - Other processes may read the file while the keeper has it open.
//!
//! `docs/ledger.md` describes the tables column by column.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use crate::ledger::fold::TallyFold;
use crate::ledger::tally::file::TallyHeader;
use crate::ledger::values::error::LedgerError;
use crate::model::{CalendarOffset, Name, Outcome, Window};

use super::book_reader::BookReader;
use super::connection::{BUSY_TIMEOUT, open_connection, open_error};
use super::epoch_end::EpochEnding;
use super::schema::{BOOK_FORMAT, all_statements};
use super::{
    compaction, day_sums, department_names, hour_rows, in_flight_rows, migration, orphaned_epochs, schema_check,
    tally_proof,
};

/// The first SQLite version without a defect that could lose a commit when a checkpoint and a writer ran at the same
/// time.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// The data that one transaction writes into the book.
#[derive(Debug)]
pub(crate) struct BookUpdate<'a> {
    pub(crate) fold: &'a TallyFold,
    /// The commands in flight, by window of admission and series. They replace the epoch's rows in the book.
    pub(crate) in_flight: in_flight_rows::InFlightRows,
    /// The epoch, and the time at which its last sync began.
    pub(crate) epoch: u32,
    pub(crate) synced_at: Timestamp,
    pub(crate) now: Timestamp,
    /// Windows before this one are to be sealed.
    pub(crate) seal_before: Option<Window>,
    pub(crate) ending: Option<EpochEnding>,
}

/// The book, open for writing.
#[derive(Debug)]
pub(crate) struct BookWriter {
    path: PathBuf,
    connection: Connection,
    calendar: CalendarOffset,
    /// The rows in flight that the book holds for the open epoch.
    in_flight: in_flight_rows::InFlightRows,
}

impl BookWriter {
    /// Opens or creates the book. A book of an older format is migrated to the present format.
    pub(crate) fn open(path: &Path, gateway: &Name, calendar: CalendarOffset) -> Result<Self, LedgerError> {
        if rusqlite::version_number() < SQLITE_VERSION_MIN {
            return Err(LedgerError::OldSqlite(rusqlite::version()));
        }
        let refused = |error| open_error(path, error);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let connection = open_connection(path, flags).map_err(refused)?;
        let is_new = is_empty(&connection).map_err(refused)?;
        let mut book =
            Self { path: path.to_owned(), connection, calendar, in_flight: in_flight_rows::InFlightRows::new() };
        if !is_new {
            // Refuses a foreign file before it changes anything.
            migration::migrate_to_current(&mut book.connection, path)?;
            schema_check::check_schema(&book.connection, path)?;
        }
        configure(&book.connection).map_err(refused)?;
        if is_new {
            book.create_tables(gateway).map_err(|error| LedgerError::book("make", path, error))?;
        }
        book.set_calendar().map_err(|error| LedgerError::book("write the calendar into", path, error))?;
        Ok(book)
    }

    /// Opens a copy of a book that no gateway keeps, to write the counts of its tally into the copy. The book's rows in
    /// flight are left out, because the tally holds them too.
    pub(crate) fn open_copy(path: &Path) -> Result<Self, LedgerError> {
        let refused = |error| open_error(path, error);
        let connection = open_connection(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(refused)?;
        let delete = "DELETE FROM in_flight WHERE epoch IN (SELECT epoch FROM epoch WHERE ending IS NULL)";
        connection.execute(delete, []).map_err(refused)?;
        let calendar = BookReader::new(path, &connection).calendar()?;
        Ok(Self { path: path.to_owned(), connection, calendar, in_flight: in_flight_rows::InFlightRows::new() })
    }

    fn create_tables(&mut self, gateway: &Name) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for statement in all_statements() {
            transaction.execute_batch(statement)?;
        }
        for outcome in Outcome::all() {
            let refused = matches!(outcome, Outcome::Refused(_));
            let values = params![outcome.code(), outcome.name(), refused, outcome.blame().name()];
            transaction.execute("INSERT INTO outcome VALUES (?, ?, ?, ?)", values)?;
        }
        let values = params![gateway.as_str(), self.calendar.to_string()];
        transaction.execute("INSERT INTO meta (id, gateway, calendar_offset) VALUES (1, ?, ?)", values)?;
        transaction.pragma_update(None, "user_version", BOOK_FORMAT)?;
        transaction.commit()
    }

    /// Stores the calendar. If it differs from the stored one, day boundaries change, so the sums of days are
    /// recomputed.
    fn set_calendar(&mut self) -> rusqlite::Result<()> {
        let calendar = self.calendar;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let update = "UPDATE meta SET calendar_offset = ?1 WHERE calendar_offset <> ?1";
        if transaction.execute(update, [calendar.to_string()])? > 0 {
            tracing::info!(%calendar, "the calendar has changed; recomputing the sums of days");
            day_sums::rebuild_day_sums(&transaction, calendar)?;
        }
        transaction.commit()
    }

    /// Returns the number of the next epoch.
    pub(crate) fn next_epoch(&self) -> Result<u32, LedgerError> {
        let query = "SELECT coalesce(max(epoch), 0) + 1 FROM epoch";
        self.connection.query_row(query, [], |row| row.get(0)).map_err(|error| self.book_error("read", error))
    }

    /// Records the beginning of an epoch, unless it is already recorded.
    pub(crate) fn begin_epoch(&self, header: &TallyHeader) -> Result<(), LedgerError> {
        let values = params![
            header.epoch,
            header.gateway,
            header.boot_id,
            header.process_id,
            header.created_at.to_string(),
            header.synced_at.to_string()
        ];
        // A start that failed before its first epoch has written no counts: the book belongs to the gateway of the
        // first epoch.
        let own = "UPDATE meta SET gateway = ? WHERE NOT EXISTS (SELECT 1 FROM epoch)";
        let insert = "INSERT INTO epoch (epoch, gateway, boot_id, process_id, started_at, last_sync_at)
                      VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
        let begun =
            self.connection.execute(own, [&header.gateway]).and_then(|_| self.connection.execute(insert, values));
        begun.map(drop).map_err(|error| self.book_error("begin an epoch in", error))
    }

    /// Ends epochs that never ended and whose tally is gone.
    pub(crate) fn end_orphaned_epochs(&mut self, now: Timestamp) -> Result<usize, LedgerError> {
        let ended = self.begin_transaction().and_then(|transaction| {
            let lost = orphaned_epochs::end_orphaned_epochs(&transaction, now)?;
            transaction.commit().map(|()| lost)
        });
        ended.map_err(|error| self.book_error("end an epoch in", error))
    }

    /// Returns whether the book holds more of an epoch than a tally.
    pub(crate) fn exceeds_fold(&self, counted: &TallyFold, epoch: u32) -> Result<bool, LedgerError> {
        hour_rows::exceeds_fold(&self.connection, counted, epoch).map_err(|error| self.book_error("read", error))
    }

    /// Ends an epoch of which only an older copy of the tally exists: of each number the larger one stays.
    pub(crate) fn end_epoch_with_larger_counts(
        &mut self,
        counted: &TallyFold,
        tally: &TallyHeader,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let in_flight = counted.in_flight(tally.synced_ns);
        let ended = self.begin_transaction().and_then(|transaction| {
            write_series(&transaction, counted)?;
            hour_rows::write_larger_rows(&transaction, counted, tally.epoch)?;
            in_flight_rows::write_missing_rows(&transaction, tally.epoch, &in_flight)?;
            orphaned_epochs::end_recounted_epoch(&transaction, tally.epoch, now)?;
            transaction.commit()
        });
        ended.map_err(|error| self.book_error("end an epoch in", error))
    }

    /// Writes the changed rows of a fold into the book, then seals hours and ends the epoch as requested. Returns the
    /// number of hours that differed from the tally and were rewritten.
    pub(crate) fn apply(&mut self, save: &BookUpdate<'_>) -> Result<u64, LedgerError> {
        let (calendar, before) = (self.calendar, std::mem::take(&mut self.in_flight));
        let saved = self.begin_transaction().and_then(|transaction| {
            let mended = write_update(&transaction, save, calendar)?;
            let in_flight = in_flight_rows::write_in_flight(&transaction, save.epoch, (&before, &save.in_flight))?;
            if save.ending.is_some() {
                in_flight_rows::clear_ended_epochs(&transaction)?;
            }
            transaction.commit().map(|()| (in_flight, mended))
        });
        let (in_flight, done) = match saved {
            Ok((written, mended)) => (written, Ok(mended)),
            Err(error) => (before, Err(self.book_error("write into", error))),
        };
        self.in_flight = in_flight;
        done
    }

    /// Runs one step of compaction: days replace their hours before the window `before`. Returns whether anything was
    /// done.
    pub(crate) fn compact(&mut self, before: Window, now: Timestamp) -> Result<bool, LedgerError> {
        let calendar = self.calendar;
        let stepped = self.begin_transaction().and_then(|transaction| {
            let stepped = compaction::compact_step(&transaction, before, (calendar, now))?;
            transaction.commit().map(|()| stepped)
        });
        stepped.map_err(|error| self.book_error("compact hours in", error))
    }

    /// Writes the names of departments, valid from `now` on, that differ from the names in the book.
    pub(crate) fn save_department_names(
        &mut self,
        live: &department_names::DepartmentNames,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let noted = self.begin_transaction().and_then(|transaction| {
            department_names::write_department_names(&transaction, live, now)?;
            transaction.commit()
        });
        noted.map_err(|error| self.book_error("write the names of departments into", error))
    }

    /// Moves the log into the book's own file and empties the log, as far as readers do not block this (checkpoint).
    pub(crate) fn checkpoint_log(&self) -> Result<(), LedgerError> {
        let emptied = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        emptied.map_err(|error| self.book_error("checkpoint the log of", error))
    }

    /// Begins a transaction that locks the book at once, because other processes may add corrections to the chain.
    fn begin_transaction(&mut self) -> rusqlite::Result<Transaction<'_>> {
        self.connection.transaction_with_behavior(TransactionBehavior::Immediate)
    }

    /// Returns a reader of the book.
    pub(crate) fn reader(&self) -> BookReader<'_> {
        BookReader::new(&self.path, &self.connection)
    }

    fn book_error(&self, action: &'static str, error: rusqlite::Error) -> LedgerError {
        LedgerError::book(action, &self.path, error)
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// Writes an update. Returns the number of hours that were rewritten.
fn write_update(
    transaction: &Transaction<'_>,
    save: &BookUpdate<'_>,
    calendar: CalendarOffset,
) -> rusqlite::Result<u64> {
    write_series(transaction, save.fold)?;
    hour_rows::write_hour_rows(transaction, save.epoch, save.fold.changed_rows())?;
    let mended = repair_from_tally(transaction, save)?;
    let values = params![save.synced_at.to_string(), save.epoch];
    transaction.prepare_cached("UPDATE epoch SET last_sync_at = ? WHERE epoch = ?")?.execute(values)?;
    if let Some(window) = save.seal_before {
        super::seal_hours::seal_hours_before(transaction, window, (calendar, save.now))?;
    }
    if let Some(ending) = save.ending {
        ending.record(transaction, save.epoch, save.now)?;
    }
    Ok(mended)
}

/// Makes the book equal to the tally, before hours are sealed and before the tally is removed.
fn repair_from_tally(transaction: &Transaction<'_>, save: &BookUpdate<'_>) -> rusqlite::Result<u64> {
    let before = if save.ending.is_some() { Some(Window(u32::MAX)) } else { save.seal_before };
    before.map_or(Ok(0), |before| tally_proof::repair_unsealed(transaction, save.fold, (save.epoch, before)))
}

fn write_series(transaction: &Transaction<'_>, fold: &TallyFold) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached("INSERT INTO series VALUES (?, ?, ?, ?)")?;
    for (series, names) in fold.new_series() {
        insert.execute(params![
            series.0,
            names.department.as_str(),
            names.subsystem.as_str(),
            names.command.as_str()
        ])?;
    }
    Ok(())
}
