//! Reads the book: for the keeper's beginnings, for reports, for other processes.
//!
//! Guarantees: changes nothing; what the book cannot mean (an unknown outcome, a name that is none) is an error.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use super::error::LedgerError;
use super::fold::{Row, SeriesNames};
use super::names;
use super::read_only;
use super::schema::FORMAT;
use super::schema_check;
use super::sums::{self, ADMITTED, WAIVED};
use super::tally::TallyImage;
use super::totals::OutcomeTotals;
use crate::model::{CalendarOffset, Name, Outcome, Window};

/// How long a reading or a save waits for somebody who holds the book.
pub(super) const BUSY_WAIT: Duration = Duration::from_millis(500);

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
    pub(super) connection: &'a Connection,
}

/// Opens a book for reading only; refuses one that somebody has altered, because its numbers may be anything.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, LedgerError> {
    open_steadily(path).map(|(connection, _)| connection)
}

/// As [`open_for_reading`], with what to compare after a reading of a book on ground where nobody may write.
pub(super) fn open_steadily(path: &Path) -> Result<read_only::Opened, LedgerError> {
    let (connection, frozen) = open_altered(path)?;
    schema_check::check(&connection, path)?;
    Ok((connection, frozen))
}

/// As [`open_for_reading`], for whoever names himself what is altered.
pub(super) fn open_for_audit(path: &Path) -> Result<Connection, LedgerError> {
    open_altered(path).map(|(connection, _)| connection)
}

fn open_altered(path: &Path) -> Result<read_only::Opened, LedgerError> {
    let (connection, frozen) = read_only::connect(path)?;
    check_format(&connection, path)?;
    Ok((connection, frozen))
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

    /// What is sealed as it was summed up, and the hours that are not.
    fn sums_of_series(&self) -> rusqlite::Result<BTreeMap<u32, Row>> {
        let mut sums: BTreeMap<u32, Row> = BTreeMap::new();
        let mut query = self.connection.prepare(SUMS)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (sum, totals) = (sums.entry(row.get(0)?).or_default(), totals_of(row, 2)?);
            match row.get(1)? {
                ADMITTED => sum.add_admitted(&totals),
                WAIVED => {} // sums of series hold what was charged
                _ => sum.add_outcome(outcome_of(row, 1)?, &totals),
            }
        }
        Ok(sums)
    }

    /// What the book knows of an epoch; nothing if it has not heard of it.
    pub(super) fn epoch(&self, epoch: u32) -> Result<Option<EpochState>, LedgerError> {
        let query = "SELECT ending IS NOT NULL FROM epoch WHERE epoch = ?";
        let state = self.connection.query_row(query, [epoch], |row| {
            Ok(EpochState {
                has_ended: row.get(0)?,
                floor: floor_of(self.connection, epoch)?.max(sums::horizon(self.connection)?),
            })
        });
        state.optional().map_err(|error| self.failed(error))
    }

    /// A number that is another after anything was sealed, begun or ended.
    pub(super) fn edition(&self) -> Result<(i64, i64, i64), LedgerError> {
        let query =
            "SELECT (SELECT count(*) FROM seal), (SELECT count(*) FROM epoch), (SELECT count(ending) FROM epoch)";
        let edition = self.connection.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        edition.map_err(|error| self.failed(error))
    }

    /// The latest name of every department that the book knows one of.
    pub(super) fn department_names(&self) -> Result<BTreeMap<String, String>, LedgerError> {
        names::all(self.connection).map_err(|error| self.failed(error))
    }

    /// The first window that is still kept as an hour.
    pub(super) fn horizon(&self) -> Result<Window, LedgerError> {
        sums::horizon(self.connection).map_err(|error| self.failed(error))
    }

    pub(super) fn failed(&self, error: rusqlite::Error) -> LedgerError {
        LedgerError::book("read", self.path, error)
    }
}

/// Of every series; `CROSS JOIN` has SQLite begin with the few hours that are not sealed.
pub(super) const SUMS: &str =
    "SELECT series, outcome, commands, units, request_bytes, response_bytes, duration_ns FROM ever_sum
    UNION ALL
    SELECT series, 0, admitted, units, 0, 0, 0 FROM unsealed CROSS JOIN admission USING (\"window\", epoch)
    UNION ALL
    SELECT series, outcome, commands, units, request_bytes, response_bytes, duration_ns
    FROM unsealed CROSS JOIN usage USING (\"window\", epoch)";

/// The first window that is not sealed for an epoch.
pub(super) fn floor_of(book: &Connection, epoch: u32) -> rusqlite::Result<Window> {
    let query = "SELECT coalesce(max(\"window\") + 1, 0) FROM seal WHERE epoch = ? AND kind = 'hour'";
    book.prepare_cached(query)?.query_row([epoch], |row| row.get(0).map(Window))
}

pub(super) fn names_of(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<SeriesNames> {
    let name = |column| name_of(row, column);
    Ok(SeriesNames { department: name(from)?, subsystem: name(from + 1)?, command: name(from + 2)? })
}

pub(super) fn name_of(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Name> {
    Name::parse(row.get_ref(column)?.as_str()?).map_err(|error| strange(column, error))
}

pub(super) fn outcome_of(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Outcome> {
    let code: u32 = row.get(column)?;
    Outcome::from_code(code).ok_or_else(|| strange(column, format!("{code} is not the code of an outcome")))
}

pub(super) fn totals_of(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<OutcomeTotals> {
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

pub(super) fn format_of(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Refuses a file that is no book, or a newer one.
pub(super) fn check_format(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    match format_of(connection).map_err(|error| not_a_book(path, error))? {
        FORMAT => Ok(()),
        0 if is_without_log(connection, path) => Err(LedgerError::LogMissing(path.to_owned())),
        0 => Err(LedgerError::NotABook(path.to_owned())),
        found @ 1..FORMAT => Err(LedgerError::Older { path: path.to_owned(), found, known: FORMAT }),
        found => Err(LedgerError::Newer { path: path.to_owned(), found, known: FORMAT }),
    }
}

/// Whether an empty book lies beside a tally: its first pages are in a log that was not copied.
fn is_without_log(connection: &Connection, path: &Path) -> bool {
    let query = "SELECT count(*) = 0 FROM sqlite_schema";
    let is_empty = connection.query_row(query, [], |row| row.get(0)).unwrap_or(false);
    let tally = || std::fs::read(path.with_extension(super::TALLY)).ok();
    is_empty && tally().is_some_and(|bytes| TallyImage::parse(&bytes).is_ok())
}

/// Why a file could not be opened as a book.
pub(super) fn not_a_book(path: &Path, error: rusqlite::Error) -> LedgerError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => LedgerError::NotABook(path.to_owned()),
        _ => LedgerError::book("open", path, error),
    }
}

fn loaded(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}
