//! Adjustments: the corrections that finance adds to a book, because nothing in a book is ever edited.
//!
//! Guarantees:
//! - A correction and its seal are written in one transaction, with or without a running gateway.
//! - A correction is never changed afterwards.
//!
//! Leaves to the statement: the effect of a correction on a bill.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::Serialize;

use crate::clock::Clock;
use crate::ledger::files::book_path;
use crate::ledger::hash_chain::canonical::SealKind;
use crate::ledger::hash_chain::canonical_rows;
use crate::ledger::hash_chain::seal::{self, SealContent};
use crate::ledger::values::error::{BadAdjustment, LedgerError};
use crate::model::{CalendarOffset, Month, Name, Window};

use super::book_reader::{check_format, open_for_reading};
use super::connection::{BUSY_TIMEOUT, open_connection, open_error};
use super::schema_check;

/// The longest reason and author's name, in bytes.
const ADJUSTMENT_TEXT_MAX: usize = 1000;

/// A correction. One that is to be added has valid names; one that is stored has the text of the book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Adjustment<N = Name> {
    /// The department whose usage is corrected.
    pub department: N,
    /// The subsystem, if the correction is limited to one.
    pub subsystem: Option<N>,
    /// The command of the subsystem, if the correction is limited to one.
    pub command: Option<N>,
    /// A month, `2026-10`, or a day, `2026-10-05`, of the book's calendar.
    pub period: String,
    /// The units to add; negative to subtract.
    pub units: i64,
    /// The reason, in one line.
    pub reason: String,
    /// The person responsible for the correction, in one line.
    pub who: String,
}

/// A correction as stored in the book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AdjustmentRow {
    /// The number of the correction, from 1.
    pub number: i64,
    /// The correction.
    #[serde(flatten)]
    pub adjustment: Adjustment<String>,
    /// The time of the correction.
    pub made_at: String,
}

impl<N: fmt::Display> Adjustment<N> {
    /// Returns department, subsystem and command, as far as they are given, separated by ` / `.
    pub fn subject_text(&self) -> String {
        let names = [Some(&self.department), self.subsystem.as_ref(), self.command.as_ref()];
        names.into_iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(" / ")
    }

    /// Returns the windows of the correction's period.
    pub fn windows(&self, calendar: CalendarOffset) -> Option<Range<Window>> {
        if let Some(month) = Month::parse(&self.period) {
            return Some(calendar.windows_of(month));
        }
        let date: jiff::civil::Date = self.period.parse().ok()?;
        Some(calendar.first_window(date)..calendar.first_window(date.tomorrow().ok()?))
    }
}

/// Checks that a correction is valid and that its department, subsystem and command exist in the book at `path`.
/// Changes nothing.
pub fn check_adjustment(path: &Path, adjustment: &Adjustment) -> Result<(), LedgerError> {
    adjustment.check()?;
    let connection = open_for_reading(path)?;
    let failed = |error| LedgerError::book("read", path, error);
    match adjustment.is_known_in(&connection).map_err(failed)? {
        true => Ok(()),
        false => Err(BadAdjustment::Unknown(adjustment.subject_text()).into()),
    }
}

/// Adds a correction to the book at `path`. Returns its number.
pub fn add_adjustment(path: &Path, adjustment: &Adjustment, clock: &Clock) -> Result<i64, LedgerError> {
    adjustment.check()?;
    let path = &book_path::canonical_path(path)?;
    let mut connection = open_for_adjustment(path)?;
    let failed = |error| LedgerError::book("write a correction into", path, error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    if !adjustment.is_known_in(&transaction).map_err(failed)? {
        return Err(BadAdjustment::Unknown(adjustment.subject_text()).into());
    }
    let number = insert_adjustment(&transaction, adjustment, clock).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(number)
}

/// Returns all corrections in a book, in the order of their creation.
pub(crate) fn all_adjustments(book: &Connection) -> rusqlite::Result<Vec<AdjustmentRow>> {
    let mut query = book.prepare(
        "SELECT number, department, subsystem, command, period, units, reason, who, made_at FROM adjustment ORDER BY 1",
    )?;
    let rows = query.query_map([], |row| {
        Ok(AdjustmentRow {
            number: row.get(0)?,
            adjustment: Adjustment {
                department: row.get(1)?,
                subsystem: row.get(2)?,
                command: row.get(3)?,
                period: row.get(4)?,
                units: row.get(5)?,
                reason: row.get(6)?,
                who: row.get(7)?,
            },
            made_at: row.get(8)?,
        })
    })?;
    rows.collect()
}

fn open_for_adjustment(path: &Path) -> Result<Connection, LedgerError> {
    let refused = |error| open_error(path, error);
    let connection = open_connection(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(refused)?;
    check_format(&connection, path)?;
    schema_check::check_schema(&connection, path)?;
    // A person waits here, not the keeper, so the timeout is longer.
    connection.busy_timeout(BUSY_TIMEOUT * 10).map_err(refused)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(refused)?;
    Ok(connection)
}

fn insert_adjustment(transaction: &Transaction<'_>, adjustment: &Adjustment, clock: &Clock) -> rusqlite::Result<i64> {
    let now = clock.wall();
    let number = transaction.query_row("SELECT coalesce(max(number), 0) + 1 FROM adjustment", [], |row| row.get(0))?;
    let values = params![
        number,
        adjustment.department.as_str(),
        adjustment.subsystem.as_ref().map(Name::as_str),
        adjustment.command.as_ref().map(Name::as_str),
        adjustment.period,
        adjustment.units,
        adjustment.reason,
        adjustment.who,
        now.to_string()
    ];
    transaction.execute("INSERT INTO adjustment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)?;
    let lines = canonical_rows::adjustment_lines(transaction, number)?;
    seal::append_seal(transaction, SealContent { kind: SealKind::Adjustment, epoch: None, window: None, lines }, now)?;
    Ok(number)
}

impl Adjustment {
    fn check(&self) -> Result<(), BadAdjustment> {
        if self.units == 0 {
            return Err(BadAdjustment::Nothing);
        }
        if Month::parse(&self.period).is_none() && !is_date(&self.period) {
            return Err(BadAdjustment::Period(self.period.clone()));
        }
        if self.command.is_some() && self.subsystem.is_none() {
            return Err(BadAdjustment::CommandAlone);
        }
        for (what, text) in [("reason", &self.reason), ("author", &self.who)] {
            if text.trim().is_empty() || text.len() > ADJUSTMENT_TEXT_MAX || text.contains(char::is_control) {
                return Err(BadAdjustment::Text(what));
            }
        }
        Ok(())
    }

    /// Returns whether the book has a series that matches the correction: a misspelt name would correct no usage.
    fn is_known_in(&self, book: &Connection) -> rusqlite::Result<bool> {
        let query = "SELECT 1 FROM series WHERE department = ?1 AND subsystem = coalesce(?2, subsystem)
                     AND command = coalesce(?3, command) LIMIT 1";
        let (subsystem, command) = (self.subsystem.as_ref().map(Name::as_str), self.command.as_ref().map(Name::as_str));
        let found = book.query_row(query, params![self.department.as_str(), subsystem, command], |_| Ok(()));
        found.optional().map(|found| found.is_some())
    }
}

/// Returns whether the text is exactly `YYYY-MM-DD`.
fn is_date(text: &str) -> bool {
    text.parse::<jiff::civil::Date>().is_ok_and(|date| date.to_string() == text)
}
