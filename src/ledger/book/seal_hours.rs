//! Seals the hours that are over, and adds their rows to the sums of their day.
//!
//! Guarantees: the oldest hour is sealed first; a seal and its sums are written in one transaction.
//!
//! Leaves to `hash_chain`: the text and the hash.

use jiff::Timestamp;
use rusqlite::Transaction;
use rusqlite::params;

use crate::ledger::book::day_sums::SumDelta;
use crate::ledger::hash_chain::canonical::SealKind;
use crate::ledger::hash_chain::canonical_rows;
use crate::ledger::hash_chain::seal::{SEAL_FORMAT, SealContent, append_seal};
use crate::model::{CalendarOffset, Window};

/// Seals every window before `window` that has rows and no seal, in all epochs, oldest first.
pub(crate) fn seal_hours_before(
    transaction: &Transaction<'_>,
    window: Window,
    (calendar, now): (CalendarOffset, Timestamp),
) -> rusqlite::Result<()> {
    let mut delta = SumDelta::new(transaction, calendar)?;
    for (epoch, window) in unsealed_hours(transaction, window)? {
        let lines = canonical_rows::hour_lines(transaction, (epoch, window), SEAL_FORMAT)?;
        let covered = SealContent { kind: SealKind::Hour, epoch: Some(epoch), window: Some(window), lines };
        append_seal(transaction, covered, now.max(window_end(window)))?;
        let delete = "DELETE FROM unsealed WHERE \"window\" = ? AND epoch = ?";
        transaction.prepare_cached(delete)?.execute(params![window.0, epoch])?;
        delta.add_hour(transaction, (epoch, window))?;
    }
    delta.apply(transaction)
}

/// Returns the end of a window, the earliest time of its seal. The clock may show an earlier time if it was set back
/// after all workers left the hour.
pub(crate) fn window_end(window: Window) -> Timestamp {
    Timestamp::from_second(window.next().start_unix_seconds()).unwrap_or(Timestamp::MAX)
}

pub(crate) fn unsealed_hours(transaction: &Transaction<'_>, before: Window) -> rusqlite::Result<Vec<(u32, Window)>> {
    let query = "SELECT epoch, \"window\" FROM unsealed WHERE \"window\" < ? ORDER BY \"window\", epoch";
    let mut query = transaction.prepare_cached(query)?;
    let rows = query.query_map([before.0], |row| Ok((row.get(0)?, Window(row.get(1)?))))?;
    rows.collect()
}
