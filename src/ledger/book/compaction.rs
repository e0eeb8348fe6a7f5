//! Compaction: replaces the hours of old days by day sums, so that a book grows with days and not with hours.
//!
//! Guarantees:
//! - A day is sealed before its first hour is removed. The seal covers the day's sums and the seals of its hours, so
//!   the chain stays verifiable.
//! - Days are compacted in order, and only when all hours of a day are sealed.
//! - Each step is small, because other requests to the keeper wait.
//! - Readers read hours only from the horizon (`meta.rolled_before`) on.

use std::ops::Range;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use crate::ledger::hash_chain::canonical::SealKind;
use crate::ledger::hash_chain::canonical_rows;
use crate::ledger::hash_chain::seal::{self, SealContent};
use crate::model::{CalendarOffset, Window};

use super::day_sums::compacted_before;

/// The most rows that one step removes from each table.
const COMPACTION_ROWS_MAX: u32 = 10_000;

/// Runs one step: removes a slice of the rows before the horizon. If there are none, moves the horizon past the next
/// day that ended before `before`. Returns whether anything was done.
pub(crate) fn compact_step(
    transaction: &Transaction<'_>,
    before: Window,
    (calendar, now): (CalendarOffset, Timestamp),
) -> rusqlite::Result<bool> {
    let compacted_before = compacted_before(transaction)?;
    if remove_compacted_rows(transaction, compacted_before)? > 0 {
        return Ok(true);
    }
    let Some(day) = next_compactable_day(transaction, compacted_before, calendar)? else { return Ok(false) };
    if day.end > before || is_open(transaction, day.end)? {
        return Ok(false);
    }
    let lines = canonical_rows::day_lines(transaction, &day)?;
    let content = SealContent { kind: SealKind::Day, epoch: None, window: Some(day.start), lines };
    seal::append_seal(transaction, content, now)?;
    transaction.execute("UPDATE meta SET rolled_before = ?", [day.end.0])?;
    Ok(true)
}

fn remove_compacted_rows(transaction: &Transaction<'_>, compacted_before: Window) -> rusqlite::Result<usize> {
    let ends = "DELETE FROM usage WHERE (\"window\", series, outcome, epoch, late) IN
                (SELECT \"window\", series, outcome, epoch, late FROM usage WHERE \"window\" < ? LIMIT ?)";
    let admissions = "DELETE FROM admission WHERE (\"window\", series, epoch) IN
                      (SELECT \"window\", series, epoch FROM admission WHERE \"window\" < ? LIMIT ?)";
    let waived = "DELETE FROM waived WHERE (\"window\", series, epoch, late) IN
                  (SELECT \"window\", series, epoch, late FROM waived WHERE \"window\" < ? LIMIT ?)";
    let mut removed = 0;
    for delete in [ends, admissions, waived] {
        removed += transaction.prepare_cached(delete)?.execute(params![compacted_before.0, COMPACTION_ROWS_MAX])?;
    }
    Ok(removed)
}

/// Returns the next day that has rows. The day begins at the horizon if an earlier calendar had other day boundaries.
fn next_compactable_day(
    transaction: &Transaction<'_>,
    compacted_before: Window,
    calendar: CalendarOffset,
) -> rusqlite::Result<Option<Range<Window>>> {
    let query = "SELECT min(day) FROM day_sum WHERE day >= ?";
    let first: Option<Option<u32>> =
        transaction.prepare_cached(query)?.query_row([compacted_before.0], |row| row.get(0)).optional()?;
    Ok(first.flatten().map(Window).map(|start| {
        let next = Window(calendar.day_of(start).0 + 24);
        start..next
    }))
}

/// Returns whether any window before `end` may still change.
fn is_open(transaction: &Transaction<'_>, end: Window) -> rusqlite::Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM unsealed WHERE \"window\" < ?)";
    transaction.prepare_cached(query)?.query_row([end.0], |row| row.get(0))
}
