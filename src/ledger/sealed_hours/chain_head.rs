//! The head of the hash chain as of the seal of an hour.
//!
//! Guarantees:
//! - The head of a sealed hour never changes: it is the last seal of this hour, whatever the chain has appended since.
//! - An hour without usage has no seal; its head is that of the last hour before it that has one.

use rusqlite::{Connection, OptionalExtension};

use crate::ledger::hash_chain::canonical::GENESIS_HASH;
use crate::model::Window;

/// A seal as the head of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HourHead {
    /// The number of the seal; 0 before the first seal of an hour.
    pub number: i64,
    /// Its hash, 64 hexadecimal digits; zeros before the first seal of an hour.
    pub hash: String,
}

/// The last seal of the latest hour up to this one that has a seal. A seal that a clock set back has appended later for
/// an earlier hour has a greater number, and is not the head of the later hour.
const SELECT_HEAD: &str = "SELECT number, hash FROM seal WHERE kind = 'hour' AND \"window\" <= ?
    ORDER BY \"window\" DESC, number DESC LIMIT 1";

/// Returns the head as of the seal of an hour.
pub(super) fn head_of_hour(book: &Connection, window: Window) -> rusqlite::Result<HourHead> {
    let mut query = book.prepare_cached(SELECT_HEAD)?;
    let head = query.query_row([window.0], |row| Ok(HourHead { number: row.get(0)?, hash: row.get(1)? })).optional()?;
    Ok(head.unwrap_or_else(|| HourHead { number: 0, hash: GENESIS_HASH.to_owned() }))
}
