//! Seals: each hour of each epoch is hashed with the seal before it, so that an edit, a gap or a reorder shows.
//!
//! Guarantees: what is hashed is text that a stranger can build from the book alone (`docs/ledger.md`): a head, then one
//! line for each row of `admission` and `usage` of that epoch and window, sorted as bytes.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};
use sha2::{Digest, Sha256};

use crate::model::Window;

/// What the first seal follows.
const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The last link of the chain.
#[derive(Debug)]
struct Head {
    number: i64,
    hash: String,
}

/// Seals every window before `window` that has rows and no seal, in all epochs, oldest first.
pub(super) fn seal_before(transaction: &Transaction<'_>, window: Window, now: Timestamp) -> rusqlite::Result<()> {
    let mut head = head(transaction)?;
    for (epoch, window) in unsealed(transaction, window)? {
        let lines = lines(transaction, epoch, window)?;
        let number = head.number + 1;
        let hash = hash(number, (epoch, window), &head.hash, &lines);
        let insert = "INSERT INTO seal VALUES (?, ?, ?, ?, ?, ?, ?)";
        let count = i64::try_from(lines.len()).unwrap_or(i64::MAX);
        transaction.execute(insert, params![number, epoch, window.0, count, head.hash, hash, now.to_string()])?;
        let delete = "DELETE FROM unsealed WHERE \"window\" = ? AND epoch = ?";
        transaction.execute(delete, params![window.0, epoch])?;
        head = Head { number, hash };
    }
    Ok(())
}

fn head(transaction: &Transaction<'_>) -> rusqlite::Result<Head> {
    let query = "SELECT number, hash FROM seal ORDER BY number DESC LIMIT 1";
    let head = transaction.query_row(query, [], |row| Ok(Head { number: row.get(0)?, hash: row.get(1)? }));
    Ok(head.optional()?.unwrap_or(Head { number: 0, hash: BEGINNING.to_owned() }))
}

fn unsealed(transaction: &Transaction<'_>, before: Window) -> rusqlite::Result<Vec<(u32, Window)>> {
    let query = "SELECT epoch, \"window\" FROM unsealed WHERE \"window\" < ? ORDER BY \"window\", epoch";
    let mut query = transaction.prepare_cached(query)?;
    let rows = query.query_map([before.0], |row| Ok((row.get(0)?, Window(row.get(1)?))))?;
    rows.collect()
}

/// The lines of an epoch's window, sorted: what the seal covers.
fn lines(transaction: &Transaction<'_>, epoch: u32, window: Window) -> rusqlite::Result<Vec<String>> {
    let mut query = transaction.prepare_cached(
        "SELECT concat_ws(char(9), 'admission', department, subsystem, command, admitted, units)
         FROM admission JOIN series USING (series) WHERE epoch = ?1 AND \"window\" = ?2
         UNION ALL
         SELECT concat_ws(char(9), 'usage', department, subsystem, command, outcome.name, commands, units,
                          request_bytes, response_bytes, duration_ns)
         FROM usage JOIN series USING (series) JOIN outcome ON outcome.code = usage.outcome
         WHERE epoch = ?1 AND \"window\" = ?2
         ORDER BY 1",
    )?;
    let rows = query.query_map(params![epoch, window.0], |row| row.get(0))?;
    rows.collect()
}

fn hash(number: i64, (epoch, window): (u32, Window), previous: &str, lines: &[String]) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("tallygate seal 1\n{number}\n{epoch}\n{window}\n{previous}\n"));
    for line in lines {
        digest.update(line);
        digest.update("\n");
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
