//! The book: the SQLite file that finance reads. Its schema and every statement that writes it.
//!
//! Guarantees: each save is one transaction with synchronous FULL; rows carry whole sums, so a save repeated changes
//! nothing. Anybody may read the file while it is kept. `docs/ledger.md` shows the tables column by column.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};

use super::error::LedgerError;
use super::fold::{Fold, Row, SeriesId, SeriesNames};
use super::seal;
use super::tally::Header;
use super::totals::{OutcomeTotals, UsageRow};
use crate::model::{CalendarOffset, Name, Outcome, Window};

/// The newest format of the book, in its `user_version`.
const FORMAT: u32 = 1;
/// The first SQLite without the defect that could lose a commit when a checkpoint and a writer met.
const OLDEST_SQLITE: i32 = 3_051_003;
/// How long a save waits for somebody who holds the book.
const BUSY_WAIT: Duration = Duration::from_millis(500);

const SCHEMA: &str = "
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    gateway TEXT NOT NULL,
    calendar_offset TEXT NOT NULL
) STRICT;
CREATE TABLE epoch (
    epoch INTEGER PRIMARY KEY,
    gateway TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    process_id INTEGER NOT NULL,
    started_at TEXT NOT NULL,
    last_sync_at TEXT NOT NULL,
    ended_at TEXT,
    ending TEXT CHECK (ending IN ('clean', 'process died', 'machine died', 'tally missing'))
) STRICT;
CREATE TABLE outcome (
    code INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    refused INTEGER NOT NULL,
    blame TEXT NOT NULL
) STRICT;
CREATE TABLE series (
    series INTEGER PRIMARY KEY,
    department TEXT NOT NULL,
    subsystem TEXT NOT NULL,
    command TEXT NOT NULL,
    UNIQUE (department, subsystem, command)
) STRICT;
CREATE TABLE admission (
    \"window\" INTEGER NOT NULL,
    series INTEGER NOT NULL REFERENCES series,
    epoch INTEGER NOT NULL REFERENCES epoch,
    admitted INTEGER NOT NULL,
    units INTEGER NOT NULL,
    PRIMARY KEY (\"window\", series, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE usage (
    \"window\" INTEGER NOT NULL,
    series INTEGER NOT NULL REFERENCES series,
    outcome INTEGER NOT NULL REFERENCES outcome,
    epoch INTEGER NOT NULL REFERENCES epoch,
    commands INTEGER NOT NULL,
    units INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    PRIMARY KEY (\"window\", series, outcome, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE seal (
    number INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL REFERENCES epoch,
    \"window\" INTEGER NOT NULL,
    lines INTEGER NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL,
    sealed_at TEXT NOT NULL,
    UNIQUE (epoch, \"window\")
) STRICT;
CREATE TABLE unsealed (
    \"window\" INTEGER NOT NULL,
    epoch INTEGER NOT NULL REFERENCES epoch,
    PRIMARY KEY (\"window\", epoch)
) STRICT, WITHOUT ROWID;
CREATE VIEW usage_hourly AS
SELECT strftime('%Y-%m-%dT%H:00:00Z', usage.\"window\" * 3600, 'unixepoch') AS window_start,
       series.department, series.subsystem, series.command, outcome.name AS outcome,
       sum(usage.commands) AS commands, sum(usage.units) AS units,
       sum(usage.request_bytes) AS request_bytes, sum(usage.response_bytes) AS response_bytes,
       sum(usage.duration_ns) AS duration_ns
FROM usage JOIN series USING (series) JOIN outcome ON outcome.code = usage.outcome
GROUP BY usage.\"window\", usage.series, usage.outcome;
";

/// How an epoch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By closing the ledger.
    Clean,
    /// Without closing it, on a machine that went on: every count is there.
    ProcessDied,
    /// With the machine: what came after the last sync may be missing.
    MachineDied,
    /// Nobody knows: the tally was gone.
    TallyMissing,
}

impl Ending {
    const fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::ProcessDied => "process died",
            Self::MachineDied => "machine died",
            Self::TallyMissing => "tally missing",
        }
    }
}

/// What one transaction brings into the book.
#[derive(Debug)]
pub(super) struct Save<'a> {
    pub(super) fold: &'a Fold,
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
}

impl Book {
    /// Opens the book, or makes it.
    pub(super) fn open(path: &Path, gateway: &Name, calendar: CalendarOffset) -> Result<Self, LedgerError> {
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(LedgerError::OldSqlite(rusqlite::version()));
        }
        let refused = |error| not_a_book(path, error);
        let connection = Connection::open(path).map_err(refused)?;
        let is_new = is_empty(&connection).map_err(refused)?;
        if !is_new {
            check_format(&connection, path)?; // before anything of somebody else's is changed
        }
        configure(&connection).map_err(refused)?;
        let mut book = Self { path: path.to_owned(), connection };
        if is_new {
            book.make(gateway).map_err(|error| LedgerError::book("make", path, error))?;
        }
        book.set_calendar(calendar).map_err(|error| LedgerError::book("write the calendar into", path, error))?;
        Ok(book)
    }

    fn make(&mut self, gateway: &Name) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        for outcome in Outcome::all() {
            let refused = matches!(outcome, Outcome::Refused(_));
            let values = params![outcome.code(), outcome.name(), refused, outcome.blame().name()];
            transaction.execute("INSERT INTO outcome VALUES (?, ?, ?, ?)", values)?;
        }
        let values = params![gateway.as_str(), CalendarOffset::default().to_string()];
        transaction.execute("INSERT INTO meta VALUES (1, ?, ?)", values)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
        transaction.commit()
    }

    fn set_calendar(&self, calendar: CalendarOffset) -> rusqlite::Result<usize> {
        self.connection.execute("UPDATE meta SET calendar_offset = ?", [calendar.to_string()])
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
        let insert = "INSERT INTO epoch (epoch, gateway, boot_id, process_id, started_at, last_sync_at)
                      VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
        self.connection.execute(insert, values).map(drop).map_err(|error| self.failed("begin an epoch in", error))
    }

    /// Marks epochs that never ended, and whose tally is gone.
    pub(super) fn end_lost_epochs(&self, now: Timestamp) -> Result<usize, LedgerError> {
        let update = "UPDATE epoch SET ended_at = ?, ending = ? WHERE ending IS NULL";
        let values = params![now.to_string(), Ending::TallyMissing.name()];
        self.connection.execute(update, values).map_err(|error| self.failed("end an epoch in", error))
    }

    /// Brings the changed rows of a fold into the book, seals and ends what there is to seal and to end.
    pub(super) fn save(&mut self, save: &Save<'_>) -> Result<(), LedgerError> {
        let saved = self.connection.transaction().and_then(|transaction| {
            write(&transaction, save)?;
            transaction.commit()
        });
        saved.map_err(|error| self.failed("write into", error))
    }

    /// What the book can tell a reader.
    pub(super) fn pages(&self) -> Pages<'_> {
        Pages { path: &self.path, connection: &self.connection }
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

fn format_of(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

fn check_format(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    match format_of(connection).map_err(|error| not_a_book(path, error))? {
        FORMAT => Ok(()),
        0 => Err(LedgerError::NotABook(path.to_owned())),
        found => Err(LedgerError::Newer { path: path.to_owned(), found, known: FORMAT }),
    }
}

fn not_a_book(path: &Path, error: rusqlite::Error) -> LedgerError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => LedgerError::NotABook(path.to_owned()),
        _ => LedgerError::book("open", path, error),
    }
}

fn write(transaction: &Transaction<'_>, save: &Save<'_>) -> rusqlite::Result<()> {
    write_series(transaction, save.fold)?;
    for (window, series, row) in save.fold.changed_rows() {
        write_unsealed(transaction, save.epoch, window)?;
        write_admission(transaction, save.epoch, (window, series), row)?;
        for (outcome, totals) in row.outcomes() {
            write_usage(transaction, save.epoch, (window, series, outcome), &totals)?;
        }
    }
    let values = params![save.synced_at.to_string(), save.epoch];
    transaction.prepare_cached("UPDATE epoch SET last_sync_at = ? WHERE epoch = ?")?.execute(values)?;
    if let Some(ending) = save.ending {
        let values = params![save.now.to_string(), ending.name(), save.epoch];
        transaction.execute("UPDATE epoch SET ended_at = ?, ending = ? WHERE epoch = ?", values)?;
    }
    match save.seal_before {
        Some(window) => seal::seal_before(transaction, window, save.now),
        None => Ok(()),
    }
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

fn write_unsealed(transaction: &Transaction<'_>, epoch: u32, window: Window) -> rusqlite::Result<()> {
    let insert = "INSERT INTO unsealed VALUES (?, ?) ON CONFLICT DO NOTHING";
    transaction.prepare_cached(insert)?.execute(params![window.0, epoch]).map(drop)
}

fn write_admission(
    transaction: &Transaction<'_>,
    epoch: u32,
    (window, series): (Window, SeriesId),
    row: &Row,
) -> rusqlite::Result<()> {
    if row.admitted == 0 {
        return Ok(());
    }
    let upsert = "INSERT INTO admission VALUES (?, ?, ?, ?, ?)
                  ON CONFLICT DO UPDATE SET admitted = excluded.admitted, units = excluded.units";
    let values = params![window.0, series.0, epoch, stored(row.admitted), stored(row.units)];
    transaction.prepare_cached(upsert)?.execute(values).map(drop)
}

fn write_usage(
    transaction: &Transaction<'_>,
    epoch: u32,
    (window, series, outcome): (Window, SeriesId, Outcome),
    totals: &OutcomeTotals,
) -> rusqlite::Result<()> {
    let upsert = "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
                  ON CONFLICT DO UPDATE SET commands = excluded.commands, units = excluded.units,
                  request_bytes = excluded.request_bytes, response_bytes = excluded.response_bytes,
                  duration_ns = excluded.duration_ns";
    let values = params![
        window.0,
        series.0,
        outcome.code(),
        epoch,
        stored(totals.commands),
        stored(totals.units),
        stored(totals.request_bytes),
        stored(totals.response_bytes),
        stored(totals.duration_ns)
    ];
    transaction.prepare_cached(upsert)?.execute(values).map(drop)
}

/// SQLite's integers end at 2^63 - 1; a sum that reaches it stays there.
fn stored(sum: u64) -> i64 {
    i64::try_from(sum).unwrap_or(i64::MAX)
}

fn loaded(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

/// What is known of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EpochState {
    pub(super) has_ended: bool,
    /// The first window that is not sealed.
    pub(super) floor: Window,
}

/// The book, open for reading.
#[derive(Debug)]
pub(super) struct Pages<'a> {
    path: &'a Path,
    connection: &'a Connection,
}

/// Opens a book for reading only.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| not_a_book(path, error))?;
    connection.busy_timeout(BUSY_WAIT).map_err(|error| not_a_book(path, error))?;
    check_format(&connection, path)?;
    Ok(connection)
}

impl<'a> Pages<'a> {
    pub(super) fn new(path: &'a Path, connection: &'a Connection) -> Self {
        Self { path, connection }
    }

    /// The offset of the calendar the book was last kept in.
    pub(super) fn calendar(&self) -> Result<CalendarOffset, LedgerError> {
        let query = "SELECT calendar_offset FROM meta";
        let text: String =
            self.connection.query_row(query, [], |row| row.get(0)).map_err(|error| self.failed(error))?;
        CalendarOffset::parse(&text).map_err(|_| LedgerError::NotABook(self.path.to_owned()))
    }

    /// Every series in the order of its number, with its sums over all epochs.
    pub(super) fn series(&self) -> Result<Vec<(SeriesNames, Row)>, LedgerError> {
        self.read_series().map_err(|error| self.failed(error))
    }

    fn read_series(&self) -> rusqlite::Result<Vec<(SeriesNames, Row)>> {
        let mut sums = self.sums_of_series()?;
        let mut query =
            self.connection.prepare("SELECT department, subsystem, command, series FROM series ORDER BY 4")?;
        let series = query.query_map([], |row| Ok((names_of(row, 0)?, row.get::<_, u32>(3)?)))?;
        series.map(|one| one.map(|(names, number)| (names, sums.remove(&number).unwrap_or_default()))).collect()
    }

    fn sums_of_series(&self) -> rusqlite::Result<BTreeMap<u32, Row>> {
        let mut sums: BTreeMap<u32, Row> = BTreeMap::new();
        let mut query =
            self.connection.prepare("SELECT series, sum(admitted), sum(units) FROM admission GROUP BY 1")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let sum = sums.entry(row.get(0)?).or_default();
            (sum.admitted, sum.units) = (loaded(row, 1)?, loaded(row, 2)?);
        }
        let mut query = self.connection.prepare(
            "SELECT series, outcome, sum(commands), sum(units), sum(request_bytes), sum(response_bytes),
                    sum(duration_ns) FROM usage GROUP BY 1, 2",
        )?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            sums.entry(row.get(0)?).or_default().add_outcome(outcome_of(row, 1)?, &totals_of(row, 2)?);
        }
        Ok(sums)
    }

    /// What the book knows of an epoch; nothing if it has not heard of it.
    pub(super) fn epoch(&self, epoch: u32) -> Result<Option<EpochState>, LedgerError> {
        let query =
            "SELECT ending IS NOT NULL, (SELECT coalesce(max(\"window\") + 1, 0) FROM seal WHERE seal.epoch = ?1)
                     FROM epoch WHERE epoch.epoch = ?1";
        let state = self
            .connection
            .query_row(query, [epoch], |row| Ok(EpochState { has_ended: row.get(0)?, floor: Window(row.get(1)?) }));
        state.optional().map_err(|error| self.failed(error))
    }

    /// A number that is another after anything was sealed, begun or ended.
    pub(super) fn edition(&self) -> Result<(i64, i64, i64), LedgerError> {
        let query =
            "SELECT (SELECT count(*) FROM seal), (SELECT count(*) FROM epoch), (SELECT count(ending) FROM epoch)";
        let edition = self.connection.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        edition.map_err(|error| self.failed(error))
    }

    /// The rows of a range of windows, summed over epochs, without those of `except.0` from window `except.1` on.
    pub(super) fn usage(&self, windows: &Range<Window>, except: (u32, Window)) -> Result<Vec<UsageRow>, LedgerError> {
        self.read_usage(windows, except).map_err(|error| self.failed(error))
    }

    fn read_usage(&self, windows: &Range<Window>, except: (u32, Window)) -> rusqlite::Result<Vec<UsageRow>> {
        let mut query = self.connection.prepare_cached(
            "SELECT \"window\", department, subsystem, command, outcome, sum(commands), sum(units), sum(request_bytes),
                    sum(response_bytes), sum(duration_ns)
             FROM usage JOIN series USING (series)
             WHERE \"window\" >= ?1 AND \"window\" < ?2 AND NOT (epoch = ?3 AND \"window\" >= ?4)
             GROUP BY \"window\", series, outcome",
        )?;
        let values = params![windows.start.0, windows.end.0, except.0, except.1.0];
        let rows = query.query_map(values, |row| {
            let SeriesNames { department, subsystem, command } = names_of(row, 1)?;
            let (outcome, totals) = (outcome_of(row, 4)?, totals_of(row, 5)?);
            Ok(UsageRow { window: Window(row.get(0)?), department, subsystem, command, outcome, totals })
        })?;
        rows.collect()
    }

    fn failed(&self, error: rusqlite::Error) -> LedgerError {
        LedgerError::book("read", self.path, error)
    }
}

fn names_of(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<SeriesNames> {
    let name = |column| Name::parse(row.get_ref(column)?.as_str()?).map_err(|error| strange(column, error));
    Ok(SeriesNames { department: name(from)?, subsystem: name(from + 1)?, command: name(from + 2)? })
}

fn outcome_of(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Outcome> {
    let code: u32 = row.get(column)?;
    Outcome::from_code(code).ok_or_else(|| strange(column, format!("{code} is not the code of an outcome")))
}

fn totals_of(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<OutcomeTotals> {
    Ok(OutcomeTotals {
        commands: loaded(row, from)?,
        units: loaded(row, from + 1)?,
        request_bytes: loaded(row, from + 2)?,
        response_bytes: loaded(row, from + 3)?,
        duration_ns: loaded(row, from + 4)?,
    })
}

fn strange(column: usize, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
}
