//! Usage of a range of windows, read from the book at the requested resolution.
//!
//! Guarantees:
//! - The sums are the same at every resolution.
//! - Hours are read only where the range cuts a day, and where they are not sealed.
//! - Compacted days are read whole, and a range that cuts a compacted day is refused.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use rusqlite::Connection;

use crate::ledger::fold::SeriesNames;
use crate::ledger::values::error::LedgerError;
use crate::ledger::values::measures::{DepartmentUsage, Measures, UsageRow, UsageSums};
use crate::model::{CalendarOffset, Name, Outcome, Window};

use super::book_reader::{BookReader, name_from, outcome_from, series_names_from, totals_from};

/// The resolution of usage rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsageResolution {
    /// A row for each hour. Compacted days are rows of their first window.
    Hour,
    /// Whole days are rows of their first window: a month is thirty days and not 720 hours.
    Day,
    /// The whole range is one row of its first window.
    Whole,
}

impl UsageResolution {
    /// Returns the window under which a row of `range` is shown.
    pub(crate) fn row_window(self, window: Window, range: &Range<Window>) -> Window {
        if self == Self::Whole { range.start } else { window }
    }
}

/// The selection of rows.
#[derive(Clone, Debug)]
pub(crate) struct UsageSelection {
    pub(crate) windows: Range<Window>,
    pub(crate) resolution: UsageResolution,
    /// An epoch, and the window from which on its rows are excluded: the caller has these rows from the keeper.
    pub(crate) except: (u32, Window),
    /// The only department whose rows are read; `None` for all. Its rows are sought one by one, so the time does not
    /// depend on how many departments there are.
    pub(crate) department: Option<Name>,
}

/// The key of a row: window, series, outcome.
type UsageKey = (Window, u32, Outcome);

/// Collects rows as they are read, or their sums.
#[derive(Debug)]
enum RowCollector {
    Each(Vec<(UsageKey, Measures)>),
    Summed { start: Window, sums: HashMap<UsageKey, Measures, foldhash::fast::RandomState> },
}

/// Receives rows as they are read.
trait RowSink {
    /// Adds one row of the book.
    fn add_row(&mut self, place: UsageKey, totals: Measures);
}

/// Sums by department. Memory: one number per series.
#[derive(Debug, Default)]
struct DepartmentSums {
    /// Positions in `sums`, by series.
    positions: HashMap<u32, usize, foldhash::fast::RandomState>,
    sums: Vec<UsageSums>,
}

impl RowSink for DepartmentSums {
    fn add_row(&mut self, (_, series, _): UsageKey, totals: Measures) {
        if let Some(position) = self.positions.get(&series) {
            self.sums[*position].add(totals.usage());
        }
    }
}

impl RowCollector {
    fn new(selection: &UsageSelection) -> Self {
        match selection.resolution {
            UsageResolution::Hour | UsageResolution::Day => Self::Each(Vec::new()),
            UsageResolution::Whole => Self::Summed { start: selection.windows.start, sums: HashMap::default() },
        }
    }

    fn into_rows(self) -> Vec<(UsageKey, Measures)> {
        match self {
            Self::Each(rows) => rows,
            Self::Summed { sums, .. } => {
                let mut rows: Vec<_> = sums.into_iter().collect();
                rows.sort_unstable_by_key(|(place, _)| *place);
                rows
            }
        }
    }
}

impl RowSink for RowCollector {
    fn add_row(&mut self, (window, series, outcome): UsageKey, totals: Measures) {
        match self {
            Self::Each(rows) => rows.push(((window, series, outcome), totals)),
            Self::Summed { start, sums } => sums.entry((*start, series, outcome)).or_default().add(&totals),
        }
    }
}

impl BookReader<'_> {
    /// Returns the selected rows, summed over epochs.
    pub(crate) fn usage(&self, selection: &UsageSelection) -> Result<Vec<UsageRow>, LedgerError> {
        let mut collector = RowCollector::new(selection);
        self.visit_usage(selection, &mut collector)?;
        with_series_names(self.connection, collector.into_rows()).map_err(|error| self.book_error(error))
    }

    /// Returns the usage of departments, summed over epochs, without departments that have no usage.
    pub(crate) fn department_usage(&self, selection: &UsageSelection) -> Result<DepartmentUsage, LedgerError> {
        let (names, mut collector) =
            departments_with_series(self.connection).map_err(|error| self.book_error(error))?;
        self.visit_usage(selection, &mut collector)?;
        let uses = names.into_iter().zip(collector.sums);
        Ok(uses.filter(|(_, sums)| *sums != UsageSums::default()).collect())
    }

    /// Passes all selected rows to `collector`.
    fn visit_usage(&self, selection: &UsageSelection, collector: &mut impl RowSink) -> Result<(), LedgerError> {
        let compacted_before = self.compacted_before()?;
        let cut = compacted_day_cut_by(self.connection, &selection.windows, compacted_before);
        if let Some(day) = cut.map_err(|error| self.book_error(error))? {
            return Err(LedgerError::RangeCutsDay { day, before: compacted_before });
        }
        let calendar = self.calendar()?;
        self.visit_ranges(selection, (calendar, compacted_before), collector).map_err(|error| self.book_error(error))
    }

    fn visit_ranges(
        &self,
        selection: &UsageSelection,
        (calendar, compacted_before): (CalendarOffset, Window),
        collector: &mut impl RowSink,
    ) -> rusqlite::Result<()> {
        let UsageSelection { windows, resolution, except, department } = selection;
        let queries = if department.is_some() { &OF_DEPARTMENT } else { &OF_ALL };
        let department = department.as_ref().map(Name::as_str);
        let kept = windows.start.max(compacted_before)..windows.end.max(compacted_before);
        let days = match resolution {
            UsageResolution::Hour => kept.start..kept.start,
            UsageResolution::Day | UsageResolution::Whole => whole_days(calendar, &kept, compacted_before),
        };
        for days in [windows.start..windows.end.min(compacted_before), days.clone()] {
            if days.start < days.end {
                self.visit_rows(queries.days, (&[&days.start.0, &days.end.0], &department), collector)?;
            }
        }
        let of = |windows: &Range<Window>| [windows.start.0, windows.end.0, except.0, except.1.0];
        let [start, end, epoch, floor] = of(&days);
        self.visit_rows(queries.open_hours, (&[&start, &end, &epoch, &floor], &department), collector)?;
        for edge in [kept.start..days.start.min(kept.end), days.end.max(kept.start)..kept.end] {
            if edge.start < edge.end {
                let [start, end, epoch, floor] = of(&edge);
                self.visit_rows(queries.hours, (&[&start, &end, &epoch, &floor], &department), collector)?;
            }
        }
        Ok(())
    }

    fn visit_rows(
        &self,
        query: &str,
        (values, department): (&[&dyn rusqlite::ToSql], &Option<&str>),
        collector: &mut impl RowSink,
    ) -> rusqlite::Result<()> {
        let mut query = self.connection.prepare_cached(query)?;
        let mut all = values.to_vec();
        if department.is_some() {
            all.push(department);
        }
        let mut rows = query.query(&*all)?;
        while let Some(row) = rows.next()? {
            collector.add_row((Window(row.get(0)?), row.get(1)?, outcome_from(row, 2)?), totals_from(row, 3)?);
        }
        Ok(())
    }
}

/// Returns the first compacted day that a range cuts: that begins before an edge of the range and ends after it.
pub(crate) fn compacted_day_cut_by(
    book: &Connection,
    windows: &Range<Window>,
    compacted_before: Window,
) -> rusqlite::Result<Option<Window>> {
    for edge in [windows.start, windows.end].into_iter().filter(|edge| *edge < compacted_before) {
        if let Some(day) = compacted_day_cut_at(book, edge)? {
            return Ok(Some(day));
        }
    }
    Ok(None)
}

/// Returns the compacted day that contains `edge`. A day is shorter than 24 hours where the calendar changed: then the
/// next day begins at the edge.
fn compacted_day_cut_at(book: &Connection, edge: Window) -> rusqlite::Result<Option<Window>> {
    let query = "SELECT max(day) FROM day_sum WHERE day < ?1 AND day + 24 > ?1
                 AND NOT EXISTS (SELECT 1 FROM day_sum WHERE day = ?1)";
    book.query_row(query, [edge.0], |row| row.get::<_, Option<u32>>(0)).map(|day| day.map(Window))
}

/// The queries of a selection.
pub(crate) struct UsageQueries {
    pub(crate) days: &'static str,
    pub(crate) open_hours: &'static str,
    pub(crate) hours: &'static str,
}

const OF_ALL: UsageQueries = UsageQueries { days: SELECT_DAYS, open_hours: SELECT_OPEN_HOURS, hours: SELECT_HOURS };

/// The same queries for one department. The windows of the range are counted up, and each row of each series is sought
/// by its key.
pub(crate) const OF_DEPARTMENT: UsageQueries = UsageQueries {
    days: "WITH RECURSIVE span(w) AS (SELECT ?1 UNION ALL SELECT w + 1 FROM span WHERE w + 1 < ?2)
    SELECT day, series, outcome, commands, units, request_bytes, response_bytes, duration_ns
    FROM span CROSS JOIN series CROSS JOIN day_sum USING (series)
    WHERE department = ?3 AND day = w AND outcome NOT IN (0, 100)",
    open_hours: "SELECT \"window\", series, outcome, sum(commands), sum(units), sum(request_bytes),
        sum(response_bytes), sum(duration_ns)
    FROM unsealed CROSS JOIN series CROSS JOIN usage USING (\"window\", epoch, series)
    WHERE \"window\" >= ?1 AND \"window\" < ?2 AND NOT (epoch = ?3 AND \"window\" >= ?4) AND department = ?5
    GROUP BY \"window\", series, outcome",
    hours: "WITH RECURSIVE span(w) AS (SELECT ?1 UNION ALL SELECT w + 1 FROM span WHERE w + 1 < ?2)
    SELECT \"window\", series, outcome, sum(commands), sum(units), sum(request_bytes),
        sum(response_bytes), sum(duration_ns)
    FROM span CROSS JOIN series CROSS JOIN usage USING (series)
    WHERE department = ?5 AND \"window\" = w AND NOT (epoch = ?3 AND \"window\" >= ?4)
    GROUP BY \"window\", series, outcome",
};

const SELECT_HOURS: &str = "SELECT \"window\", series, outcome, sum(commands), sum(units), sum(request_bytes),
        sum(response_bytes), sum(duration_ns)
    FROM usage WHERE \"window\" >= ?1 AND \"window\" < ?2 AND NOT (epoch = ?3 AND \"window\" >= ?4)
    GROUP BY \"window\", series, outcome";
/// `CROSS JOIN` makes SQLite begin with the few unsealed hours, rather than scan the whole range.
pub(crate) const SELECT_OPEN_HOURS: &str =
    "SELECT \"window\", series, outcome, sum(commands), sum(units), sum(request_bytes),
        sum(response_bytes), sum(duration_ns)
    FROM unsealed CROSS JOIN usage USING (\"window\", epoch)
    WHERE \"window\" >= ?1 AND \"window\" < ?2 AND NOT (epoch = ?3 AND \"window\" >= ?4)
    GROUP BY \"window\", series, outcome";
const SELECT_DAYS: &str = "SELECT day, series, outcome, commands, units, request_bytes, response_bytes, duration_ns
    FROM day_sum WHERE day >= ?1 AND day < ?2 AND outcome NOT IN (0, 100)";

/// Returns the days that lie completely within a range, or an empty range. The first day may begin at the horizon.
fn whole_days(calendar: CalendarOffset, windows: &Range<Window>, compacted_before: Window) -> Range<Window> {
    let begins = windows.start == compacted_before || calendar.day_of(windows.start) == windows.start;
    let first = if begins { windows.start } else { Window(calendar.day_of(windows.start).0.saturating_add(24)) };
    first..calendar.day_of(windows.end).max(first)
}

/// Returns every department that has a series, and empty sums for each.
fn departments_with_series(book: &Connection) -> rusqlite::Result<(Vec<Name>, DepartmentSums)> {
    let (mut names, mut collector) = (Vec::new(), DepartmentSums::default());
    let mut query = book.prepare_cached("SELECT series, department FROM series ORDER BY department")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let name = name_from(row, 1)?;
        if names.last() != Some(&name) {
            names.push(name);
        }
        collector.positions.insert(row.get(0)?, names.len() - 1);
    }
    collector.sums = vec![UsageSums::default(); names.len()];
    Ok((names, collector))
}

/// Adds the names of series to rows; the names of each series are read once.
fn with_series_names(book: &Connection, rows: Vec<(UsageKey, Measures)>) -> rusqlite::Result<Vec<UsageRow>> {
    let mut query = book.prepare_cached("SELECT department, subsystem, command FROM series WHERE series = ?")?;
    let mut known: HashMap<u32, SeriesNames, foldhash::fast::RandomState> = HashMap::default();
    let mut usage = Vec::with_capacity(rows.len());
    for ((window, series, outcome), totals) in rows {
        let names = match known.entry(series) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(query.query_row([series], |row| series_names_from(row, 0))?),
        };
        let SeriesNames { department, subsystem, command } = names.clone();
        usage.push(UsageRow { window, department, subsystem, command, outcome, totals });
    }
    Ok(usage)
}
