//! Reads the book: for the start of the keeper, for reports and for other processes.
//!
//! Guarantees: changes nothing. An invalid value in the book (an unknown outcome, an invalid name) is an error.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use crate::ledger::fold::{FoldRow, SeriesNames};
use crate::ledger::tally::file::TallyImage;
use crate::ledger::values::error::LedgerError;
use crate::ledger::values::measures::{ADMITTED_CODE, Measures, StoredMeasures, WAIVED_CODE};
use crate::model::{CalendarOffset, Name, Outcome, Window};

use super::connection::open_error;
use super::department_names::{self, DatedName};
use super::schema::BOOK_FORMAT;
use super::{day_sums, ledger_identity, read_only, schema_check};

/// The state of an epoch in the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EpochState {
    pub(crate) has_ended: bool,
    /// The first unsealed window.
    pub(crate) first_unsealed: Window,
}

/// The book, open for reading.
#[derive(Debug)]
pub(crate) struct BookReader<'a> {
    path: &'a Path,
    pub(crate) connection: &'a Connection,
}

/// Opens a book for reading only. Refuses a book with an altered schema, because its numbers cannot be trusted.
pub(crate) fn open_for_reading(path: &Path) -> Result<Connection, LedgerError> {
    open_detecting_changes(path).map(|(connection, _)| connection)
}

/// Like [`open_for_reading`]. For a book on read-only storage, also returns the state to compare after the read.
pub(crate) fn open_detecting_changes(path: &Path) -> Result<read_only::OpenedBook, LedgerError> {
    let (connection, frozen) = open_unchecked(path)?;
    schema_check::check_schema(&connection, path)?;
    Ok((connection, frozen))
}

/// Like [`open_for_reading`], but does not refuse an altered schema. For the audit, which reports the alterations
/// itself.
pub(crate) fn open_for_audit(path: &Path) -> Result<Connection, LedgerError> {
    open_unchecked(path).map(|(connection, _)| connection)
}

fn open_unchecked(path: &Path) -> Result<read_only::OpenedBook, LedgerError> {
    let (connection, frozen) = read_only::open_read_only(path)?;
    check_format(&connection, path)?;
    Ok((connection, frozen))
}

impl<'a> BookReader<'a> {
    pub(crate) fn new(path: &'a Path, connection: &'a Connection) -> Self {
        Self { path, connection }
    }

    /// Returns the calendar offset that the book was last kept with.
    pub(crate) fn calendar(&self) -> Result<CalendarOffset, LedgerError> {
        let query = "SELECT calendar_offset FROM meta";
        let text: String =
            self.connection.query_row(query, [], |row| row.get(0)).map_err(|error| self.book_error(error))?;
        CalendarOffset::parse(&text).map_err(|_| LedgerError::NotABook(self.path.to_owned()))
    }

    /// Returns every series, ordered by number, with its sums over all epochs.
    pub(crate) fn series(&self) -> Result<Vec<(SeriesNames, FoldRow)>, LedgerError> {
        self.read_series().map_err(|error| self.book_error(error))
    }

    fn read_series(&self) -> rusqlite::Result<Vec<(SeriesNames, FoldRow)>> {
        let mut sums = self.sums_of_series()?;
        let mut query =
            self.connection.prepare("SELECT department, subsystem, command, series FROM series ORDER BY 4")?;
        let series = query.query_map([], |row| Ok((series_names_from(row, 0)?, row.get::<_, u32>(3)?)))?;
        series.map(|one| one.map(|(names, number)| (names, sums.remove(&number).unwrap_or_default()))).collect()
    }

    /// Returns the sums of each series: the stored sums of sealed hours, and the unsealed hours.
    fn sums_of_series(&self) -> rusqlite::Result<BTreeMap<u32, FoldRow>> {
        let mut sums: BTreeMap<u32, FoldRow> = BTreeMap::new();
        let mut query = self.connection.prepare(SELECT_SERIES_SUMS)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (sum, totals) = (sums.entry(row.get(0)?).or_default(), totals_from(row, 2)?);
            match row.get(1)? {
                ADMITTED_CODE => sum.add_admitted(&totals),
                WAIVED_CODE => {} // the sums of a series hold the charged commands
                _ => sum.add_outcome(outcome_from(row, 1)?, &totals),
            }
        }
        Ok(sums)
    }

    /// Returns the state of an epoch; `None` if the epoch is not in the book.
    pub(crate) fn epoch_state(&self, epoch: u32) -> Result<Option<EpochState>, LedgerError> {
        let query = "SELECT ending IS NOT NULL FROM epoch WHERE epoch = ?";
        let state = self.connection.query_row(query, [epoch], |row| {
            Ok(EpochState {
                has_ended: row.get(0)?,
                first_unsealed: first_unsealed_window(self.connection, epoch)?
                    .max(day_sums::compacted_before(self.connection)?),
            })
        });
        state.optional().map_err(|error| self.book_error(error))
    }

    /// Returns a revision, which changes whenever an hour or day is sealed, or an epoch begins or ends.
    pub(crate) fn revision(&self) -> Result<(i64, i64, i64), LedgerError> {
        let query =
            "SELECT (SELECT count(*) FROM seal), (SELECT count(*) FROM epoch), (SELECT count(ending) FROM epoch)";
        let revision = self.connection.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        revision.map_err(|error| self.book_error(error))
    }

    /// Returns the latest name of every department that has a name in the book.
    pub(crate) fn department_names(&self) -> Result<BTreeMap<String, String>, LedgerError> {
        department_names::all_department_names(self.connection).map_err(|error| self.book_error(error))
    }

    /// Like [`Self::department_names`], with the time of each name.
    pub(crate) fn dated_department_names(&self) -> Result<BTreeMap<String, DatedName>, LedgerError> {
        department_names::dated_department_names(self.connection).map_err(|error| self.book_error(error))
    }

    /// Returns the identity of the ledger; `None` before its first epoch.
    pub(crate) fn identity(&self) -> Result<Option<String>, LedgerError> {
        ledger_identity::ledger_identity(self.connection).map_err(|error| self.book_error(error))
    }

    /// Returns the first window that is still kept as an hour.
    pub(crate) fn compacted_before(&self) -> Result<Window, LedgerError> {
        day_sums::compacted_before(self.connection).map_err(|error| self.book_error(error))
    }

    pub(crate) fn book_error(&self, error: rusqlite::Error) -> LedgerError {
        LedgerError::book("read", self.path, error)
    }
}

/// Covers every series. `CROSS JOIN` makes SQLite begin with the few unsealed hours.
pub(crate) const SELECT_SERIES_SUMS: &str =
    "SELECT series, outcome, commands, units, request_bytes, response_bytes, duration_ns FROM ever_sum
    UNION ALL
    SELECT series, 0, admitted, units, 0, 0, 0 FROM unsealed CROSS JOIN admission USING (\"window\", epoch)
    UNION ALL
    SELECT series, outcome, commands, units, request_bytes, response_bytes, duration_ns
    FROM unsealed CROSS JOIN usage USING (\"window\", epoch)";

/// Returns the first window that is not sealed for an epoch.
pub(crate) fn first_unsealed_window(book: &Connection, epoch: u32) -> rusqlite::Result<Window> {
    let query = "SELECT coalesce(max(\"window\") + 1, 0) FROM seal WHERE epoch = ? AND kind = 'hour'";
    book.prepare_cached(query)?.query_row([epoch], |row| row.get(0).map(Window))
}

pub(crate) fn series_names_from(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<SeriesNames> {
    let name = |column| name_from(row, column);
    Ok(SeriesNames { department: name(from)?, subsystem: name(from + 1)?, command: name(from + 2)? })
}

pub(crate) fn name_from(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Name> {
    Name::parse(row.get_ref(column)?.as_str()?).map_err(|error| conversion_error(column, error))
}

pub(crate) fn outcome_from(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Outcome> {
    let code: u32 = row.get(column)?;
    Outcome::from_code(code).ok_or_else(|| conversion_error(column, format!("{code} is not the code of an outcome")))
}

/// Reads sums; a negative number, which the audit reports, counts as 0.
pub(crate) fn totals_from(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<Measures> {
    Ok(StoredMeasures::from_row(row, from)?.map(|number| u64::try_from(number).unwrap_or(0)))
}

fn conversion_error(column: usize, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
}

pub(crate) fn book_format(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Refuses a file that is not a book, or a book of a newer format.
pub(crate) fn check_format(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    match book_format(connection).map_err(|error| open_error(path, error))? {
        BOOK_FORMAT => Ok(()),
        0 if is_missing_log(connection, path) => Err(LedgerError::LogMissing(path.to_owned())),
        0 => Err(LedgerError::NotABook(path.to_owned())),
        found @ 1..BOOK_FORMAT => Err(LedgerError::OlderFormat { path: path.to_owned(), found, known: BOOK_FORMAT }),
        found => Err(LedgerError::NewerFormat { path: path.to_owned(), found, known: BOOK_FORMAT }),
    }
}

/// Returns whether an empty book lies beside a tally: then the book's first pages are in a log that was not copied.
fn is_missing_log(connection: &Connection, path: &Path) -> bool {
    let query = "SELECT count(*) = 0 FROM sqlite_schema";
    let is_empty = connection.query_row(query, [], |row| row.get(0)).unwrap_or(false);
    let tally = || std::fs::read(path.with_extension(crate::ledger::files::book_path::TALLY_EXTENSION)).ok();
    is_empty && tally().is_some_and(|bytes| TallyImage::parse(&bytes).is_ok())
}
