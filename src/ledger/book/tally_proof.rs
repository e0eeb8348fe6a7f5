//! Compares the book with the tally before an hour is sealed.
//!
//! The tally is authoritative while it exists, because other processes can write to the book.
//!
//! Guarantees:
//! - A seal of the open epoch covers exactly the numbers and names of the tally. Otherwise nothing is sealed.
//! - Rows that another process has changed, added or removed are rewritten, and the rewrite is logged.
//! - Hours of ended epochs no longer have a tally: they were compared when their epoch ended.

use std::collections::BTreeSet;

use rusqlite::{Connection, Transaction, params};

use crate::ledger::fold::TallyFold;
use crate::model::{Outcome, Window};

use super::hour_rows::{self, StoredHour};

/// Makes the hours of an epoch before the window `before` equal to the fold. Returns the number of hours that differed.
pub(crate) fn repair_unsealed(
    transaction: &Transaction<'_>,
    fold: &TallyFold,
    place: (u32, Window),
) -> rusqlite::Result<u64> {
    let mended = repair_names(transaction, fold)? + repair_hours(transaction, fold, place)?;
    if mended > 0 {
        tracing::error!(
            epoch = place.0,
            mended,
            "the book differed from the tally; it was rewritten before it was sealed. Another program writes into the \
             book: find it, and run `tallygate ledger verify`"
        );
    }
    Ok(mended)
}

fn repair_hours(
    transaction: &Transaction<'_>,
    fold: &TallyFold,
    (epoch, before): (u32, Window),
) -> rusqlite::Result<u64> {
    let expected = hour_rows::unsealed_hours_of(fold, before);
    let waiting: BTreeSet<_> = hour_rows::unsealed_windows(transaction, (epoch, before))?.into_iter().collect();
    let nothing = StoredHour::new();
    let mut mended = 0;
    for window in waiting.iter().chain(expected.keys()).copied().collect::<BTreeSet<_>>() {
        let hour = (epoch, window);
        let expected = expected.get(&window).unwrap_or(&nothing);
        if waiting.contains(&window) && hour_rows::read_hour(transaction, hour)? == *expected {
            continue;
        }
        mended += 1;
        hour_rows::remove_hour(transaction, hour)?;
        hour_rows::write_hour_rows(
            transaction,
            epoch,
            fold.rows_before(before).filter(|(key, _)| key.window == window),
        )?;
        if hour_rows::read_hour(transaction, hour)? != *expected {
            return Err(proof_error(format!(
                "the rows of epoch {epoch}, hour {window}, differ after they were written"
            )));
        }
    }
    Ok(mended)
}

/// Compares the tables of names with the fold too, because seals cover names and not numbers.
fn repair_names(transaction: &Transaction<'_>, fold: &TallyFold) -> rusqlite::Result<u64> {
    let mended = u64::from(!has_same_series(transaction, fold)?) + u64::from(!has_same_outcomes(transaction)?);
    if mended == 0 {
        return Ok(0);
    }
    // Replaces rows of names while other rows refer to them.
    transaction.execute_batch("PRAGMA defer_foreign_keys = ON")?;
    for (series, names) in fold.all_series() {
        let values = params![series.0, names.department.as_str(), names.subsystem.as_str(), names.command.as_str()];
        transaction.prepare_cached("INSERT OR REPLACE INTO series VALUES (?, ?, ?, ?)")?.execute(values)?;
    }
    for outcome in Outcome::all() {
        let values = params![outcome.code(), outcome.name(), is_refusal(outcome), outcome.blame().name()];
        transaction.prepare_cached("INSERT OR REPLACE INTO outcome VALUES (?, ?, ?, ?)")?.execute(values)?;
    }
    match has_same_series(transaction, fold)? && has_same_outcomes(transaction)? {
        true => Ok(mended),
        false => Err(proof_error("the names of series or outcomes differ after they were written".to_owned())),
    }
}

fn has_same_series(book: &Connection, fold: &TallyFold) -> rusqlite::Result<bool> {
    let mut query = book.prepare_cached("SELECT series, department, subsystem, command FROM series ORDER BY series")?;
    let mut rows = query.query([])?;
    for (series, names) in fold.all_series() {
        let Some(row) = rows.next()? else { return Ok(false) };
        let text = |column: usize| -> rusqlite::Result<&str> { Ok(row.get_ref(column)?.as_str()?) };
        let found = (row.get::<_, u32>(0)?, text(1)?, text(2)?, text(3)?);
        if found != (series.0, names.department.as_str(), names.subsystem.as_str(), names.command.as_str()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has_same_outcomes(book: &Connection) -> rusqlite::Result<bool> {
    let mut query = book.prepare_cached("SELECT code, name, refused, blame FROM outcome")?;
    let rows = query.query_map([], |row| {
        Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?, row.get::<_, String>(3)?))
    })?;
    let found = rows.collect::<rusqlite::Result<BTreeSet<_>>>()?;
    let row = |one: Outcome| (one.code(), one.name().to_owned(), is_refusal(one), one.blame().name().to_owned());
    Ok(found == Outcome::all().map(row).collect())
}

fn is_refusal(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Refused(_))
}

fn proof_error(what: String) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(what.into())
}
