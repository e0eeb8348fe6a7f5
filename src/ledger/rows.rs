//! The rows of an epoch's hours in the book: written, read back, removed.
//!
//! Guarantees: a row carries whole sums, so writing it twice changes nothing; what is read back is what was written, or an
//! error. Leaves to `fold` what the sums are.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction, params};

use super::book::stored;
use super::canon::Numbers;
use super::fold::{Fold, Row, RowKey};
use crate::model::Window;

/// What a stored row is about: its table and, within an epoch's hour, series, outcome and how late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Admission { series: u32 },
    Usage { series: u32, outcome: u32, late: u32 },
    Waived { series: u32, late: u32 },
}

/// All rows of an epoch's hour, as they are stored.
pub(super) type StoredHour = BTreeMap<Place, Numbers>;

/// What the book is to hold of one row of a fold.
fn stored_row(key: RowKey, row: &Row) -> impl Iterator<Item = (Place, Numbers)> {
    let (series, late) = (key.series.0, key.late);
    let admitted =
        (row.admitted > 0).then(|| (Place::Admission { series }, [stored(row.admitted), stored(row.units), 0, 0, 0]));
    let waived = row.waived();
    let waived = ((waived.commands, waived.units) != (0, 0))
        .then(|| (Place::Waived { series, late }, [stored(waived.commands), stored(waived.units), 0, 0, 0]));
    let usage = row.outcomes().map(move |(outcome, totals)| {
        let numbers = [totals.commands, totals.units, totals.request_bytes, totals.response_bytes, totals.duration_ns];
        (Place::Usage { series, outcome: outcome.code(), late }, numbers.map(stored))
    });
    admitted.into_iter().chain(usage).chain(waived)
}

/// Writes rows of an epoch, and that their hours wait for a seal.
pub(super) fn write(
    transaction: &Transaction<'_>,
    epoch: u32,
    rows: impl Iterator<Item = (RowKey, Row)>,
) -> rusqlite::Result<()> {
    let mut unsealed = transaction.prepare_cached("INSERT INTO unsealed VALUES (?, ?) ON CONFLICT DO NOTHING")?;
    let mut window = None;
    for (key, row) in rows {
        if window.replace(key.window) != Some(key.window) {
            unsealed.execute(params![key.window.0, epoch])?;
        }
        for (place, numbers) in stored_row(key, &row) {
            write_one(transaction, (epoch, key.window), (place, &numbers))?;
        }
    }
    Ok(())
}

const ADMISSION: &str = "INSERT INTO admission VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET admitted = excluded.admitted, units = excluded.units";
const USAGE: &str = "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET commands = excluded.commands, units = excluded.units,
    request_bytes = excluded.request_bytes, response_bytes = excluded.response_bytes, duration_ns = excluded.duration_ns";
const WAIVED: &str = "INSERT INTO waived VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET commands = excluded.commands, units = excluded.units";

fn write_one(
    transaction: &Transaction<'_>,
    (epoch, window): (u32, Window),
    (place, [commands, units, request_bytes, response_bytes, duration_ns]): (Place, &Numbers),
) -> rusqlite::Result<()> {
    let window = window.0;
    let written = match place {
        Place::Admission { series } => {
            transaction.prepare_cached(ADMISSION)?.execute(params![window, series, epoch, commands, units])
        }
        Place::Usage { series, outcome, late } => {
            let values = params![
                window,
                series,
                outcome,
                epoch,
                late,
                commands,
                units,
                request_bytes,
                response_bytes,
                duration_ns
            ];
            transaction.prepare_cached(USAGE)?.execute(values)
        }
        Place::Waived { series, late } => {
            transaction.prepare_cached(WAIVED)?.execute(params![window, series, epoch, late, commands, units])
        }
    };
    written.map(drop)
}

/// All rows of an epoch's hour.
pub(super) fn read(book: &Connection, (epoch, window): (u32, Window)) -> rusqlite::Result<StoredHour> {
    let mut hour = StoredHour::new();
    let place = params![window.0, epoch];
    let mut query =
        book.prepare_cached("SELECT series, admitted, units FROM admission WHERE \"window\" = ? AND epoch = ?")?;
    let mut rows = query.query(place)?;
    while let Some(row) = rows.next()? {
        hour.insert(Place::Admission { series: row.get(0)? }, [row.get(1)?, row.get(2)?, 0, 0, 0]);
    }
    let mut query = book.prepare_cached(
        "SELECT series, outcome, late, commands, units, request_bytes, response_bytes, duration_ns FROM usage
         WHERE \"window\" = ? AND epoch = ?",
    )?;
    let mut rows = query.query(place)?;
    while let Some(row) = rows.next()? {
        let place = Place::Usage { series: row.get(0)?, outcome: row.get(1)?, late: row.get(2)? };
        hour.insert(place, [row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?]);
    }
    let mut query =
        book.prepare_cached("SELECT series, late, commands, units FROM waived WHERE \"window\" = ? AND epoch = ?")?;
    let mut rows = query.query(place)?;
    while let Some(row) = rows.next()? {
        hour.insert(Place::Waived { series: row.get(0)?, late: row.get(1)? }, [row.get(2)?, row.get(3)?, 0, 0, 0]);
    }
    Ok(hour)
}

/// Whether the book holds more in any hour of an epoch that waits for a seal than a fold of its tally.
pub(super) fn exceeds(book: &Connection, counted: &Fold, epoch: u32) -> rusqlite::Result<bool> {
    let (expected, nothing) = (hours_of(counted, ALL), StoredHour::new());
    for window in unsealed(book, (epoch, ALL))? {
        let expected = expected.get(&window).unwrap_or(&nothing);
        let is_more = |(place, held): (&Place, &Numbers)| {
            let counted = expected.get(place).copied().unwrap_or_default();
            held.iter().zip(counted).any(|(held, counted)| *held > counted)
        };
        if read(book, (epoch, window))?.iter().any(is_more) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes what a fold has more of than the book, number by number; nothing of the book becomes less.
pub(super) fn write_larger(transaction: &Transaction<'_>, counted: &Fold, epoch: u32) -> rusqlite::Result<()> {
    for (window, hour) in hours_of(counted, ALL) {
        let held = read(transaction, (epoch, window))?;
        let insert = "INSERT INTO unsealed VALUES (?, ?) ON CONFLICT DO NOTHING";
        transaction.prepare_cached(insert)?.execute(params![window.0, epoch])?;
        for (place, mut numbers) in hour {
            let held = held.get(&place).copied().unwrap_or_default();
            numbers.iter_mut().zip(held).for_each(|(number, held)| *number = held.max(*number));
            write_one(transaction, (epoch, window), (place, &numbers))?;
        }
    }
    Ok(())
}

/// What a fold says of the hours before `before` that are not sealed, as it is stored.
pub(super) fn hours_of(fold: &Fold, before: Window) -> BTreeMap<Window, StoredHour> {
    let mut hours: BTreeMap<_, StoredHour> = BTreeMap::new();
    for (key, row) in fold.rows_before(before) {
        hours.entry(key.window).or_default().extend(stored_row(key, &row));
    }
    hours
}

const ALL: Window = Window(u32::MAX);

/// Removes all rows of an epoch's hour.
pub(super) fn remove(transaction: &Transaction<'_>, (epoch, window): (u32, Window)) -> rusqlite::Result<()> {
    for table in ["admission", "usage", "waived"] {
        let delete = format!("DELETE FROM {table} WHERE \"window\" = ? AND epoch = ?");
        transaction.prepare_cached(&delete)?.execute(params![window.0, epoch])?;
    }
    Ok(())
}

/// The hours of an epoch that wait for a seal, before `before`.
pub(super) fn unsealed(book: &Connection, (epoch, before): (u32, Window)) -> rusqlite::Result<Vec<Window>> {
    let query = "SELECT \"window\" FROM unsealed WHERE epoch = ? AND \"window\" < ? ORDER BY 1";
    let mut query = book.prepare_cached(query)?;
    query.query_map(params![epoch, before.0], |row| row.get(0).map(Window))?.collect()
}
