//! The book: the SQLite file that finance reads, and every statement that writes it.
//!
//! Guarantees: each save is one transaction with synchronous FULL; rows carry whole sums, so a save repeated changes
//! nothing. Anybody may read the file while it is kept. `docs/ledger.md` shows the tables column by column.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::book_reader::BookReader;
use super::connection::open_connection;
use super::connection::{BUSY_TIMEOUT, open_error};
use super::epoch_end::EpochEnding;
use super::schema::{BOOK_FORMAT, all_statements};
use super::{
    compaction, day_sums, department_names, hour_rows, in_flight_rows, migration, orphaned_epochs, schema_check,
    tally_proof,
};
use crate::ledger::fold::TallyFold;
use crate::ledger::tally::file::TallyHeader;
use crate::ledger::values::error::LedgerError;
use crate::model::{CalendarOffset, Name, Outcome, Window};

/// The first SQLite without the defect that could lose a commit when a checkpoint and a writer met.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// What one transaction brings into the book.
#[derive(Debug)]
pub(crate) struct BookUpdate<'a> {
    pub(crate) fold: &'a TallyFold,
    /// What has not ended, by window of admission and series; takes the place of what the book held of this epoch.
    pub(crate) in_flight: in_flight_rows::InFlightRows,
    /// The epoch, and when its last sync began.
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
    /// What the book says is in flight of the epoch that is kept.
    in_flight: in_flight_rows::InFlightRows,
}

impl BookWriter {
    /// Opens the book, or makes it; one of an older format is brought to the present one.
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
            migration::migrate_to_current(&mut book.connection, path)?; // refuses what is not ours before it changes anything
            schema_check::check_schema(&book.connection, path)?;
        }
        configure(&book.connection).map_err(refused)?;
        if is_new {
            book.create_tables(gateway).map_err(|error| LedgerError::book("make", path, error))?;
        }
        book.set_calendar().map_err(|error| LedgerError::book("write the calendar into", path, error))?;
        Ok(book)
    }

    /// Opens a copy of a book that nobody keeps, to bring what its tally holds into it; what it says is in flight is left
    /// out, as the tally says that too.
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

    /// Another calendar has other days: their sums are made anew.
    fn set_calendar(&mut self) -> rusqlite::Result<()> {
        let calendar = self.calendar;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let update = "UPDATE meta SET calendar_offset = ?1 WHERE calendar_offset <> ?1";
        if transaction.execute(update, [calendar.to_string()])? > 0 {
            tracing::info!(%calendar, "the calendar has changed; the sums of days are made anew");
            day_sums::rebuild_day_sums(&transaction, calendar)?;
        }
        transaction.commit()
    }

    /// The number of an epoch that begins.
    pub(crate) fn next_epoch(&self) -> Result<u32, LedgerError> {
        let query = "SELECT coalesce(max(epoch), 0) + 1 FROM epoch";
        self.connection.query_row(query, [], |row| row.get(0)).map_err(|error| self.book_error("read", error))
    }

    /// Writes that an epoch has begun, if that is not written yet.
    pub(crate) fn begin_epoch(&self, header: &TallyHeader) -> Result<(), LedgerError> {
        let values = params![
            header.epoch,
            header.gateway,
            header.boot_id,
            header.process_id,
            header.created_at.to_string(),
            header.synced_at.to_string()
        ];
        // A start that failed before its first epoch has made nothing: the book is the gateway's that counts in it first.
        let own = "UPDATE meta SET gateway = ? WHERE NOT EXISTS (SELECT 1 FROM epoch)";
        let insert = "INSERT INTO epoch (epoch, gateway, boot_id, process_id, started_at, last_sync_at)
                      VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
        let begun =
            self.connection.execute(own, [&header.gateway]).and_then(|_| self.connection.execute(insert, values));
        begun.map(drop).map_err(|error| self.book_error("begin an epoch in", error))
    }

    /// Marks epochs that never ended, and whose tally is gone.
    pub(crate) fn end_orphaned_epochs(&mut self, now: Timestamp) -> Result<usize, LedgerError> {
        let ended = self.begin_transaction().and_then(|transaction| {
            let lost = orphaned_epochs::end_orphaned_epochs(&transaction, now)?;
            transaction.commit().map(|()| lost)
        });
        ended.map_err(|error| self.book_error("end an epoch in", error))
    }

    /// Whether the book holds more of an epoch than a tally does.
    pub(crate) fn exceeds_fold(&self, counted: &TallyFold, epoch: u32) -> Result<bool, LedgerError> {
        hour_rows::exceeds_fold(&self.connection, counted, epoch).map_err(|error| self.book_error("read", error))
    }

    /// Ends an epoch of whose tally only an older copy is there: of each number the larger one stays.
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

    /// Brings the changed rows of a fold into the book, seals and ends what there is to seal and to end. Returns how many
    /// hours the book held otherwise than the tally, which were written anew.
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

    /// Takes one step towards having days instead of hours before `before`; whether there was one to take.
    pub(crate) fn compact(&mut self, before: Window, now: Timestamp) -> Result<bool, LedgerError> {
        let calendar = self.calendar;
        let stepped = self.begin_transaction().and_then(|transaction| {
            let stepped = compaction::compact_step(&transaction, before, (calendar, now))?;
            transaction.commit().map(|()| stepped)
        });
        stepped.map_err(|error| self.book_error("forget hours in", error))
    }

    /// Writes the names that departments have from `now` on, where they are not those that the book knows.
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

    /// Moves all of the log into the book's own file and empties the log, as far as no reader is in the way.
    pub(crate) fn checkpoint_log(&self) -> Result<(), LedgerError> {
        let emptied = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        emptied.map_err(|error| self.book_error("empty the log of", error))
    }

    /// A transaction that holds the book from its beginning: others may add corrections to the chain.
    fn begin_transaction(&mut self) -> rusqlite::Result<Transaction<'_>> {
        self.connection.transaction_with_behavior(TransactionBehavior::Immediate)
    }

    /// What the book can tell a reader.
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

/// Returns how many hours had to be written anew.
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

/// Before hours are sealed, and before the tally goes: the book holds what the tally says.
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
