//! Seals: the links of the hash chain.
//!
//! A seal covers one of:
//! - an hour of an epoch
//! - a day whose hours are removed by compaction
//! - the ending of an epoch
//! - a correction
//!
//! Each seal is hashed together with the seal before it, so that an edit, a gap, a reordering or a truncated tail
//! shows.
//!
//! Guarantees:
//! - A third party can build the text that a seal covers from the book alone (`canonical`, `docs/ledger.md`).
//! - The book's record of the last seal is written together with that seal.
//!
//! Leaves to `canonical`: the text. Leaves to `canonical_rows`: the rows.

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use crate::model::Window;

use super::canonical::{self, GENESIS_HASH, SealKind, SealRow};

/// The rule by which new seals are hashed.
pub(crate) const SEAL_FORMAT: u32 = 2;

/// The content that a new seal covers.
#[derive(Debug)]
pub(crate) struct SealContent {
    pub(crate) kind: SealKind,
    pub(crate) epoch: Option<u32>,
    pub(crate) window: Option<Window>,
    pub(crate) lines: Vec<String>,
}

/// Appends a seal to the chain. Returns its number.
pub(crate) fn append_seal(
    transaction: &Transaction<'_>,
    covered: SealContent,
    now: Timestamp,
) -> rusqlite::Result<i64> {
    let (number, previous) = next_link(transaction)?;
    let mut seal = SealRow {
        number,
        format: SEAL_FORMAT,
        kind: covered.kind,
        epoch: covered.epoch,
        window: covered.window,
        lines: covered.lines.len() as u64,
        content: canonical::content_hash(&covered.lines),
        previous_hash: previous,
        hash: String::new(),
        sealed_at: now.to_string(),
    };
    seal.hash = seal.computed_hash(Some(&covered.lines)).unwrap_or_default(); // there are lines, so there is a hash
    insert_seal(transaction, &seal)?;
    Ok(seal.number)
}

fn insert_seal(transaction: &Transaction<'_>, seal: &SealRow) -> rusqlite::Result<()> {
    let values = params![
        seal.number,
        seal.format,
        seal.kind.name(),
        seal.epoch,
        seal.window.map(|window| window.0),
        i64::try_from(seal.lines).unwrap_or(i64::MAX),
        seal.content,
        seal.previous_hash,
        seal.hash,
        seal.sealed_at
    ];
    transaction.prepare_cached("INSERT INTO seal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(values)?;
    let update = "UPDATE meta SET head_number = ?, head_hash = ?";
    transaction.prepare_cached(update)?.execute(params![seal.number, seal.hash]).map(drop)
}

/// Returns the number of the next seal and the hash that it follows, from the book's record of the last seal.
/// Continuing from the last existing row would hide a truncated tail.
fn next_link(transaction: &Transaction<'_>) -> rusqlite::Result<(i64, String)> {
    let query = "SELECT max(head_number, (SELECT coalesce(max(number), 0) FROM seal)) + 1, head_hash FROM meta";
    let (number, noted): (i64, String) =
        transaction.prepare_cached(query)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((number, if noted.is_empty() { GENESIS_HASH.to_owned() } else { noted }))
}
