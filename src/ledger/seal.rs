//! Seals: the links of the chain. Each hour of each epoch, each day whose hours are forgotten, each epoch's end and each
//! correction is hashed with the seal before it, so that an edit, a gap, a reorder or a lost tail shows.
//!
//! Guarantees: what a seal covers is text that a stranger can build from the book alone (`canon`, `docs/ledger.md`); the
//! book's note of the last seal is written with it. Leaves the text to `canon` and the rows to `lines`.

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::canon::{self, BEGINNING, SealKind, SealRow};
use super::lines;
use super::sums::Growth;
use crate::model::{CalendarOffset, Window};

/// The rule by which new seals are hashed.
const FORMAT: u32 = 2;

/// What a new seal is to cover.
#[derive(Debug)]
pub(super) struct Covered {
    pub(super) kind: SealKind,
    pub(super) epoch: Option<u32>,
    pub(super) window: Option<Window>,
    pub(super) lines: Vec<String>,
}

/// Seals every window before `window` that has rows and no seal, in all epochs, oldest first.
pub(super) fn seal_before(
    transaction: &Transaction<'_>,
    window: Window,
    (calendar, now): (CalendarOffset, Timestamp),
) -> rusqlite::Result<()> {
    let mut growth = Growth::new(transaction, calendar)?;
    for (epoch, window) in unsealed(transaction, window)? {
        let lines = lines::of_hour(transaction, (epoch, window), FORMAT)?;
        let covered = Covered { kind: SealKind::Hour, epoch: Some(epoch), window: Some(window), lines };
        append(transaction, covered, now.max(end_of(window)))?;
        let delete = "DELETE FROM unsealed WHERE \"window\" = ? AND epoch = ?";
        transaction.prepare_cached(delete)?.execute(params![window.0, epoch])?;
        growth.add_hour(transaction, (epoch, window))?;
    }
    growth.write(transaction)
}

/// An hour is not sealed before it is over. A clock that was set back since all workers left the hour says otherwise.
fn end_of(window: Window) -> Timestamp {
    Timestamp::from_second(window.next().start_unix_seconds()).unwrap_or(Timestamp::MAX)
}

/// Adds a seal to the end of the chain; returns its number.
pub(super) fn append(transaction: &Transaction<'_>, covered: Covered, now: Timestamp) -> rusqlite::Result<i64> {
    let (number, previous) = next(transaction)?;
    let mut seal = SealRow {
        number,
        format: FORMAT,
        kind: covered.kind,
        epoch: covered.epoch,
        window: covered.window,
        lines: covered.lines.len() as u64,
        content: canon::content(&covered.lines),
        previous,
        hash: String::new(),
        sealed_at: now.to_string(),
    };
    seal.hash = seal.computed_hash(Some(&covered.lines)).unwrap_or_default(); // there are lines, so there is a hash
    write(transaction, &seal)?;
    Ok(seal.number)
}

fn write(transaction: &Transaction<'_>, seal: &SealRow) -> rusqlite::Result<()> {
    let values = params![
        seal.number,
        seal.format,
        seal.kind.name(),
        seal.epoch,
        seal.window.map(|window| window.0),
        i64::try_from(seal.lines).unwrap_or(i64::MAX),
        seal.content,
        seal.previous,
        seal.hash,
        seal.sealed_at
    ];
    transaction.prepare_cached("INSERT INTO seal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(values)?;
    let update = "UPDATE meta SET head_number = ?, head_hash = ?";
    transaction.prepare_cached(update)?.execute(params![seal.number, seal.hash]).map(drop)
}

/// The number of the next seal and the hash it follows, by the book's note of the last one: going on from the last that is
/// still there would hide that some were cut off.
fn next(transaction: &Transaction<'_>) -> rusqlite::Result<(i64, String)> {
    let query = "SELECT max(head_number, (SELECT coalesce(max(number), 0) FROM seal)) + 1, head_hash FROM meta";
    let (number, noted): (i64, String) =
        transaction.prepare_cached(query)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((number, if noted.is_empty() { BEGINNING.to_owned() } else { noted }))
}

fn unsealed(transaction: &Transaction<'_>, before: Window) -> rusqlite::Result<Vec<(u32, Window)>> {
    let query = "SELECT epoch, \"window\" FROM unsealed WHERE \"window\" < ? ORDER BY \"window\", epoch";
    let mut query = transaction.prepare_cached(query)?;
    let rows = query.query_map([before.0], |row| Ok((row.get(0)?, Window(row.get(1)?))))?;
    rows.collect()
}
