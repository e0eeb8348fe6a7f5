//! Sums of sealed hours: per calendar day and in total, so that neither a start nor a monthly report reads all hours.
//!
//! Guarantees:
//! - The sums grow in the transaction that seals the hours, so they are the sums of all sealed hours at every moment.
//! - Outcome 0 holds the admitted commands.
//! - Hours sealed together are added up first, so a gateway that was down for a day, or is behind, writes each sum
//!   once.
//! - A day begins where the book's calendar sets it, but never before the horizon, where days replace hours
//!   (`compaction`).

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction, params};

use crate::ledger::values::measures::{Measures, StoredMeasures};
use crate::model::{CalendarOffset, Window};

/// The columns of a sum, with saturating addition. SQLite's integers end at 2^63 - 1, which is 292 years in
/// nanoseconds. A thousand concurrent streams reach that in four months; the sum then stays there.
pub(crate) const ADD_TO_SUMS: &str = "commands = min(9223372036854775807, commands + excluded.commands),
    units = min(9223372036854775807, units + excluded.units),
    request_bytes = min(9223372036854775807, request_bytes + excluded.request_bytes),
    response_bytes = min(9223372036854775807, response_bytes + excluded.response_bytes),
    duration_ns = min(9223372036854775807, duration_ns + excluded.duration_ns)";

/// Sums by series and outcome.
type SumRows = BTreeMap<(u32, u32), StoredMeasures>;

/// The growth of the sums by the hours that one transaction seals.
#[derive(Debug)]
pub(crate) struct SumDelta {
    calendar: CalendarOffset,
    horizon: Window,
    days: BTreeMap<Window, SumRows>,
}

impl SumDelta {
    pub(crate) fn new(transaction: &Transaction<'_>, calendar: CalendarOffset) -> rusqlite::Result<Self> {
        Ok(Self { calendar, horizon: compacted_before(transaction)?, days: BTreeMap::new() })
    }

    /// Adds an hour that was just sealed.
    pub(crate) fn add_hour(
        &mut self,
        transaction: &Transaction<'_>,
        (epoch, window): (u32, Window),
    ) -> rusqlite::Result<()> {
        let rows = self.days.entry(self.calendar.day_of(window).max(self.horizon)).or_default();
        for query in [ADMITTED_OF_HOUR, ENDED_OF_HOUR, WAIVED_OF_HOUR] {
            let mut query = transaction.prepare_cached(query)?;
            let mut found = query.query(params![window.0, epoch])?;
            while let Some(row) = found.next()? {
                add_row(rows, (row.get(0)?, row.get(1)?), StoredMeasures::from_row(row, 2)?);
            }
        }
        Ok(())
    }

    /// Adds the growth to the sums in the book.
    pub(crate) fn apply(self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut ever = SumRows::new();
        for (day, rows) in &self.days {
            add_to_sums(transaction, "day_sum VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", Some(*day), rows)?;
            rows.iter().for_each(|(key, numbers)| add_row(&mut ever, *key, *numbers));
        }
        add_to_sums(transaction, "ever_sum VALUES (?2, ?3, ?4, ?5, ?6, ?7, ?8)", None, &ever)
    }
}

fn add_to_sums(transaction: &Transaction<'_>, into: &str, day: Option<Window>, rows: &SumRows) -> rusqlite::Result<()> {
    let mut upsert =
        transaction.prepare_cached(&format!("INSERT INTO {into} ON CONFLICT DO UPDATE SET {ADD_TO_SUMS}"))?;
    for ((series, outcome), numbers) in rows {
        let Measures { commands, units, request_bytes, response_bytes, duration_ns } = numbers;
        let day = day.map(|day| day.0);
        upsert.execute(params![day, series, outcome, commands, units, request_bytes, response_bytes, duration_ns])?;
    }
    Ok(())
}

fn add_row(rows: &mut SumRows, key: (u32, u32), more: StoredMeasures) {
    let sum = rows.entry(key).or_default();
    *sum = sum.zip(more, i64::saturating_add);
}

const ADMITTED_OF_HOUR: &str =
    "SELECT series, 0, admitted, units, 0, 0, 0 FROM admission WHERE \"window\" = ?1 AND epoch = ?2";
const ENDED_OF_HOUR: &str = "SELECT series, outcome, commands, units, request_bytes, response_bytes, duration_ns
    FROM usage WHERE \"window\" = ?1 AND epoch = ?2";
const WAIVED_OF_HOUR: &str =
    "SELECT series, 100, commands, units, 0, 0, 0 FROM waived WHERE \"window\" = ?1 AND epoch = ?2";

/// Recomputes the days after the horizon, for another calendar.
pub(crate) fn rebuild_day_sums(transaction: &Transaction<'_>, calendar: CalendarOffset) -> rusqlite::Result<()> {
    let compacted_before = compacted_before(transaction)?;
    transaction.execute("DELETE FROM day_sum WHERE day >= ?", [compacted_before.0])?;
    for window in sealed_windows(transaction, compacted_before)? {
        let day = calendar.day_of(window).max(compacted_before);
        for rows in [ADMITTED_OF_WINDOW, ENDED_OF_WINDOW, WAIVED_OF_WINDOW] {
            let of_day = format!("INSERT INTO day_sum SELECT ?2, {rows} ON CONFLICT DO UPDATE SET {ADD_TO_SUMS}");
            transaction.prepare_cached(&of_day)?.execute(params![window.0, day.0])?;
        }
    }
    Ok(())
}

/// Recomputes the total sums from all days.
pub(crate) fn rebuild_total_sums(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM ever_sum", [])?;
    let days = "series, outcome, commands, units, request_bytes, response_bytes, duration_ns FROM day_sum WHERE true";
    let ever = format!("INSERT INTO ever_sum SELECT {days} ON CONFLICT DO UPDATE SET {ADD_TO_SUMS}");
    transaction.execute(&ever, []).map(drop)
}

const ADMITTED_OF_WINDOW: &str = "series, 0, sum(admitted), sum(units), 0, 0, 0 FROM admission WHERE \"window\" = ?1
    AND (\"window\", epoch) NOT IN (SELECT \"window\", epoch FROM unsealed) GROUP BY series";
const WAIVED_OF_WINDOW: &str = "series, 100, sum(commands), sum(units), 0, 0, 0 FROM waived WHERE \"window\" = ?1
    AND (\"window\", epoch) NOT IN (SELECT \"window\", epoch FROM unsealed) GROUP BY series";
const ENDED_OF_WINDOW: &str = "series, outcome, sum(commands), sum(units), sum(request_bytes), sum(response_bytes),
    sum(duration_ns) FROM usage WHERE \"window\" = ?1
    AND (\"window\", epoch) NOT IN (SELECT \"window\", epoch FROM unsealed) GROUP BY series, outcome";

fn sealed_windows(transaction: &Transaction<'_>, from: Window) -> rusqlite::Result<Vec<Window>> {
    let query = "SELECT DISTINCT \"window\" FROM seal WHERE kind = 'hour' AND \"window\" >= ? ORDER BY 1";
    let mut query = transaction.prepare(query)?;
    let rows = query.query_map([from.0], |row| row.get(0).map(Window))?;
    rows.collect()
}

/// Returns the first window that is still kept as an hour.
pub(crate) fn compacted_before(book: &Connection) -> rusqlite::Result<Window> {
    book.prepare_cached("SELECT rolled_before FROM meta")?.query_row([], |row| row.get(0).map(Window))
}
