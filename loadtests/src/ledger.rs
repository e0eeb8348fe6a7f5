//! Reads the book through the view `usage_hourly`, read-only beside the running gateway, as a finance system would.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags, Row};

use crate::account::Account;

/// Timeout of waiting for a lock.
const BUSY_LIMIT: Duration = Duration::from_secs(1);

const COMMANDS: &str = "SELECT department, outcome, SUM(commands) FROM usage_hourly \
                        WHERE commands > 0 GROUP BY department, outcome";

/// All commands in the book.
pub fn account(book: &Path) -> Result<Account> {
    let connection = Connection::open_with_flags(book, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| format!("opening the book {}", book.display()))?;
    read(&connection).with_context(|| format!("reading usage_hourly in {}", book.display()))
}

fn read(connection: &Connection) -> Result<Account> {
    connection.busy_timeout(BUSY_LIMIT)?;
    let mut statement = connection.prepare(COMMANDS)?;
    let rows = statement.query_map([], entry)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<(String, u64)> {
    let (department, outcome): (String, String) = (row.get(0)?, row.get(1)?);
    let commands: i64 = row.get(2)?;
    let commands = u64::try_from(commands).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(2, commands))?;
    Ok((key(&department, &outcome), commands))
}

/// The account key of a department's commands with this outcome.
pub fn key(department: &str, outcome: &str) -> String {
    if outcome == "ok" { department.to_owned() } else { format!("{department} {outcome}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_and_commands_are_summed_and_failures_are_separate() {
        let connection = Connection::open_in_memory().expect("a database");
        connection
            .execute_batch(
                "CREATE TABLE usage_hourly (window_start, department, command, outcome, commands);
                 INSERT INTO usage_hourly VALUES ('2026-10-01T00:00:00Z', 'dept-1', 'snapshot.read', 'ok', 3),
                     ('2026-10-01T01:00:00Z', 'dept-1', 'snapshot.read', 'ok', 4),
                     ('2026-10-01T01:00:00Z', 'dept-1', 'snapshot.read', 'rate_limited', 1),
                     ('2026-10-01T01:00:00Z', 'dept-2', 'snapshot.read', 'ok', 0);",
            )
            .expect("a table");
        let expected = [("dept-1", 7), ("dept-1 rate_limited", 1)];
        assert_eq!(read(&connection).expect("rows"), expected.map(|(key, count)| (key.to_owned(), count)).into());
    }
}
