//! Reads the rows that a seal covers from the book, as canonical lines. Sealing, verification and export all use them.
//!
//! Guarantees:
//! - Numbers and names are taken exactly as stored, so no trace of an edit is normalized away.
//! - Lines are sorted by their bytes.

use std::ops::Range;

use rusqlite::{Connection, Row, params};

use crate::ledger::values::measures::{StoredMeasures, WAIVED_CODE};
use crate::model::Window;

use super::canonical;

/// Returns the lines of an epoch's hour. Lines of format 1 do not contain how late an end was.
pub(crate) fn hour_lines(
    book: &Connection,
    (epoch, window): (u32, Window),
    format: u32,
) -> rusqlite::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut query = book.prepare_cached(
        "SELECT department, subsystem, command, admitted, units FROM admission JOIN series USING (series)
         WHERE \"window\" = ?1 AND epoch = ?2",
    )?;
    let mut rows = query.query(params![window.0, epoch])?;
    while let Some(row) = rows.next()? {
        lines.push(canonical::admission_line(read_label(row)?, [row.get(3)?, row.get(4)?]));
    }
    let mut query = book.prepare_cached(
        "SELECT department, subsystem, command, outcome.name, commands, units, request_bytes, response_bytes,
                duration_ns, late
         FROM usage JOIN series USING (series) JOIN outcome ON outcome.code = usage.outcome
         WHERE \"window\" = ?1 AND epoch = ?2",
    )?;
    let mut rows = query.query(params![window.0, epoch])?;
    while let Some(row) = rows.next()? {
        let late = if format == 1 { None } else { Some(row.get(9)?) };
        lines.push(canonical::usage_line(
            read_label(row)?,
            row.get_ref(3)?.as_str()?,
            late,
            &StoredMeasures::from_row(row, 4)?,
        ));
    }
    let mut query = book.prepare_cached(
        "SELECT department, subsystem, command, late, commands, units FROM waived JOIN series USING (series)
         WHERE \"window\" = ?1 AND epoch = ?2",
    )?;
    let mut rows = query.query(params![window.0, epoch])?;
    while let Some(row) = rows.next()? {
        lines.push(canonical::waived_line(read_label(row)?, row.get(3)?, [row.get(4)?, row.get(5)?]));
    }
    lines.sort_unstable();
    Ok(lines)
}

/// Returns the lines of a day: its sums, and the seals of its hours.
pub(crate) fn day_lines(book: &Connection, windows: &Range<Window>) -> rusqlite::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut query = book.prepare_cached(
        "SELECT department, subsystem, command, outcome.name, commands, units, request_bytes, response_bytes, duration_ns,
                day_sum.outcome
         FROM day_sum JOIN series USING (series) LEFT JOIN outcome ON outcome.code = day_sum.outcome
         WHERE day = ?1",
    )?;
    let mut rows = query.query([windows.start.0])?;
    while let Some(row) = rows.next()? {
        let unnamed = if row.get::<_, i64>(9)? == i64::from(WAIVED_CODE) {
            canonical::WAIVED_NAME
        } else {
            canonical::ADMITTED_NAME
        };
        let outcome = row.get_ref(3)?.as_str_or_null()?.unwrap_or(unnamed);
        lines.push(canonical::day_line(read_label(row)?, outcome, &StoredMeasures::from_row(row, 4)?));
    }
    let query = "SELECT number, hash FROM seal WHERE kind = 'hour' AND \"window\" >= ?1 AND \"window\" < ?2";
    let mut query = book.prepare_cached(query)?;
    let seals = query.query_map(params![windows.start.0, windows.end.0], read_seal_line)?;
    for line in seals {
        lines.push(line?);
    }
    lines.sort_unstable();
    Ok(lines)
}

/// Returns the line of an epoch; empty if the epoch is not in the book.
pub(crate) fn epoch_lines(book: &Connection, epoch: u32) -> rusqlite::Result<Vec<String>> {
    let mut query = book.prepare_cached(&format!("{SELECT_EPOCHS} WHERE epoch = ?1"))?;
    query.query_map([epoch], read_epoch_line)?.collect()
}

/// Returns the line of every epoch; `-` for the time and kind of a missing ending.
pub(crate) fn all_epoch_lines(book: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut query = book.prepare_cached(&format!("{SELECT_EPOCHS} ORDER BY epoch"))?;
    query.query_map([], read_epoch_line)?.collect()
}

const SELECT_EPOCHS: &str =
    "SELECT epoch, process_id, gateway, boot_id, started_at, last_sync_at, coalesce(ended_at, '-'),
                             coalesce(ending, '-') FROM epoch";

fn read_epoch_line(row: &Row<'_>) -> rusqlite::Result<String> {
    let text = |column| -> rusqlite::Result<&str> { Ok(row.get_ref(column)?.as_str()?) };
    let times = [text(4)?, text(5)?, text(6)?, text(7)?];
    Ok(canonical::epoch_line([row.get(0)?, row.get(1)?], [text(2)?, text(3)?], times))
}

/// Returns the lines of a change of format: the contents of the seals of format 1.
pub(crate) fn migration_lines(book: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut query = book.prepare_cached("SELECT number, content FROM seal WHERE format = 1")?;
    let mut lines: Vec<String> = query.query_map([], read_seal_line)?.collect::<rusqlite::Result<_>>()?;
    lines.sort_unstable();
    Ok(lines)
}

fn read_seal_line(row: &Row<'_>) -> rusqlite::Result<String> {
    Ok(canonical::seal_line(row.get(0)?, row.get_ref(1)?.as_str()?))
}

fn read_label<'a>(row: &'a Row<'_>) -> rusqlite::Result<canonical::SeriesLabel<'a>> {
    Ok([row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?])
}

/// Returns the line of a correction; empty if the correction does not exist.
pub(crate) fn adjustment_lines(book: &Connection, number: i64) -> rusqlite::Result<Vec<String>> {
    let mut query = book.prepare_cached(
        "SELECT number, department, coalesce(subsystem, '-'), coalesce(command, '-'), period, units, reason, who, made_at
         FROM adjustment WHERE number = ?1",
    )?;
    let lines = query.query_map([number], |row| {
        let text = |column| -> rusqlite::Result<String> { row.get(column) };
        let whom = [text(1)?, text(2)?, text(3)?, text(4)?].join("\t");
        Ok(canonical::adjustment_line(row.get(0)?, &whom, row.get(5)?, &[text(6)?, text(7)?, text(8)?].join("\t")))
    })?;
    lines.collect()
}
