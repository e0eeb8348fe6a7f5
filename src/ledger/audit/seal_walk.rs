//! Walks the seals of a book in order, each with the lines that it covers.

use rusqlite::{Connection, Row};

use crate::ledger::hash_chain::canonical::{SealKind, SealRow};
use crate::ledger::hash_chain::canonical_rows;
use crate::model::Window;

use super::calendar_days::CalendarDays;

/// The position of the walk, in addition to the seal.
#[derive(Debug, Default)]
pub(crate) struct SealLocation {
    /// Corrections sealed so far: the n-th of their seals covers correction n.
    pub(crate) adjustments: i64,
}

/// Reads all seals in the order of their numbers, and passes each to `each`.
pub(crate) fn walk_seals<E: From<rusqlite::Error>>(
    book: &Connection,
    mut each: impl FnMut(&SealRow, &SealLocation) -> Result<(), E>,
) -> Result<(), E> {
    let mut query = book.prepare(
        "SELECT number, format, kind, epoch, \"window\", lines, content, previous, hash, sealed_at
         FROM seal ORDER BY number",
    )?;
    let mut place = SealLocation::default();
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let seal = seal_from_row(row)?;
        place.adjustments += i64::from(seal.kind == SealKind::Adjustment);
        each(&seal, &place)?;
    }
    Ok(())
}

fn seal_from_row(row: &Row<'_>) -> rusqlite::Result<SealRow> {
    let kind: String = row.get(2)?;
    let unknown = || {
        let text = format!("{kind:?} is not a kind of seal");
        rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, text.into())
    };
    Ok(SealRow {
        number: row.get(0)?,
        format: row.get(1)?,
        kind: SealKind::parse(&kind).ok_or_else(unknown)?,
        epoch: row.get(3)?,
        window: row.get::<_, Option<u32>>(4)?.map(Window),
        lines: row.get::<_, i64>(5)?.unsigned_abs(),
        content: row.get(6)?,
        previous_hash: row.get(7)?,
        hash: row.get(8)?,
        sealed_at: row.get(9)?,
    })
}

/// Returns the lines that a seal covers; `None` for an hour that is kept as a day only.
pub(crate) fn covered_lines(
    book: &Connection,
    days: &CalendarDays,
    (seal, place): (&SealRow, &SealLocation),
) -> rusqlite::Result<Option<Vec<String>>> {
    let window = seal.window.unwrap_or_default();
    Ok(match seal.kind {
        SealKind::Hour if window < days.compacted_before => None,
        SealKind::Hour => {
            Some(canonical_rows::hour_lines(book, (seal.epoch.unwrap_or_default(), window), seal.format)?)
        }
        SealKind::Day => Some(canonical_rows::day_lines(book, &days.compacted_day(window))?),
        SealKind::Epoch => Some(canonical_rows::epoch_lines(book, seal.epoch.unwrap_or_default())?),
        SealKind::Adjustment => Some(canonical_rows::adjustment_lines(book, place.adjustments)?),
        SealKind::Migration => Some(canonical_rows::migration_lines(book)?),
    })
}

/// Describes the place of a seal in words.
pub(crate) fn describe_seal(seal: &SealRow, days: &CalendarDays) -> String {
    let window = seal.window.unwrap_or_default();
    match seal.kind {
        SealKind::Hour => format!("seal {} (epoch {}, hour {window})", seal.number, seal.epoch.unwrap_or_default()),
        SealKind::Day => format!("seal {} (day {})", seal.number, days.calendar.date_of(window)),
        SealKind::Epoch => format!("seal {} (end of epoch {})", seal.number, seal.epoch.unwrap_or_default()),
        SealKind::Adjustment | SealKind::Migration => format!("seal {} ({})", seal.number, seal.kind.name()),
    }
}
