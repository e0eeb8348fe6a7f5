//! Ends epochs of which nothing is left but the book: their tally is gone.
//!
//! Guarantees: what the last fold found in flight becomes `interrupted`, so that admitted = ended holds for these epochs
//! too, as of that fold. What was counted after it is not known; the ending `tally missing` says so.

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

use super::ending::Ending;
use super::pages::floor_of;
use super::recover::instead;
use super::sums::GROW;
use crate::model::{Finished, Outcome, Window};

/// Ends every epoch that has not ended; returns how many there were.
pub(super) fn end_lost_epochs(transaction: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<usize> {
    let lost = without_ending(transaction)?;
    for (epoch, synced_at) in &lost {
        interrupt(transaction, *epoch, *synced_at)?;
        Ending::TallyMissing.write(transaction, *epoch, now)?;
    }
    super::in_flight::clear_ended(transaction)?;
    Ok(lost.len())
}

fn without_ending(book: &Connection) -> rusqlite::Result<Vec<(u32, Timestamp)>> {
    let mut query = book.prepare("SELECT epoch, last_sync_at FROM epoch WHERE ending IS NULL")?;
    let lost = query.query_map([], |row| {
        let synced_at: String = row.get(1)?;
        Ok((row.get(0)?, synced_at.parse().unwrap_or_default()))
    })?;
    lost.collect()
}

/// Moves what was in flight to `interrupted`: in the hour of its admission, or, if that is sealed, in the last hour alive.
fn interrupt(transaction: &Transaction<'_>, epoch: u32, synced_at: Timestamp) -> rusqlite::Result<()> {
    let floor = floor_of(transaction, epoch)?;
    for window in windows_in_flight(transaction, epoch)? {
        let place = if window < floor { instead(synced_at, floor) } else { window };
        let late = place.0.saturating_sub(window.0);
        let values = params![place.0, Outcome::Finished(Finished::Interrupted).code(), late, window.0, epoch];
        let grow = format!("{INTERRUPT} ON CONFLICT DO UPDATE SET {GROW}"); // a drain may have interrupted some already
        transaction.prepare_cached(&grow)?.execute(values)?;
        let unsealed = "INSERT INTO unsealed VALUES (?, ?) ON CONFLICT DO NOTHING";
        transaction.prepare_cached(unsealed)?.execute(params![place.0, epoch])?;
    }
    Ok(())
}

const INTERRUPT: &str = "INSERT INTO usage
    SELECT ?1, series, ?2, epoch, ?3, commands, units, request_bytes, response_bytes, duration_ns
    FROM in_flight WHERE \"window\" = ?4 AND epoch = ?5 AND commands > 0";

fn windows_in_flight(book: &Connection, epoch: u32) -> rusqlite::Result<Vec<Window>> {
    let mut query = book.prepare("SELECT DISTINCT \"window\" FROM in_flight WHERE epoch = ?")?;
    let windows = query.query_map([epoch], |row| row.get(0).map(Window))?;
    windows.collect()
}
