//! Forgetting hours: days that are old enough take the place of their hours, so that a book grows with days, not with hours.
//!
//! Guarantees: a day is sealed before its first hour goes, with its sums and the seals of its hours, so the chain still
//! says what it said; days go in their order and only when all of them is sealed; each step is small, because the
//! keeper has answers waiting. Readers look at hours only from the horizon (`meta.rolled_before`) on.

use std::ops::Range;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::canon::SealKind;
use super::lines;
use super::seal::{self, Covered};
use super::sums::horizon;
use crate::model::{CalendarOffset, Window};

/// Rows that one step removes at most, of each table.
const SLICE_ROWS: u32 = 10_000;

/// One step: removes a slice of what is behind the horizon, or, if nothing is, moves the horizon over the next day that ended
/// before `before`. Whether anything was done.
pub(super) fn step(
    transaction: &Transaction<'_>,
    before: Window,
    (calendar, now): (CalendarOffset, Timestamp),
) -> rusqlite::Result<bool> {
    let horizon = horizon(transaction)?;
    if remove_slice(transaction, horizon)? > 0 {
        return Ok(true);
    }
    let Some(day) = next_day(transaction, horizon, calendar)? else { return Ok(false) };
    if day.end > before || is_open(transaction, day.end)? {
        return Ok(false);
    }
    let lines = lines::of_day(transaction, &day)?;
    let covered = Covered { kind: SealKind::Day, epoch: None, window: Some(day.start), lines };
    seal::append(transaction, covered, now)?;
    transaction.execute("UPDATE meta SET rolled_before = ?", [day.end.0])?;
    Ok(true)
}

fn remove_slice(transaction: &Transaction<'_>, horizon: Window) -> rusqlite::Result<usize> {
    let ends = "DELETE FROM usage WHERE (\"window\", series, outcome, epoch, late) IN
                (SELECT \"window\", series, outcome, epoch, late FROM usage WHERE \"window\" < ? LIMIT ?)";
    let admissions = "DELETE FROM admission WHERE (\"window\", series, epoch) IN
                      (SELECT \"window\", series, epoch FROM admission WHERE \"window\" < ? LIMIT ?)";
    let waived = "DELETE FROM waived WHERE (\"window\", series, epoch, late) IN
                  (SELECT \"window\", series, epoch, late FROM waived WHERE \"window\" < ? LIMIT ?)";
    let mut removed = 0;
    for delete in [ends, admissions, waived] {
        removed += transaction.prepare_cached(delete)?.execute(params![horizon.0, SLICE_ROWS])?;
    }
    Ok(removed)
}

/// The next day that has rows; it begins at the horizon if the calendar was another before.
fn next_day(
    transaction: &Transaction<'_>,
    horizon: Window,
    calendar: CalendarOffset,
) -> rusqlite::Result<Option<Range<Window>>> {
    let query = "SELECT min(day) FROM day_sum WHERE day >= ?";
    let first: Option<Option<u32>> =
        transaction.prepare_cached(query)?.query_row([horizon.0], |row| row.get(0)).optional()?;
    Ok(first.flatten().map(Window).map(|start| {
        let next = Window(calendar.day_of(start).0 + 24);
        start..next
    }))
}

/// Whether anything before `end` may still change.
fn is_open(transaction: &Transaction<'_>, end: Window) -> rusqlite::Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM unsealed WHERE \"window\" < ?)";
    transaction.prepare_cached(query)?.query_row([end.0], |row| row.get(0))
}
