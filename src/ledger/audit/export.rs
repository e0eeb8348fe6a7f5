//! Exports the raw book line by line, so that a third-party program can recompute every sum and every hash.
//!
//! An export contains, in this order:
//! - all epochs
//! - the seals in order, each with the canonical lines that it covers
//! - the rows that wait for a seal
//! - the commands in flight
//!
//! Guarantees:
//! - The export is a consistent snapshot of the ledger.
//! - The parts together equal the reports, so admitted = ended + in flight for every department. Commands in flight of
//!   a dead gateway are `interrupted`, as in reports.
//! - Memory holds at most the lines of one seal.
//!
//! `docs/ledger.md` describes the text; `docs/check_ledger.py` reads it.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;

use crate::ledger::book::schema_check;
use crate::ledger::fold::{FoldRow, SeriesNames};
use crate::ledger::hash_chain::canonical::{self, SealRow, value_or_dash};
use crate::ledger::hash_chain::canonical_rows;
use crate::ledger::keeper::recovery::fold_dead;
use crate::ledger::values::error::LedgerError;
use crate::ledger::values::measures::{Measures, UsageSums};
use crate::model::Window;

use super::calendar_days::CalendarDays;
use super::ledger_snapshot::LedgerSnapshot;
use super::open_epoch::{fold_from, series_in_flight};
use super::seal_walk::{covered_lines, walk_seals};

/// One part of an export: a heading, and its canonical lines.
#[derive(Clone, Debug)]
pub struct ExportPart {
    /// The first field is the kind: `tallygate export 1`, `epochs`, `seal`, `open`, `flying` or `end`. The last field
    /// is the number of lines that follow.
    pub heading: Vec<String>,
    /// Canonical lines; none for a seal whose hours were removed by compaction.
    pub lines: Vec<String>,
}

/// The reason why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The export could not be written.
    #[error("the export could not be written: {0}")]
    Write(#[from] std::io::Error),
    /// Reading the book failed.
    #[error("the book could not be read: {0}")]
    Book(#[from] rusqlite::Error),
    /// A text contains a line end, or a tab in a field of a heading: a reader of the export would read other values
    /// than the book holds.
    #[error(
        "the book contains {0:?}, which cannot be exported and which no gateway writes: the book was edited; run \
         `ledger verify` for details"
    )]
    Torn(String),
}

/// Passes every part to `write`, in order.
pub fn export(path: &Path, write: &mut dyn FnMut(ExportPart) -> std::io::Result<()>) -> Result<(), ExportError> {
    let mut write = |part: ExportPart| -> Result<(), ExportError> { Ok(write(part.complete()?)?) };
    let snapshot = LedgerSnapshot::read_consistent(path)?;
    let book = &snapshot.connection;
    schema_check::check_schema(book, path)?;
    let days = CalendarDays::from_book(book)?;
    write(first_part(book)?)?;
    write(export_part(vec!["epochs".to_owned()], canonical_rows::all_epoch_lines(book)?))?;
    let mut seals = 0_u64;
    walk_seals(book, |seal, place| -> Result<(), ExportError> {
        seals += 1;
        let lines = covered_lines(book, &days, (seal, place))?.unwrap_or_default();
        write(export_part(seal_heading(seal), lines))
    })?;
    for ((window, epoch), lines) in open_hours(&snapshot)? {
        write(export_part(vec!["open".to_owned(), epoch.to_string(), window.to_string()], lines))?;
    }
    write(in_flight_part(&snapshot)?)?;
    write(export_part(vec!["end".to_owned(), seals.to_string()], Vec::new()))
}

impl ExportPart {
    /// Returns the part, if its fields and lines can be separated again after they are written.
    fn complete(self) -> Result<Self, ExportError> {
        let fields = self.heading.iter().filter(|field| field.contains(['\t', '\n', '\r']));
        match fields.chain(self.lines.iter().filter(|line| line.contains(['\n', '\r']))).next() {
            Some(torn) => Err(ExportError::Torn(torn.clone())),
            None => Ok(self),
        }
    }
}

fn export_part(mut heading: Vec<String>, lines: Vec<String>) -> ExportPart {
    heading.push(lines.len().to_string());
    ExportPart { heading, lines }
}

fn first_part(book: &Connection) -> rusqlite::Result<ExportPart> {
    let query = "SELECT gateway, calendar_offset, rolled_before FROM meta";
    let (gateway, calendar, horizon) =
        book.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, Window(row.get(2)?))))?;
    Ok(export_part(vec!["tallygate export 1".to_owned(), gateway, calendar, horizon.to_string()], Vec::new()))
}

fn seal_heading(seal: &SealRow) -> Vec<String> {
    let SealRow { number, format, kind, epoch, window, lines, content, previous_hash: previous, hash, sealed_at } =
        seal;
    let place = [kind.name().to_owned(), value_or_dash(*epoch), value_or_dash(*window)];
    let hashes = [lines.to_string(), content.clone(), previous.clone(), hash.clone(), sealed_at.clone()];
    ["seal".to_owned(), number.to_string(), format.to_string()].into_iter().chain(place).chain(hashes).collect()
}

/// Returns the rows that wait for a seal: those of the open epoch from the tally, those of other epochs from the book.
fn open_hours(snapshot: &LedgerSnapshot) -> rusqlite::Result<BTreeMap<(Window, u32), Vec<String>>> {
    let book = &snapshot.connection;
    let open_epoch = snapshot.readings().map(|readings| (readings.newer.header.epoch, readings.first_unsealed));
    let mut hours = BTreeMap::new();
    for (epoch, window) in unsealed_hours(book)? {
        if open_epoch.is_none_or(|(open, floor)| epoch != open || window < floor) {
            hours.insert((window, epoch), canonical_rows::hour_lines(book, (epoch, window), 2)?);
        }
    }
    let Some(readings) = snapshot.readings() else { return Ok(hours) };
    let fold = match snapshot.is_kept {
        true => fold_from(&readings.newer, readings.first_unsealed),
        false => fold_dead(Vec::new(), &readings.newer, readings.first_unsealed),
    };
    for (key, row) in fold.changed_rows() {
        let lines = hours.entry((key.window, readings.newer.header.epoch)).or_default();
        lines.extend(fold.series_names(key.series).into_iter().flat_map(|names| row_lines(names, key.late, &row)));
    }
    hours.values_mut().for_each(|lines| lines.sort_unstable());
    Ok(hours)
}

fn row_lines(names: &SeriesNames, late: u32, row: &FoldRow) -> Vec<String> {
    let names = [&names.department, &names.subsystem, &names.command].map(|name| name.as_str());
    let late = i64::from(late);
    let admitted = (row.admitted.commands > 0).then(|| canonical::admission_line(names, row.admitted.to_stored()));
    let usage = row
        .outcomes()
        .map(|(outcome, totals)| canonical::usage_line(names, outcome.name(), Some(late), &totals.to_stored()));
    let waived = Some(row.waived()).filter(|waived| *waived != UsageSums::default());
    let waived = waived.map(|waived| canonical::waived_line(names, late, waived.to_stored()));
    admitted.into_iter().chain(usage).chain(waived).collect()
}

fn unsealed_hours(book: &Connection) -> rusqlite::Result<Vec<(u32, Window)>> {
    let mut query = book.prepare("SELECT epoch, \"window\" FROM unsealed ORDER BY \"window\", epoch")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, Window(row.get(1)?))))?;
    rows.collect()
}

/// Returns the commands in flight: those of the open epoch from the tally, those of other epochs that have not ended
/// from the book.
fn in_flight_part(snapshot: &LedgerSnapshot) -> rusqlite::Result<ExportPart> {
    let newest = snapshot.readings().map(|readings| &readings.newer);
    let mut lines = stored_in_flight_lines(&snapshot.connection, newest.map_or(0, |image| image.header.epoch))?;
    for one in newest.filter(|_| snapshot.is_kept).map(series_in_flight).unwrap_or_default() {
        let names = [&one.names.department, &one.names.subsystem, &one.names.command];
        let Measures { commands, units, request_bytes, response_bytes, .. } = one.measures;
        let numbers = [commands, units, request_bytes, response_bytes];
        lines.push(format!(
            "flying\t{}\t{}\t{}",
            one.window,
            names.map(ToString::to_string).join("\t"),
            numbers.map(|number| number.to_string()).join("\t")
        ));
    }
    Ok(export_part(vec!["flying".to_owned()], lines))
}

/// Returns the rows in flight from the book, as of the last fold.
fn stored_in_flight_lines(book: &Connection, open_epoch: u32) -> rusqlite::Result<Vec<String>> {
    let mut query = book.prepare(
        "SELECT \"window\", concat_ws(char(9), department, subsystem, command, commands, units, request_bytes, response_bytes)
         FROM in_flight JOIN series USING (series) WHERE epoch <> ?1 ORDER BY 1, 2",
    )?;
    let lines = query
        .query_map([open_epoch], |row| Ok(format!("flying\t{}\t{}", Window(row.get(0)?), row.get::<_, String>(1)?)))?;
    lines.collect()
}
