//! Reads the book: for the keeper's beginnings, for reports, for other processes.
//!
//! Guarantees: changes nothing; what the book cannot mean (an unknown outcome, a name that is none) is an error.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::error::LedgerError;
use super::fold::{Row, SeriesNames};
use super::schema::FORMAT;
use super::sums;
use super::totals::{OutcomeTotals, UsageRow};
use crate::model::{CalendarOffset, Name, Outcome, Window};

/// How long a reading or a save waits for somebody who holds the book.
pub(super) const BUSY_WAIT: Duration = Duration::from_millis(500);

/// How fine the rows of usage are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// A row for each hour. Days whose hours are forgotten are rows of their first window all the same.
    Hour,
    /// Whole days are rows of their first window: a month is thirty days, not 720 hours.
    Day,
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

    /// What is sealed as it was summed up, and the hours that are not.
    fn sums_of_series(&self) -> rusqlite::Result<BTreeMap<u32, Row>> {
        let mut sums: BTreeMap<u32, Row> = BTreeMap::new();
        let mut query = self.connection.prepare(
            "SELECT series, outcome, commands, units, request_bytes, response_bytes, duration_ns FROM ever_sum
             UNION ALL
             SELECT series, 0, admitted, units, 0, 0, 0 FROM unsealed JOIN admission USING (\"window\", epoch)
             UNION ALL
             SELECT series, outcome, commands, units, request_bytes, response_bytes, duration_ns
             FROM unsealed JOIN usage USING (\"window\", epoch)",
        )?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (sum, totals) = (sums.entry(row.get(0)?).or_default(), totals_of(row, 2)?);
            match row.get(1)? {
                ADMITTED => sum.add_admitted(&totals),
                _ => sum.add_outcome(outcome_of(row, 1)?, &totals),
            }
        }
        Ok(sums)
    }

    /// What the book knows of an epoch; nothing if it has not heard of it.
    pub(super) fn epoch(&self, epoch: u32) -> Result<Option<EpochState>, LedgerError> {
        let query = "SELECT ending IS NOT NULL,
                            max((SELECT rolled_before FROM meta),
                                (SELECT coalesce(max(\"window\") + 1, 0) FROM seal
                                 WHERE seal.epoch = ?1 AND kind = 'hour'))
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
    pub(super) fn usage(
        &self,
        windows: &Range<Window>,
        except: (u32, Window),
        grain: Grain,
    ) -> Result<Vec<UsageRow>, LedgerError> {
        let horizon = self.horizon()?;
        let mut rows = self.days_forgotten(windows, horizon)?;
        let kept = windows.start.max(horizon)..windows.end;
        let days = match grain {
            Grain::Hour => kept.start..kept.start,
            Grain::Day => whole_days(self.calendar()?, &kept, horizon),
        };
        rows.extend(self.read(DAYS, params![days.start.0, days.end.0])?);
        rows.extend(self.read(OPEN_HOURS, params![days.start.0, days.end.0, except.0, except.1.0])?);
        for edge in [kept.start..days.start.min(kept.end), days.end.max(kept.start)..kept.end] {
            if edge.start < edge.end {
                rows.extend(self.read(HOURS, params![edge.start.0, edge.end.0, except.0, except.1.0])?);
            }
        }
        Ok(rows)
    }

    fn days_forgotten(&self, windows: &Range<Window>, horizon: Window) -> Result<Vec<UsageRow>, LedgerError> {
        if windows.start >= horizon {
            return Ok(Vec::new());
        }
        for edge in [windows.start, windows.end].into_iter().filter(|edge| *edge < horizon) {
            self.refuse_cut(edge, horizon)?;
        }
        self.read(DAYS, params![windows.start.0, windows.end.min(horizon).0])
    }

    /// Refuses an edge that lies within a day of which only the sums are left.
    fn refuse_cut(&self, edge: Window, horizon: Window) -> Result<(), LedgerError> {
        let query = "SELECT max(day) FROM day_sum WHERE day < ? AND day + 24 > ?1";
        let day: Option<u32> =
            self.connection.query_row(query, [edge.0], |row| row.get(0)).map_err(|error| self.failed(error))?;
        match day {
            None => Ok(()),
            Some(day) => self.refuse_if_longer(Window(day), edge, horizon),
        }
    }

    /// A day is shorter where the calendar changed: then the next one begins before 24 hours are over.
    fn refuse_if_longer(&self, day: Window, edge: Window, before: Window) -> Result<(), LedgerError> {
        let query = "SELECT EXISTS (SELECT 1 FROM day_sum WHERE day = ?)";
        let begins: bool =
            self.connection.query_row(query, [edge.0], |row| row.get(0)).map_err(|error| self.failed(error))?;
        if begins { Ok(()) } else { Err(LedgerError::CutsDay { day, before }) }
    }

    /// The first window that is still kept as an hour.
    pub(super) fn horizon(&self) -> Result<Window, LedgerError> {
        sums::horizon(self.connection).map_err(|error| self.failed(error))
    }

    fn read(&self, query: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<UsageRow>, LedgerError> {
        self.read_rows(query, values).map_err(|error| self.failed(error))
    }

    fn read_rows(&self, query: &str, values: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<Vec<UsageRow>> {
        let mut names = Names::of(self.connection)?;
        let mut query = self.connection.prepare_cached(query)?;
        let mut rows = query.query(values)?;
        let mut usage = Vec::new();
        while let Some(row) = rows.next()? {
            let SeriesNames { department, subsystem, command } = names.get(row.get(1)?)?;
            let (outcome, totals) = (outcome_of(row, 2)?, totals_of(row, 3)?);
            usage.push(UsageRow { window: Window(row.get(0)?), department, subsystem, command, outcome, totals });
        }
        Ok(usage)
    }

    fn failed(&self, error: rusqlite::Error) -> LedgerError {
        LedgerError::book("read", self.path, error)
    }
}

/// The code under which sums hold what was admitted.
const ADMITTED: u32 = 0;

const HOURS: &str = "SELECT \"window\", series, outcome, sum(commands), sum(units), sum(request_bytes),
        sum(response_bytes), sum(duration_ns)
    FROM usage WHERE \"window\" >= ?1 AND \"window\" < ?2 AND NOT (epoch = ?3 AND \"window\" >= ?4)
    GROUP BY \"window\", series, outcome";
const OPEN_HOURS: &str = "SELECT \"window\", series, outcome, sum(commands), sum(units), sum(request_bytes),
        sum(response_bytes), sum(duration_ns)
    FROM unsealed JOIN usage USING (\"window\", epoch)
    WHERE \"window\" >= ?1 AND \"window\" < ?2 AND NOT (epoch = ?3 AND \"window\" >= ?4)
    GROUP BY \"window\", series, outcome";
const DAYS: &str = "SELECT day, series, outcome, commands, units, request_bytes, response_bytes, duration_ns
    FROM day_sum WHERE day >= ?1 AND day < ?2 AND outcome <> 0";

/// The days that lie wholly in a range; the first day of all may begin at the horizon. Empty where there is none.
fn whole_days(calendar: CalendarOffset, windows: &Range<Window>, horizon: Window) -> Range<Window> {
    let begins = windows.start == horizon || calendar.day_of(windows.start) == windows.start;
    let first = if begins { windows.start } else { Window(calendar.day_of(windows.start).0.saturating_add(24)) };
    first..calendar.day_of(windows.end).max(first)
}

/// The names of series, each read once.
struct Names<'a> {
    query: rusqlite::CachedStatement<'a>,
    known: HashMap<u32, SeriesNames, foldhash::fast::RandomState>,
}

impl<'a> Names<'a> {
    fn of(connection: &'a Connection) -> rusqlite::Result<Self> {
        let query = "SELECT department, subsystem, command FROM series WHERE series = ?";
        Ok(Self { query: connection.prepare_cached(query)?, known: HashMap::default() })
    }

    fn get(&mut self, series: u32) -> rusqlite::Result<SeriesNames> {
        if let Some(names) = self.known.get(&series) {
            return Ok(names.clone());
        }
        let names = self.query.query_row([series], |row| names_of(row, 0))?;
        self.known.insert(series, names.clone());
        Ok(names)
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

pub(super) fn format_of(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Refuses a file that is no book, or a newer one.
pub(super) fn check_format(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    match format_of(connection).map_err(|error| not_a_book(path, error))? {
        FORMAT => Ok(()),
        0 => Err(LedgerError::NotABook(path.to_owned())),
        found @ 1..FORMAT => Err(LedgerError::Older { path: path.to_owned(), found, known: FORMAT }),
        found => Err(LedgerError::Newer { path: path.to_owned(), found, known: FORMAT }),
    }
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
