//! The rows of an epoch's hours in the book: write, read and remove.
//!
//! Guarantees:
//! - A row carries whole sums, so writing a row twice changes nothing (idempotent).
//! - A read returns the values that were written, or an error.
//!
//! Leaves to `fold`: the meaning of the sums.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction, params};

use crate::ledger::fold::{FoldRow, FoldRowKey, TallyFold};
use crate::ledger::values::measures::{Measures, StoredMeasures, UsageSums};
use crate::model::Window;

/// The key of a stored row: its table, and within an epoch's hour the series, the outcome and the hours late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StoredRowKey {
    Admission { series: u32 },
    Usage { series: u32, outcome: u32, late: u32 },
    Waived { series: u32, late: u32 },
}

/// All rows of an epoch's hour, as stored.
pub(crate) type StoredHour = BTreeMap<StoredRowKey, StoredMeasures>;

/// Returns the rows that the book holds for one row of a fold.
fn stored_rows_of(key: FoldRowKey, row: &FoldRow) -> impl Iterator<Item = (StoredRowKey, StoredMeasures)> {
    let (series, late) = (key.series.0, key.late);
    let stored = |sums: UsageSums| {
        let [commands, units] = sums.to_stored();
        StoredMeasures { commands, units, ..StoredMeasures::default() }
    };
    let admitted = (row.admitted.commands > 0).then(|| (StoredRowKey::Admission { series }, stored(row.admitted)));
    let waived = Some(row.waived()).filter(|waived| *waived != UsageSums::default());
    let waived = waived.map(|waived| (StoredRowKey::Waived { series, late }, stored(waived)));
    let usage = row.outcomes().map(move |(outcome, totals)| {
        (StoredRowKey::Usage { series, outcome: outcome.code(), late }, totals.to_stored())
    });
    admitted.into_iter().chain(usage).chain(waived)
}

/// Writes rows of an epoch, and marks their hours as waiting for a seal.
pub(crate) fn write_hour_rows(
    transaction: &Transaction<'_>,
    epoch: u32,
    rows: impl Iterator<Item = (FoldRowKey, FoldRow)>,
) -> rusqlite::Result<()> {
    let mut unsealed = transaction.prepare_cached("INSERT INTO unsealed VALUES (?, ?) ON CONFLICT DO NOTHING")?;
    let mut window = None;
    for (key, row) in rows {
        if window.replace(key.window) != Some(key.window) {
            unsealed.execute(params![key.window.0, epoch])?;
        }
        for (place, numbers) in stored_rows_of(key, &row) {
            write_row(transaction, (epoch, key.window), (place, &numbers))?;
        }
    }
    Ok(())
}

const INSERT_ADMISSION: &str = "INSERT INTO admission VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET admitted = excluded.admitted, units = excluded.units";
const INSERT_USAGE: &str = "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET commands = excluded.commands, units = excluded.units,
    request_bytes = excluded.request_bytes, response_bytes = excluded.response_bytes, duration_ns = excluded.duration_ns";
const INSERT_WAIVED: &str = "INSERT INTO waived VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET commands = excluded.commands, units = excluded.units";

fn write_row(
    transaction: &Transaction<'_>,
    (epoch, window): (u32, Window),
    (place, numbers): (StoredRowKey, &StoredMeasures),
) -> rusqlite::Result<()> {
    let (window, Measures { commands, units, request_bytes, response_bytes, duration_ns }) = (window.0, numbers);
    let written = match place {
        StoredRowKey::Admission { series } => {
            transaction.prepare_cached(INSERT_ADMISSION)?.execute(params![window, series, epoch, commands, units])
        }
        StoredRowKey::Usage { series, outcome, late } => {
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
            transaction.prepare_cached(INSERT_USAGE)?.execute(values)
        }
        StoredRowKey::Waived { series, late } => {
            transaction.prepare_cached(INSERT_WAIVED)?.execute(params![window, series, epoch, late, commands, units])
        }
    };
    written.map(drop)
}

/// Reads all rows of an epoch's hour.
pub(crate) fn read_hour(book: &Connection, (epoch, window): (u32, Window)) -> rusqlite::Result<StoredHour> {
    let mut hour = StoredHour::new();
    let place = params![window.0, epoch];
    let mut query = book
        .prepare_cached("SELECT series, admitted, units, 0, 0, 0 FROM admission WHERE \"window\" = ? AND epoch = ?")?;
    let mut rows = query.query(place)?;
    while let Some(row) = rows.next()? {
        hour.insert(StoredRowKey::Admission { series: row.get(0)? }, StoredMeasures::from_row(row, 1)?);
    }
    let mut query = book.prepare_cached(
        "SELECT series, outcome, late, commands, units, request_bytes, response_bytes, duration_ns FROM usage
         WHERE \"window\" = ? AND epoch = ?",
    )?;
    let mut rows = query.query(place)?;
    while let Some(row) = rows.next()? {
        let place = StoredRowKey::Usage { series: row.get(0)?, outcome: row.get(1)?, late: row.get(2)? };
        hour.insert(place, StoredMeasures::from_row(row, 3)?);
    }
    let mut query = book.prepare_cached(
        "SELECT series, late, commands, units, 0, 0, 0 FROM waived WHERE \"window\" = ? AND epoch = ?",
    )?;
    let mut rows = query.query(place)?;
    while let Some(row) = rows.next()? {
        let place = StoredRowKey::Waived { series: row.get(0)?, late: row.get(1)? };
        hour.insert(place, StoredMeasures::from_row(row, 2)?);
    }
    Ok(hour)
}

/// Returns whether the book holds more than a fold of the tally, in any unsealed hour of an epoch.
pub(crate) fn exceeds_fold(book: &Connection, counted: &TallyFold, epoch: u32) -> rusqlite::Result<bool> {
    let (expected, nothing) = (unsealed_hours_of(counted, ALL_WINDOWS), StoredHour::new());
    for window in unsealed_windows(book, (epoch, ALL_WINDOWS))? {
        let expected = expected.get(&window).unwrap_or(&nothing);
        let is_more = |(place, held): (&StoredRowKey, &StoredMeasures)| {
            let counted = expected.get(place).copied().unwrap_or_default();
            held.zip(counted, |held, counted| held > counted).as_array().contains(&true)
        };
        if read_hour(book, (epoch, window))?.iter().any(is_more) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes the numbers of a fold that are larger than those of the book; no number of the book becomes smaller.
pub(crate) fn write_larger_rows(
    transaction: &Transaction<'_>,
    counted: &TallyFold,
    epoch: u32,
) -> rusqlite::Result<()> {
    for (window, hour) in unsealed_hours_of(counted, ALL_WINDOWS) {
        let held = read_hour(transaction, (epoch, window))?;
        let insert = "INSERT INTO unsealed VALUES (?, ?) ON CONFLICT DO NOTHING";
        transaction.prepare_cached(insert)?.execute(params![window.0, epoch])?;
        for (place, numbers) in hour {
            let numbers = numbers.zip(held.get(&place).copied().unwrap_or_default(), i64::max);
            write_row(transaction, (epoch, window), (place, &numbers))?;
        }
    }
    Ok(())
}

/// Returns the unsealed hours of a fold before the window `before`, in stored form.
pub(crate) fn unsealed_hours_of(fold: &TallyFold, before: Window) -> BTreeMap<Window, StoredHour> {
    let mut hours: BTreeMap<_, StoredHour> = BTreeMap::new();
    for (key, row) in fold.rows_before(before) {
        hours.entry(key.window).or_default().extend(stored_rows_of(key, &row));
    }
    hours
}

const ALL_WINDOWS: Window = Window(u32::MAX);

/// Removes all rows of an epoch's hour.
pub(crate) fn remove_hour(transaction: &Transaction<'_>, (epoch, window): (u32, Window)) -> rusqlite::Result<()> {
    for table in ["admission", "usage", "waived"] {
        let delete = format!("DELETE FROM {table} WHERE \"window\" = ? AND epoch = ?");
        transaction.prepare_cached(&delete)?.execute(params![window.0, epoch])?;
    }
    Ok(())
}

/// Returns the unsealed hours of an epoch before the window `before`.
pub(crate) fn unsealed_windows(book: &Connection, (epoch, before): (u32, Window)) -> rusqlite::Result<Vec<Window>> {
    let query = "SELECT \"window\" FROM unsealed WHERE epoch = ? AND \"window\" < ? ORDER BY 1";
    let mut query = book.prepare_cached(query)?;
    query.query_map(params![epoch, before.0], |row| row.get(0).map(Window))?.collect()
}
