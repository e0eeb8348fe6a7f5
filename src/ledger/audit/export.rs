//! The raw book, line by line: what a stranger's program needs to compute every sum and every hash again.
//!
//! Guarantees: one coherent look at the ledger; all epochs; seals in their order, each with the canonical lines it covers, then
//! the rows that wait for a seal, then what is in flight: together what reports say, so that of every department admitted =
//! ended + in flight. What a dead gateway had in flight is `interrupted` here, as in reports. Nothing is kept in memory
//! but one seal's lines. `docs/ledger.md` shows the text, `docs/check_ledger.py` reads it.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;

use super::days::Days;
use super::open::{fold_of, in_flight};
use super::seals::{lines_of, walk};
use super::snapshot::Snapshot;
use crate::ledger::book::stored;
use crate::ledger::canon::{self, SealRow, shown};
use crate::ledger::error::LedgerError;
use crate::ledger::fold::{Row, SeriesNames};
use crate::ledger::lines;
use crate::ledger::recover::fold_dead;
use crate::ledger::schema_check;
use crate::ledger::totals::OutcomeTotals;
use crate::model::Window;

/// One part of an export: a heading, and the canonical lines below it.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its first word says what it is: `tallygate export 1`, `epochs`, `seal`, `open`, `flying` or `end`; the last field is the
    /// number of lines that follow.
    pub heading: Vec<String>,
    /// Canonical lines; none below a seal whose hours are forgotten.
    pub lines: Vec<String>,
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What was read could not be written.
    #[error("the export could not be written: {0}")]
    Write(#[from] std::io::Error),
    /// The book could not be read on.
    #[error("the book could not be read: {0}")]
    Book(#[from] rusqlite::Error),
    /// A text has a line end, or a tab where a heading has fields: whoever reads the export would read something else than the
    /// book says.
    #[error(
        "the book holds {0:?}, which no line of an export can carry and no gateway writes: somebody has edited it; `ledger verify` may say more"
    )]
    Torn(String),
}

/// Hands every part to `write`, in order.
pub fn export(path: &Path, write: &mut dyn FnMut(Part) -> std::io::Result<()>) -> Result<(), ExportError> {
    let mut write = |part: Part| -> Result<(), ExportError> { Ok(write(part.whole()?)?) };
    let snapshot = Snapshot::take_settled(path)?;
    let book = &snapshot.connection;
    schema_check::check(book, path)?;
    let days = Days::read(book)?;
    write(beginning(book)?)?;
    write(part(vec!["epochs".to_owned()], lines::of_epochs(book)?))?;
    let mut seals = 0_u64;
    walk(book, |seal, place| -> Result<(), ExportError> {
        seals += 1;
        let lines = lines_of(book, &days, (seal, place))?.unwrap_or_default();
        write(part(heading(seal), lines))
    })?;
    for ((window, epoch), lines) in open_hours(&snapshot)? {
        write(part(vec!["open".to_owned(), epoch.to_string(), window.to_string()], lines))?;
    }
    write(flying(&snapshot)?)?;
    write(part(vec!["end".to_owned(), seals.to_string()], Vec::new()))
}

impl Part {
    /// Itself, if its fields and lines are told apart when they are written.
    fn whole(self) -> Result<Self, ExportError> {
        let fields = self.heading.iter().filter(|field| field.contains(['\t', '\n', '\r']));
        match fields.chain(self.lines.iter().filter(|line| line.contains(['\n', '\r']))).next() {
            Some(torn) => Err(ExportError::Torn(torn.clone())),
            None => Ok(self),
        }
    }
}

fn part(mut heading: Vec<String>, lines: Vec<String>) -> Part {
    heading.push(lines.len().to_string());
    Part { heading, lines }
}

fn beginning(book: &Connection) -> rusqlite::Result<Part> {
    let query = "SELECT gateway, calendar_offset, rolled_before FROM meta";
    let (gateway, calendar, horizon) =
        book.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, Window(row.get(2)?))))?;
    Ok(part(vec!["tallygate export 1".to_owned(), gateway, calendar, horizon.to_string()], Vec::new()))
}

fn heading(seal: &SealRow) -> Vec<String> {
    let SealRow { number, format, kind, epoch, window, lines, content, previous, hash, sealed_at } = seal;
    let place = [kind.name().to_owned(), shown(*epoch), shown(*window)];
    let hashes = [lines.to_string(), content.clone(), previous.clone(), hash.clone(), sealed_at.clone()];
    ["seal".to_owned(), number.to_string(), format.to_string()].into_iter().chain(place).chain(hashes).collect()
}

/// The rows that wait for a seal: of the epoch that is being counted as the tally has them, of others as the book has.
fn open_hours(snapshot: &Snapshot) -> rusqlite::Result<BTreeMap<(Window, u32), Vec<String>>> {
    let book = &snapshot.connection;
    let told = snapshot.readings().map(|readings| (readings.newer.header.epoch, readings.floor));
    let mut hours = BTreeMap::new();
    for (epoch, window) in unsealed(book)? {
        if told.is_none_or(|(open, floor)| epoch != open || window < floor) {
            hours.insert((window, epoch), lines::of_hour(book, (epoch, window), 2)?);
        }
    }
    let Some(readings) = snapshot.readings() else { return Ok(hours) };
    let fold = match snapshot.is_kept {
        true => fold_of(&readings.newer, readings.floor),
        false => fold_dead(Vec::new(), &readings.newer, readings.floor),
    };
    for (key, row) in fold.changed_rows() {
        let lines = hours.entry((key.window, readings.newer.header.epoch)).or_default();
        lines.extend(fold.names(key.series).into_iter().flat_map(|names| row_lines(names, key.late, &row)));
    }
    hours.values_mut().for_each(|lines| lines.sort_unstable());
    Ok(hours)
}

fn row_lines(names: &SeriesNames, late: u32, row: &Row) -> Vec<String> {
    let names = [&names.department, &names.subsystem, &names.command].map(|name| name.as_str());
    let admitted = (row.admitted > 0).then(|| canon::admission(names, [stored(row.admitted), stored(row.units)]));
    let usage = row.outcomes().map(|(outcome, totals)| {
        let OutcomeTotals { commands, units, request_bytes, response_bytes, duration_ns } = totals;
        let numbers = [commands, units, request_bytes, response_bytes, duration_ns].map(stored);
        canon::usage(names, outcome.name(), Some(i64::from(late)), &numbers)
    });
    let waived = row.waived();
    let waived = ((waived.commands, waived.units) != (0, 0))
        .then(|| canon::waived(names, i64::from(late), [stored(waived.commands), stored(waived.units)]));
    admitted.into_iter().chain(usage).chain(waived).collect()
}

fn unsealed(book: &Connection) -> rusqlite::Result<Vec<(u32, Window)>> {
    let mut query = book.prepare("SELECT epoch, \"window\" FROM unsealed ORDER BY \"window\", epoch")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, Window(row.get(1)?))))?;
    rows.collect()
}

/// What is in flight: of the epoch that is being counted as the tally has it, of others that have not ended as the book has.
fn flying(snapshot: &Snapshot) -> rusqlite::Result<Part> {
    let told = snapshot.readings().map(|readings| &readings.newer);
    let mut lines = stored_flying(&snapshot.connection, told.map_or(0, |image| image.header.epoch))?;
    for one in told.filter(|_| snapshot.is_kept).map(in_flight).unwrap_or_default() {
        let names = [&one.names.department, &one.names.subsystem, &one.names.command];
        let numbers = [one.record.commands, one.units, one.record.request_bytes, one.record.response_bytes];
        lines.push(format!(
            "flying\t{}\t{}\t{}",
            one.window,
            names.map(ToString::to_string).join("\t"),
            numbers.map(|number| number.to_string()).join("\t")
        ));
    }
    Ok(part(vec!["flying".to_owned()], lines))
}

/// As old as the last fold.
fn stored_flying(book: &Connection, told: u32) -> rusqlite::Result<Vec<String>> {
    let mut query = book.prepare(
        "SELECT \"window\", concat_ws(char(9), department, subsystem, command, commands, units, request_bytes, response_bytes)
         FROM in_flight JOIN series USING (series) WHERE epoch <> ?1 ORDER BY 1, 2",
    )?;
    let lines =
        query.query_map([told], |row| Ok(format!("flying\t{}\t{}", Window(row.get(0)?), row.get::<_, String>(1)?)))?;
    lines.collect()
}
