//! Ends orphaned epochs: epochs in the book whose tally is gone.
//!
//! Guarantees:
//! - Commands that the last fold found in flight become `interrupted`. So admitted = ended holds for these epochs too,
//!   as of that fold.
//! - Counts after that fold are unknown; the ending `tally missing` records this.

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

use crate::model::{Finished, Outcome, Window};

use super::book_reader::first_unsealed_window;
use super::day_sums::ADD_TO_SUMS;
use super::epoch_end::{EpochEnding, fallback_window};

/// Ends every epoch that has not ended. Returns their number.
pub(crate) fn end_orphaned_epochs(transaction: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<usize> {
    let lost = epochs_without_ending(transaction)?;
    for lost in &lost {
        end_epoch(transaction, *lost, now)?;
    }
    super::in_flight_rows::clear_ended_epochs(transaction)?;
    Ok(lost.len())
}

/// Ends an epoch whose rows were raised above the last fold: commands in flight = admitted - ended.
pub(crate) fn end_recounted_epoch(transaction: &Transaction<'_>, epoch: u32, now: Timestamp) -> rusqlite::Result<()> {
    recount_in_flight(transaction, epoch)?;
    for lost in epochs_without_ending(transaction)?.into_iter().filter(|(lost, _)| *lost == epoch) {
        end_epoch(transaction, lost, now)?;
    }
    super::in_flight_rows::clear_ended_epochs(transaction)
}

fn end_epoch(
    transaction: &Transaction<'_>,
    (epoch, synced_at): (u32, Timestamp),
    now: Timestamp,
) -> rusqlite::Result<()> {
    interrupt_in_flight(transaction, epoch, synced_at)?;
    EpochEnding::TallyMissing.record(transaction, epoch, now)
}

/// Sets the commands and units of `in_flight` to admitted - ended, in the hours that may have commands in flight. Bytes
/// and time keep their last values.
fn recount_in_flight(transaction: &Transaction<'_>, epoch: u32) -> rusqlite::Result<()> {
    for (window, series, [commands, units]) in unended_rows(transaction, epoch)? {
        let place = params![window.0, series, epoch, commands, units.max(0)];
        match commands > 0 {
            true => transaction.prepare_cached(INSERT_IN_FLIGHT)?.execute(place)?,
            false => transaction.prepare_cached(DELETE_IN_FLIGHT)?.execute(params![window.0, series, epoch])?,
        };
    }
    Ok(())
}

const INSERT_IN_FLIGHT: &str = "INSERT INTO in_flight VALUES (?, ?, ?, ?, ?, 0, 0, 0)
    ON CONFLICT DO UPDATE SET commands = excluded.commands, units = excluded.units";
const DELETE_IN_FLIGHT: &str = "DELETE FROM in_flight WHERE \"window\" = ? AND series = ? AND epoch = ?";

/// Hour of admission, series, commands and units.
type UnendedRows = Vec<(Window, u32, [i64; 2])>;

fn unended_rows(book: &Connection, epoch: u32) -> rusqlite::Result<UnendedRows> {
    let mut query = book.prepare_cached(SELECT_UNENDED)?;
    let rows = query.query_map([epoch], |row| Ok((Window(row.get(0)?), row.get(1)?, [row.get(2)?, row.get(3)?])))?;
    rows.collect()
}

/// Covers the unsealed hours and the hours with rows in flight. The row of an end contains its hour of admission.
const SELECT_UNENDED: &str = "WITH hours AS (
        SELECT \"window\" FROM unsealed WHERE epoch = ?1 UNION SELECT \"window\" FROM in_flight WHERE epoch = ?1),
    ends AS (
        SELECT \"window\" - late AS \"window\", series, commands, units FROM usage
        WHERE epoch = ?1 AND outcome < 101 AND \"window\" >= (SELECT min(\"window\") FROM hours)
        UNION ALL
        SELECT \"window\" - late, series, 0, units FROM waived
        WHERE epoch = ?1 AND \"window\" >= (SELECT min(\"window\") FROM hours)),
    sums AS (SELECT \"window\", series, sum(commands) AS commands, sum(units) AS units FROM ends GROUP BY 1, 2)
    SELECT admission.\"window\", admission.series, admission.admitted - coalesce(sums.commands, 0),
           admission.units - coalesce(sums.units, 0)
    FROM admission LEFT JOIN sums ON sums.\"window\" = admission.\"window\" AND sums.series = admission.series
    WHERE admission.epoch = ?1 AND admission.\"window\" IN (SELECT \"window\" FROM hours)";

fn epochs_without_ending(book: &Connection) -> rusqlite::Result<Vec<(u32, Timestamp)>> {
    let mut query = book.prepare("SELECT epoch, last_sync_at FROM epoch WHERE ending IS NULL")?;
    let lost = query.query_map([], |row| {
        let synced_at: String = row.get(1)?;
        Ok((row.get(0)?, synced_at.parse().unwrap_or_default()))
    })?;
    lost.collect()
}

/// Moves commands in flight to `interrupted`: in the hour of their admission or, if that hour is sealed, in the epoch's
/// last hour.
fn interrupt_in_flight(transaction: &Transaction<'_>, epoch: u32, synced_at: Timestamp) -> rusqlite::Result<()> {
    let floor = first_unsealed_window(transaction, epoch)?;
    for window in windows_in_flight(transaction, epoch)? {
        let place = if window < floor { fallback_window(synced_at, floor) } else { window };
        let late = place.0.saturating_sub(window.0);
        let values = params![place.0, Outcome::Finished(Finished::Interrupted).code(), late, window.0, epoch];
        // A graceful shutdown may have interrupted some already.
        let grow = format!("{INSERT_INTERRUPTED} ON CONFLICT DO UPDATE SET {ADD_TO_SUMS}");
        transaction.prepare_cached(&grow)?.execute(values)?;
        let unsealed = "INSERT INTO unsealed VALUES (?, ?) ON CONFLICT DO NOTHING";
        transaction.prepare_cached(unsealed)?.execute(params![place.0, epoch])?;
    }
    Ok(())
}

const INSERT_INTERRUPTED: &str = "INSERT INTO usage
    SELECT ?1, series, ?2, epoch, ?3, commands, units, request_bytes, response_bytes, duration_ns
    FROM in_flight WHERE \"window\" = ?4 AND epoch = ?5 AND commands > 0";

fn windows_in_flight(book: &Connection, epoch: u32) -> rusqlite::Result<Vec<Window>> {
    let mut query = book.prepare("SELECT DISTINCT \"window\" FROM in_flight WHERE epoch = ?")?;
    let windows = query.query_map([epoch], |row| row.get(0).map(Window))?;
    windows.collect()
}
