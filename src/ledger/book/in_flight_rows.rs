//! The rows of commands in flight in the book: one row per window of admission and series.
//!
//! Guarantees:
//! - An update writes only rows that differ from the book, and at most one row per slot with commands in flight.
//! - A row in which only the time has changed is written every [`TIME_WRITE_INTERVAL`]. So idle streams cause no disk
//!   writes in between.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Transaction, params};

use crate::ledger::fold::SeriesId;
use crate::ledger::values::measures::Measures;
use crate::model::Window;

/// The largest difference between a row's time and the time in the book, per command, while none of its bytes change.
const TIME_WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// Commands in flight, by window of admission and series.
pub(crate) type InFlightRows = BTreeMap<(Window, SeriesId), Measures>;

/// Replaces an epoch's rows `before` in the book by the rows `now`. Returns the rows that the book then holds.
pub(crate) fn write_in_flight(
    transaction: &Transaction<'_>,
    epoch: u32,
    (before, now): (&InFlightRows, &InFlightRows),
) -> rusqlite::Result<InFlightRows> {
    let mut rows = now.clone();
    let mut delete =
        transaction.prepare_cached("DELETE FROM in_flight WHERE \"window\" = ? AND series = ? AND epoch = ?")?;
    for (window, series) in before.keys().filter(|place| !now.contains_key(place)) {
        delete.execute(params![window.0, series.0, epoch])?;
    }
    for (place, row) in &mut rows {
        match before.get(place).filter(|written| !is_worth_writing(written, row)) {
            Some(written) => *row = *written,
            None => write_row(transaction, epoch, (*place, row))?,
        }
    }
    Ok(rows)
}

/// Writes those of the rows that the book does not have.
pub(crate) fn write_missing_rows(
    transaction: &Transaction<'_>,
    epoch: u32,
    rows: &InFlightRows,
) -> rusqlite::Result<()> {
    let query = "SELECT EXISTS (SELECT 1 FROM in_flight WHERE \"window\" = ? AND series = ? AND epoch = ?)";
    for (place, flying) in rows {
        let values = params![place.0.0, place.1.0, epoch];
        if !transaction.prepare_cached(query)?.query_row(values, |row| row.get(0))? {
            write_row(transaction, epoch, (*place, flying))?;
        }
    }
    Ok(())
}

/// Clears the rows of epochs that have ended.
pub(crate) fn clear_ended_epochs(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let delete = "DELETE FROM in_flight WHERE epoch IN (SELECT epoch FROM epoch WHERE ending IS NOT NULL)";
    transaction.execute(delete, []).map(drop)
}

fn write_row(
    transaction: &Transaction<'_>,
    epoch: u32,
    ((window, series), flying): ((Window, SeriesId), &Measures),
) -> rusqlite::Result<()> {
    let Measures { commands, units, request_bytes, response_bytes, duration_ns } = flying.to_stored();
    let values = params![window.0, series.0, epoch, commands, units, request_bytes, response_bytes, duration_ns];
    let replace = "INSERT OR REPLACE INTO in_flight VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    transaction.prepare_cached(replace)?.execute(values).map(drop)
}

fn is_worth_writing(written: &Measures, now: &Measures) -> bool {
    let every = u64::try_from(TIME_WRITE_INTERVAL.as_nanos()).unwrap_or(u64::MAX).saturating_mul(now.commands);
    let same_time = Measures { duration_ns: written.duration_ns, ..*now };
    same_time != *written || now.duration_ns.abs_diff(written.duration_ns) >= every
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: (Window, SeriesId) = (Window(7), SeriesId(0));

    fn unfinished(response_bytes: u64, seconds: u64) -> Measures {
        let duration_ns = seconds * 1_000_000_000;
        Measures { commands: 2, units: 6, response_bytes, duration_ns, ..Measures::default() }
    }

    #[test]
    fn row_is_written_on_new_bytes_and_rarely_for_its_age_alone() {
        for (response_bytes, seconds, expected) in [(5, 1, false), (5, 20, false), (6, 1, true), (5, 21, true)] {
            let written = is_worth_writing(&unfinished(5, 1), &unfinished(response_bytes, seconds));
            assert_eq!(written, expected, "{response_bytes} bytes, {seconds} s");
        }
    }

    #[test]
    fn book_lists_in_flight_commands_and_removes_ended_ones() {
        let mut book = rusqlite::Connection::open_in_memory().expect("a book");
        book.execute_batch(super::super::schema::SCHEMA).expect("its tables");
        book.pragma_update(None, "foreign_keys", "OFF").expect("rows without their epoch");
        let transaction = book.transaction().expect("a transaction");
        let number = |query: &str| -> i64 { transaction.query_row(query, [], |row| row.get(0)).expect(query) };
        let mut rows = InFlightRows::new();
        for (response_bytes, seconds, expected) in [(5, 1, 2), (5, 3, 2), (6, 4, 8), (6, 30, 60)] {
            let now = InFlightRows::from([(PLACE, unfinished(response_bytes, seconds))]);
            rows = write_in_flight(&transaction, 1, (&rows, &now)).expect("written");
            assert_eq!(number("SELECT 2 * duration_ns / 1000000000 FROM in_flight"), expected);
        }
        rows = write_in_flight(&transaction, 1, (&rows, &InFlightRows::new())).expect("written");
        assert_eq!((rows.len(), number("SELECT count(*) FROM in_flight")), (0, 0));
    }
}
