//! Which hours of a book are sealed, those without usage included.
//!
//! A seal exists only for an hour with rows. An hour without rows is sealed when nothing can be counted into it any
//! more: all workers have left it, and the gateway that keeps the book has recorded that this time has passed.
//!
//! Guarantees: the range only grows, unless a gateway starts with a clock that was set back.

use std::ops::Range;

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;

use crate::ledger::keeper::first_open_window;
use crate::model::Window;

/// The longest time until every worker has acknowledged the end of an hour, and its last fold is in the book, after
/// the keeper has requested the seal. Workers acknowledge ten times a second; the keeper folds once a second.
const ACKNOWLEDGE_TIME: SignedDuration = SignedDuration::from_secs(5);

/// The times of all epochs together.
#[derive(Debug, Default)]
struct EpochTimes {
    begins: Option<Timestamp>,
    /// The earliest last sync of the epochs that have not ended.
    open_synced: Option<Timestamp>,
    /// The end of the last epoch that has ended.
    ended: Option<Timestamp>,
}

/// Returns the sealed hours: from the hour of the first start, or from the beginning of the first compacted day, up to
/// the first hour that is not sealed.
pub(super) fn sealed_range(book: &Connection) -> rusqlite::Result<Range<Window>> {
    let times = read_times(book)?;
    let settled = times.open_synced.map(|synced| synced - ACKNOWLEDGE_TIME).or(times.ended);
    let (Some(begins), Some(settled)) = (times.begins, settled) else { return Ok(Window(0)..Window(0)) };
    // Rows of an epoch that has ended wait for their seal until the next start.
    let waiting: Option<u32> = book.query_row("SELECT min(\"window\") FROM unsealed", [], |row| row.get(0))?;
    let day = "SELECT min(day) FROM day_sum WHERE day < (SELECT rolled_before FROM meta)";
    let first_day: Option<u32> = book.query_row(day, [], |row| row.get(0))?;
    let begins = Window::of_unix_seconds(begins.as_second());
    let first = begins.min(first_day.map_or(begins, Window));
    let settled = first_open_window(settled);
    Ok(first..settled.min(waiting.map_or(settled, Window)).max(first))
}

fn read_times(book: &Connection) -> rusqlite::Result<EpochTimes> {
    let mut query = book.prepare("SELECT started_at, last_sync_at, ended_at, ending FROM epoch")?;
    let mut rows = query.query([])?;
    let mut times = EpochTimes::default();
    while let Some(row) = rows.next()? {
        let (started, synced) = (moment(row, 0)?, moment(row, 1)?);
        times.begins = Some(times.begins.map_or(started, |begins| begins.min(started)));
        match row.get_ref(3)?.as_str_or_null()? {
            None => times.open_synced = Some(times.open_synced.map_or(synced, |open| open.min(synced))),
            Some(ending) => {
                let end = if ending == "clean" { moment(row, 2)? } else { synced };
                times.ended = times.ended.max(Some(end));
            }
        }
    }
    Ok(times)
}

/// Reads a time of the book. A text that is no time is an error.
fn moment(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error: jiff::Error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
    })
}
