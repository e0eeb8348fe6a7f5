//! The book: the SQLite file that finance reads, and every statement that writes it.
//!
//! Guarantees: each save is one transaction with synchronous FULL; rows carry whole sums, so a save repeated changes
//! nothing. Anybody may read the file while it is kept. `docs/ledger.md` shows the tables column by column.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::connect::connect;
use super::ending::Ending;
use super::error::LedgerError;
use super::fold::Fold;
use super::pages::{BUSY_WAIT, Pages, not_a_book};
use super::schema::{FORMAT, everything};
use super::tally::Header;
use super::{in_flight, lost, migrate, names, proof, rollup, rows, schema_check, seal, sums};
use crate::model::{CalendarOffset, Name, Outcome, Window};

/// The first SQLite without the defect that could lose a commit when a checkpoint and a writer met.
const OLDEST_SQLITE: i32 = 3_051_003;

/// What one transaction brings into the book.
#[derive(Debug)]
pub(super) struct Save<'a> {
    pub(super) fold: &'a Fold,
    /// What has not ended, by window of admission and series; takes the place of what the book held of this epoch.
    pub(super) in_flight: in_flight::Rows,
    /// The epoch, and when its last sync began.
    pub(super) epoch: u32,
    pub(super) synced_at: Timestamp,
    pub(super) now: Timestamp,
    /// Windows before this one are to be sealed.
    pub(super) seal_before: Option<Window>,
    pub(super) ending: Option<Ending>,
}

/// The book, open for writing.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    connection: Connection,
    calendar: CalendarOffset,
    /// What the book says is in flight of the epoch that is kept.
    in_flight: in_flight::Rows,
}

impl Book {
    /// Opens the book, or makes it; one of an older format is brought to the present one.
    pub(super) fn open(path: &Path, gateway: &Name, calendar: CalendarOffset) -> Result<Self, LedgerError> {
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(LedgerError::OldSqlite(rusqlite::version()));
        }
        let refused = |error| not_a_book(path, error);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let connection = connect(path, flags).map_err(refused)?;
        let is_new = is_empty(&connection).map_err(refused)?;
        let mut book = Self { path: path.to_owned(), connection, calendar, in_flight: in_flight::Rows::new() };
        if !is_new {
            migrate::to_present(&mut book.connection, path)?; // refuses what is not ours before it changes anything
            schema_check::check(&book.connection, path)?;
        }
        configure(&book.connection).map_err(refused)?;
        if is_new {
            book.make(gateway).map_err(|error| LedgerError::book("make", path, error))?;
        }
        book.set_calendar().map_err(|error| LedgerError::book("write the calendar into", path, error))?;
        Ok(book)
    }

    /// Opens a copy of a book that nobody keeps, to bring what its tally holds into it; what it says is in flight is left
    /// out, as the tally says that too.
    pub(super) fn of_copy(path: &Path) -> Result<Self, LedgerError> {
        let refused = |error| not_a_book(path, error);
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(refused)?;
        let delete = "DELETE FROM in_flight WHERE epoch IN (SELECT epoch FROM epoch WHERE ending IS NULL)";
        connection.execute(delete, []).map_err(refused)?;
        let calendar = Pages::new(path, &connection).calendar()?;
        Ok(Self { path: path.to_owned(), connection, calendar, in_flight: in_flight::Rows::new() })
    }

    fn make(&mut self, gateway: &Name) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for statement in everything() {
            transaction.execute_batch(statement)?;
        }
        for outcome in Outcome::all() {
            let refused = matches!(outcome, Outcome::Refused(_));
            let values = params![outcome.code(), outcome.name(), refused, outcome.blame().name()];
            transaction.execute("INSERT INTO outcome VALUES (?, ?, ?, ?)", values)?;
        }
        let values = params![gateway.as_str(), self.calendar.to_string()];
        transaction.execute("INSERT INTO meta (id, gateway, calendar_offset) VALUES (1, ?, ?)", values)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
        transaction.commit()
    }

    /// Another calendar has other days: their sums are made anew.
    fn set_calendar(&mut self) -> rusqlite::Result<()> {
        let calendar = self.calendar;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let update = "UPDATE meta SET calendar_offset = ?1 WHERE calendar_offset <> ?1";
        if transaction.execute(update, [calendar.to_string()])? > 0 {
            tracing::info!(%calendar, "the calendar has changed; the sums of days are made anew");
            sums::rebuild_days(&transaction, calendar)?;
        }
        transaction.commit()
    }

    /// The number of an epoch that begins.
    pub(super) fn next_epoch(&self) -> Result<u32, LedgerError> {
        let query = "SELECT coalesce(max(epoch), 0) + 1 FROM epoch";
        self.connection.query_row(query, [], |row| row.get(0)).map_err(|error| self.failed("read", error))
    }

    /// Writes that an epoch has begun, if that is not written yet.
    pub(super) fn begin_epoch(&self, header: &Header) -> Result<(), LedgerError> {
        let values = params![
            header.epoch,
            header.gateway,
            header.boot_id,
            header.process,
            header.created.to_string(),
            header.synced_at.to_string()
        ];
        // A start that failed before its first epoch has made nothing: the book is the gateway's that counts in it first.
        let own = "UPDATE meta SET gateway = ? WHERE NOT EXISTS (SELECT 1 FROM epoch)";
        let insert = "INSERT INTO epoch (epoch, gateway, boot_id, process_id, started_at, last_sync_at)
                      VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
        let begun =
            self.connection.execute(own, [&header.gateway]).and_then(|_| self.connection.execute(insert, values));
        begun.map(drop).map_err(|error| self.failed("begin an epoch in", error))
    }

    /// Marks epochs that never ended, and whose tally is gone.
    pub(super) fn end_lost_epochs(&mut self, now: Timestamp) -> Result<usize, LedgerError> {
        let ended = self.begin().and_then(|transaction| {
            let lost = lost::end_lost_epochs(&transaction, now)?;
            transaction.commit().map(|()| lost)
        });
        ended.map_err(|error| self.failed("end an epoch in", error))
    }

    /// Whether the book holds more of an epoch than a tally does.
    pub(super) fn has_more_than(&self, counted: &Fold, epoch: u32) -> Result<bool, LedgerError> {
        rows::exceeds(&self.connection, counted, epoch).map_err(|error| self.failed("read", error))
    }

    /// Ends an epoch of whose tally only an older copy is there: of each number the larger one stays.
    pub(super) fn end_by_larger(&mut self, counted: &Fold, tally: &Header, now: Timestamp) -> Result<(), LedgerError> {
        let in_flight = counted.in_flight(tally.synced_ns);
        let ended = self.begin().and_then(|transaction| {
            write_series(&transaction, counted)?;
            rows::write_larger(&transaction, counted, tally.epoch)?;
            in_flight::write_missing(&transaction, tally.epoch, &in_flight)?;
            lost::end_recounted(&transaction, tally.epoch, now)?;
            transaction.commit()
        });
        ended.map_err(|error| self.failed("end an epoch in", error))
    }

    /// Brings the changed rows of a fold into the book, seals and ends what there is to seal and to end. Returns how many
    /// hours the book held otherwise than the tally, which were written anew.
    pub(super) fn save(&mut self, save: &Save<'_>) -> Result<u64, LedgerError> {
        let (calendar, before) = (self.calendar, std::mem::take(&mut self.in_flight));
        let saved = self.begin().and_then(|transaction| {
            let mended = write(&transaction, save, calendar)?;
            let in_flight = in_flight::write(&transaction, save.epoch, (&before, &save.in_flight))?;
            if save.ending.is_some() {
                in_flight::clear_ended(&transaction)?;
            }
            transaction.commit().map(|()| (in_flight, mended))
        });
        let (in_flight, done) = match saved {
            Ok((written, mended)) => (written, Ok(mended)),
            Err(error) => (before, Err(self.failed("write into", error))),
        };
        self.in_flight = in_flight;
        done
    }

    /// Takes one step towards having days instead of hours before `before`; whether there was one to take.
    pub(super) fn roll_up(&mut self, before: Window, now: Timestamp) -> Result<bool, LedgerError> {
        let calendar = self.calendar;
        let stepped = self.begin().and_then(|transaction| {
            let stepped = rollup::step(&transaction, before, (calendar, now))?;
            transaction.commit().map(|()| stepped)
        });
        stepped.map_err(|error| self.failed("forget hours in", error))
    }

    /// Writes the names that departments have from `now` on, where they are not those that the book knows.
    pub(super) fn note_names(&mut self, live: &names::Names, now: Timestamp) -> Result<(), LedgerError> {
        let noted = self.begin().and_then(|transaction| {
            names::note(&transaction, live, now)?;
            transaction.commit()
        });
        noted.map_err(|error| self.failed("write the names of departments into", error))
    }

    /// Moves all of the log into the book's own file and empties the log, as far as no reader is in the way.
    pub(super) fn empty_log(&self) -> Result<(), LedgerError> {
        let emptied = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        emptied.map_err(|error| self.failed("empty the log of", error))
    }

    /// A transaction that holds the book from its beginning: others may add corrections to the chain.
    fn begin(&mut self) -> rusqlite::Result<Transaction<'_>> {
        self.connection.transaction_with_behavior(TransactionBehavior::Immediate)
    }

    /// What the book can tell a reader.
    pub(super) fn pages(&self) -> Pages<'_> {
        Pages::new(&self.path, &self.connection)
    }

    fn failed(&self, action: &'static str, error: rusqlite::Error) -> LedgerError {
        LedgerError::book(action, &self.path, error)
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// Returns how many hours had to be written anew.
fn write(transaction: &Transaction<'_>, save: &Save<'_>, calendar: CalendarOffset) -> rusqlite::Result<u64> {
    write_series(transaction, save.fold)?;
    rows::write(transaction, save.epoch, save.fold.changed_rows())?;
    let mended = prove(transaction, save)?;
    let values = params![save.synced_at.to_string(), save.epoch];
    transaction.prepare_cached("UPDATE epoch SET last_sync_at = ? WHERE epoch = ?")?.execute(values)?;
    if let Some(window) = save.seal_before {
        seal::seal_before(transaction, window, (calendar, save.now))?;
    }
    if let Some(ending) = save.ending {
        ending.write(transaction, save.epoch, save.now)?;
    }
    Ok(mended)
}

/// Before hours are sealed, and before the tally goes: the book holds what the tally says.
fn prove(transaction: &Transaction<'_>, save: &Save<'_>) -> rusqlite::Result<u64> {
    let before = if save.ending.is_some() { Some(Window(u32::MAX)) } else { save.seal_before };
    before.map_or(Ok(0), |before| proof::mend(transaction, save.fold, (save.epoch, before)))
}

fn write_series(transaction: &Transaction<'_>, fold: &Fold) -> rusqlite::Result<()> {
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

/// SQLite's integers end at 2^63 - 1; a sum that reaches it stays there.
pub(super) fn stored(sum: u64) -> i64 {
    i64::try_from(sum).unwrap_or(i64::MAX)
}
