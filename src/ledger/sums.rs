//! Sums of what is sealed: by calendar day and for ever, so that neither a start nor a monthly report walks through hours.
//!
//! Guarantees: grown in the transaction that seals an hour, so they are the sums of all sealed hours at every moment; outcome
//! 0 holds what was admitted. A day begins where the book's calendar says, but never before the horizon, where days take
//! the place of hours (`rollup`).

use rusqlite::{Connection, Transaction, params};

use crate::model::{CalendarOffset, Window};

/// The columns of a sum, as they grow. SQLite's integers end at 2^63 - 1, which is 292 years in nanoseconds, and a thousand
/// streams at once make that in four months: a sum that reaches it stays there.
pub(super) const GROW: &str = "commands = min(9223372036854775807, commands + excluded.commands),
    units = min(9223372036854775807, units + excluded.units),
    request_bytes = min(9223372036854775807, request_bytes + excluded.request_bytes),
    response_bytes = min(9223372036854775807, response_bytes + excluded.response_bytes),
    duration_ns = min(9223372036854775807, duration_ns + excluded.duration_ns)";

/// Adds an hour that has just been sealed.
pub(super) fn add_hour(
    transaction: &Transaction<'_>,
    (epoch, window): (u32, Window),
    calendar: CalendarOffset,
) -> rusqlite::Result<()> {
    let day = calendar.day_of(window).max(horizon(transaction)?);
    for rows in [ADMITTED_OF_HOUR, ENDED_OF_HOUR] {
        let ever = format!("INSERT INTO ever_sum SELECT {rows} ON CONFLICT DO UPDATE SET {GROW}");
        transaction.prepare_cached(&ever)?.execute(params![window.0, epoch])?;
        let of_day = format!("INSERT INTO day_sum SELECT ?3, {rows} ON CONFLICT DO UPDATE SET {GROW}");
        transaction.prepare_cached(&of_day)?.execute(params![window.0, epoch, day.0])?;
    }
    Ok(())
}

const ADMITTED_OF_HOUR: &str =
    "series, 0, admitted, units, 0, 0, 0 FROM admission WHERE \"window\" = ?1 AND epoch = ?2";
const ENDED_OF_HOUR: &str = "series, outcome, sum(commands), sum(units), sum(request_bytes), sum(response_bytes),
    sum(duration_ns) FROM usage WHERE \"window\" = ?1 AND epoch = ?2 GROUP BY series, outcome";

/// Makes the days behind the horizon anew, for another calendar.
pub(super) fn rebuild_days(transaction: &Transaction<'_>, calendar: CalendarOffset) -> rusqlite::Result<()> {
    let horizon = horizon(transaction)?;
    transaction.execute("DELETE FROM day_sum WHERE day >= ?", [horizon.0])?;
    for window in sealed_windows(transaction, horizon)? {
        let day = calendar.day_of(window).max(horizon);
        for rows in [ADMITTED_OF_WINDOW, ENDED_OF_WINDOW] {
            let of_day = format!("INSERT INTO day_sum SELECT ?2, {rows} ON CONFLICT DO UPDATE SET {GROW}");
            transaction.prepare_cached(&of_day)?.execute(params![window.0, day.0])?;
        }
    }
    Ok(())
}

/// Makes the sums for ever out of all days.
pub(super) fn rebuild_ever(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM ever_sum", [])?;
    let days = "series, outcome, commands, units, request_bytes, response_bytes, duration_ns FROM day_sum WHERE true";
    let ever = format!("INSERT INTO ever_sum SELECT {days} ON CONFLICT DO UPDATE SET {GROW}");
    transaction.execute(&ever, []).map(drop)
}

const ADMITTED_OF_WINDOW: &str = "series, 0, sum(admitted), sum(units), 0, 0, 0 FROM admission WHERE \"window\" = ?1
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

/// The first window that is still kept as an hour.
pub(super) fn horizon(book: &Connection) -> rusqlite::Result<Window> {
    book.prepare_cached("SELECT rolled_before FROM meta")?.query_row([], |row| row.get(0).map(Window))
}
