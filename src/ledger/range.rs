//! Usage of a range of windows, read from the book as fine as it is asked for.
//!
//! Guarantees: the same sums at every grain. Hours are read only where a range cuts a day or where they are not sealed; days of
//! which only sums are left are read whole, and a range that cuts one is refused.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use rusqlite::{Connection, params};

use super::error::LedgerError;
use super::fold::SeriesNames;
use super::pages::{Pages, name_of, names_of, outcome_of, totals_of};
use super::totals::{DepartmentUse, OutcomeTotals, UsageRow, UseSums};
use crate::model::{CalendarOffset, Name, Outcome, Window};

/// How fine the rows of usage are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// A row for each hour. Days whose hours are forgotten are rows of their first window all the same.
    Hour,
    /// Whole days are rows of their first window: a month is thirty days, not 720 hours.
    Day,
    /// All of the range is one row of its first window.
    Whole,
}

impl Grain {
    /// The window under which a row of `range` is shown.
    pub(super) fn shown(self, window: Window, range: &Range<Window>) -> Window {
        if self == Self::Whole { range.start } else { window }
    }
}

/// Which rows are asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) windows: Range<Window>,
    pub(super) grain: Grain,
    /// An epoch whose rows from a window on are left out: somebody else has them.
    pub(super) except: (u32, Window),
}

/// Window, series, outcome: what makes a row.
type Place = (Window, u32, Outcome);

/// Rows as they are found, or their sums.
#[derive(Debug)]
enum Found {
    Each(Vec<(Place, OutcomeTotals)>),
    Summed { start: Window, sums: HashMap<Place, OutcomeTotals, foldhash::fast::RandomState> },
}

/// Takes rows as they are read.
trait RowSink {
    /// One row of the book.
    fn add(&mut self, place: Place, totals: OutcomeTotals);
}

/// Sums by department: no more memory than a number for each series.
#[derive(Debug, Default)]
struct DepartmentSums {
    /// Positions in `sums`, by series.
    positions: HashMap<u32, usize, foldhash::fast::RandomState>,
    sums: Vec<UseSums>,
}

impl RowSink for DepartmentSums {
    fn add(&mut self, (_, series, _): Place, totals: OutcomeTotals) {
        if let Some(position) = self.positions.get(&series) {
            self.sums[*position].add(totals.commands, totals.units);
        }
    }
}

impl Found {
    fn new(asked: &Asked) -> Self {
        match asked.grain {
            Grain::Hour | Grain::Day => Self::Each(Vec::new()),
            Grain::Whole => Self::Summed { start: asked.windows.start, sums: HashMap::default() },
        }
    }

    fn into_rows(self) -> Vec<(Place, OutcomeTotals)> {
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

impl RowSink for Found {
    fn add(&mut self, (window, series, outcome): Place, totals: OutcomeTotals) {
        match self {
            Self::Each(rows) => rows.push(((window, series, outcome), totals)),
            Self::Summed { start, sums } => sums.entry((*start, series, outcome)).or_default().add(&totals),
        }
    }
}

impl Pages<'_> {
    /// The rows that are asked for, summed over epochs.
    pub(super) fn usage(&self, asked: &Asked) -> Result<Vec<UsageRow>, LedgerError> {
        let mut found = Found::new(asked);
        self.find(asked, &mut found)?;
        named(self.connection, found.into_rows()).map_err(|error| self.failed(error))
    }

    /// What departments used, summed over epochs; none that used nothing.
    pub(super) fn department_use(&self, asked: &Asked) -> Result<DepartmentUse, LedgerError> {
        let (names, mut found) = departments(self.connection).map_err(|error| self.failed(error))?;
        self.find(asked, &mut found)?;
        let uses = names.into_iter().zip(found.sums);
        Ok(uses.filter(|(_, sums)| *sums != UseSums::default()).collect())
    }

    /// Hands all rows that are asked for to `found`.
    fn find(&self, asked: &Asked, found: &mut impl RowSink) -> Result<(), LedgerError> {
        let horizon = self.horizon()?;
        self.refuse_cuts(&asked.windows, horizon)?;
        let calendar = self.calendar()?;
        self.read_all(asked, (calendar, horizon), found).map_err(|error| self.failed(error))
    }

    fn read_all(
        &self,
        asked: &Asked,
        (calendar, horizon): (CalendarOffset, Window),
        found: &mut impl RowSink,
    ) -> rusqlite::Result<()> {
        let Asked { windows, grain, except } = asked;
        let kept = windows.start.max(horizon)..windows.end.max(horizon);
        let days = match grain {
            Grain::Hour => kept.start..kept.start,
            Grain::Day | Grain::Whole => whole_days(calendar, &kept, horizon),
        };
        for days in [windows.start..windows.end.min(horizon), days.clone()] {
            self.read(DAYS, params![days.start.0, days.end.0], found)?;
        }
        self.read(OPEN_HOURS, params![days.start.0, days.end.0, except.0, except.1.0], found)?;
        for edge in [kept.start..days.start.min(kept.end), days.end.max(kept.start)..kept.end] {
            if edge.start < edge.end {
                self.read(HOURS, params![edge.start.0, edge.end.0, except.0, except.1.0], found)?;
            }
        }
        Ok(())
    }

    fn read(&self, query: &str, values: &[&dyn rusqlite::ToSql], found: &mut impl RowSink) -> rusqlite::Result<()> {
        let mut query = self.connection.prepare_cached(query)?;
        let mut rows = query.query(values)?;
        while let Some(row) = rows.next()? {
            found.add((Window(row.get(0)?), row.get(1)?, outcome_of(row, 2)?), totals_of(row, 3)?);
        }
        Ok(())
    }

    fn refuse_cuts(&self, windows: &Range<Window>, horizon: Window) -> Result<(), LedgerError> {
        for edge in [windows.start, windows.end].into_iter().filter(|edge| *edge < horizon) {
            if let Some(day) = day_cut_at(self.connection, edge).map_err(|error| self.failed(error))? {
                return Err(LedgerError::CutsDay { day, before: horizon });
            }
        }
        Ok(())
    }
}

/// The day, one of which only the sums are left, that `edge` lies within. A day is shorter than 24 hours where the calendar
/// changed: then the next one begins at the edge.
fn day_cut_at(book: &Connection, edge: Window) -> rusqlite::Result<Option<Window>> {
    let query = "SELECT max(day) FROM day_sum WHERE day < ?1 AND day + 24 > ?1
                 AND NOT EXISTS (SELECT 1 FROM day_sum WHERE day = ?1)";
    book.query_row(query, [edge.0], |row| row.get::<_, Option<u32>>(0)).map(|day| day.map(Window))
}

const HOURS: &str = "SELECT \"window\", series, outcome, sum(commands), sum(units), sum(request_bytes),
        sum(response_bytes), sum(duration_ns)
    FROM usage WHERE \"window\" >= ?1 AND \"window\" < ?2 AND NOT (epoch = ?3 AND \"window\" >= ?4)
    GROUP BY \"window\", series, outcome";
/// `CROSS JOIN` has SQLite begin with the few hours that are not sealed, rather than walk through all of the range.
pub(super) const OPEN_HOURS: &str = "SELECT \"window\", series, outcome, sum(commands), sum(units), sum(request_bytes),
        sum(response_bytes), sum(duration_ns)
    FROM unsealed CROSS JOIN usage USING (\"window\", epoch)
    WHERE \"window\" >= ?1 AND \"window\" < ?2 AND NOT (epoch = ?3 AND \"window\" >= ?4)
    GROUP BY \"window\", series, outcome";
const DAYS: &str = "SELECT day, series, outcome, commands, units, request_bytes, response_bytes, duration_ns
    FROM day_sum WHERE day >= ?1 AND day < ?2 AND outcome NOT IN (0, 100)";

/// The days that lie wholly in a range; the first day of all may begin at the horizon. Empty where there is none.
fn whole_days(calendar: CalendarOffset, windows: &Range<Window>, horizon: Window) -> Range<Window> {
    let begins = windows.start == horizon || calendar.day_of(windows.start) == windows.start;
    let first = if begins { windows.start } else { Window(calendar.day_of(windows.start).0.saturating_add(24)) };
    first..calendar.day_of(windows.end).max(first)
}

/// Every department that has a series, and sums of nothing for each.
fn departments(book: &Connection) -> rusqlite::Result<(Vec<Name>, DepartmentSums)> {
    let (mut names, mut found) = (Vec::new(), DepartmentSums::default());
    let mut query = book.prepare_cached("SELECT series, department FROM series ORDER BY department")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let name = name_of(row, 1)?;
        if names.last() != Some(&name) {
            names.push(name);
        }
        found.positions.insert(row.get(0)?, names.len() - 1);
    }
    found.sums = vec![UseSums::default(); names.len()];
    Ok((names, found))
}

/// Rows with the names of their series, each of which is read once.
fn named(book: &Connection, rows: Vec<(Place, OutcomeTotals)>) -> rusqlite::Result<Vec<UsageRow>> {
    let mut query = book.prepare_cached("SELECT department, subsystem, command FROM series WHERE series = ?")?;
    let mut known: HashMap<u32, SeriesNames, foldhash::fast::RandomState> = HashMap::default();
    let mut usage = Vec::with_capacity(rows.len());
    for ((window, series, outcome), totals) in rows {
        let names = match known.entry(series) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(query.query_row([series], |row| names_of(row, 0))?),
        };
        let SeriesNames { department, subsystem, command } = names.clone();
        usage.push(UsageRow { window, department, subsystem, command, outcome, totals });
    }
    Ok(usage)
}
