//! Everything the ledger holds as text, for programs that do not trust this one.
//!
//! Guarantees: what seals cover is written as the very lines that were hashed, so a reader can compute every hash and sum
//! again; one seal is in memory at a time; the last line says how many lines there were, so a cut export shows. The
//! form is described in `docs/ledger.md`, and read by `docs/check_ledger.py`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use rusqlite::Connection;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Progress;
use super::chain::count_seals;
use super::days::Days;
use super::epochs::{EpochRow, Epochs};
use super::open::{self, InFlight};
use super::seals::{lines_of, walk};
use super::snapshot::Snapshot;
use crate::ledger::canon::{SealRow, shown};
use crate::ledger::error::LedgerError;
use crate::ledger::lines;
use crate::ledger::pages::format_of;
use crate::ledger::schema::FORMAT;
use crate::model::Window;

/// The first line of an export.
const TITLE: &str = "tallygate export 1";

/// How an export is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportForm {
    /// Fields separated by tabs: the canonical lines themselves.
    #[default]
    Text,
    /// One JSON object per line, with the same fields by name.
    JsonLines,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Export {
    /// Seals.
    pub seals: u64,
    /// Lines, without the last.
    pub lines: u64,
    /// Commands in flight.
    pub in_flight: u64,
}

/// Why an export is not whole.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The export could not be written.
    #[error("could not write the export: {0}. Check that there is space; what was written so far is not whole")]
    Write(#[from] io::Error),
}

/// Writes the ledger at `path` to `out`.
pub fn export(
    path: &Path,
    form: ExportForm,
    out: &mut dyn Write,
    progress: &mut Progress<'_>,
) -> Result<Export, ExportError> {
    let snapshot = Snapshot::take_settled(path)?;
    let mut writer = Writer { out, form, done: Export::default() };
    let written = write(&snapshot, &mut writer, progress).map_err(|error| match error {
        Failure::Book(error) => ExportError::Ledger(snapshot.failed(error)),
        Failure::Write(error) => ExportError::Write(error),
    });
    written.map(|()| writer.done)
}

/// What may fail on the way.
#[derive(Debug)]
enum Failure {
    Book(rusqlite::Error),
    Write(io::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Book(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

fn write(snapshot: &Snapshot, writer: &mut Writer<'_>, progress: &mut Progress<'_>) -> Result<(), Failure> {
    let book = &snapshot.connection;
    let (days, epochs) = (Days::read(book)?, Epochs::read(book)?);
    writer.title()?;
    writer.line(&book_line(book, &days)?)?;
    for epoch in &epochs.rows {
        writer.line(&epoch_line(epoch))?;
    }
    write_seals(book, &days, writer, progress)?;
    for ((epoch, window), lines) in open_lines(snapshot)? {
        writer.line(&format!("open\t{epoch}\t{window}"))?;
        lines.iter().try_for_each(|line| writer.line(line))?;
    }
    for line in flying_lines(snapshot, &mut writer.done)? {
        writer.line(&line)?;
    }
    let Export { seals, lines, .. } = writer.done;
    writer.line(&format!("end\t{seals}\t{lines}"))?;
    writer.done.lines = lines;
    writer.out.flush().map_err(Failure::from)
}

fn book_line(book: &Connection, days: &Days) -> rusqlite::Result<String> {
    let query = "SELECT gateway, head_number, head_hash FROM meta";
    let (gateway, number, hash): (String, i64, String) =
        book.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let (format, calendar, horizon) = (format_of(book)?, days.calendar, days.horizon);
    let hash = Some(hash).filter(|hash| !hash.is_empty());
    Ok(format!("book\t{gateway}\t{format}\t{calendar}\t{number}\t{}\t{horizon}", shown(hash)))
}

fn epoch_line(epoch: &EpochRow) -> String {
    let EpochRow { epoch: number, gateway, boot_id, process_id, started_at, last_sync_at, ended_at, ending } = epoch;
    let (ended_at, ending) = (shown(ended_at.as_ref()), shown(ending.as_ref()));
    format!("epoch\t{number}\t{gateway}\t{boot_id}\t{process_id}\t{started_at}\t{last_sync_at}\t{ended_at}\t{ending}")
}

fn write_seals(
    book: &Connection,
    days: &Days,
    writer: &mut Writer<'_>,
    progress: &mut Progress<'_>,
) -> Result<(), Failure> {
    let count = count_seals(book)?;
    walk(book, |seal, place| {
        progress("seals", writer.done.seals, count);
        writer.done.seals += 1;
        writer.line(&seal_line(seal))?;
        let lines = lines_of(book, days, (seal, place))?.unwrap_or_default();
        lines.iter().try_for_each(|line| writer.line(line)).map_err(Failure::from)
    })
}

fn seal_line(seal: &SealRow) -> String {
    let SealRow { number, format, kind, epoch, window, lines, content, previous, hash, sealed_at } = seal;
    let (kind, epoch, window) = (kind.name(), shown(*epoch), shown(*window));
    format!("seal\t{number}\t{format}\t{kind}\t{epoch}\t{window}\t{lines}\t{content}\t{previous}\t{hash}\t{sealed_at}")
}

/// The rows that wait for a seal: the tally's, where it is what they come from, else the book's.
fn open_lines(snapshot: &Snapshot) -> rusqlite::Result<BTreeMap<(u32, Window), Vec<String>>> {
    let book = &snapshot.connection;
    let mut open = open::lines(snapshot);
    let told = snapshot.readings().map(|readings| readings.newer.header.epoch);
    let mut query = book.prepare("SELECT epoch, \"window\" FROM unsealed")?;
    let waiting = query.query_map([], |row| Ok((row.get(0)?, Window(row.get(1)?))))?;
    for place in waiting {
        let (epoch, window) = place?;
        if told != Some(epoch) {
            open.insert((epoch, window), lines::of_hour(book, (epoch, window), FORMAT)?);
        }
    }
    Ok(open)
}

/// What has not ended, as the tally tells it, or the book where there is none.
fn flying_lines(snapshot: &Snapshot, done: &mut Export) -> rusqlite::Result<Vec<String>> {
    let book = &snapshot.connection;
    let flying = match snapshot.readings() {
        Some(readings) if snapshot.is_kept => (readings.newer.header.epoch, open::in_flight(&readings.newer)),
        Some(_) => return Ok(Vec::new()), // the process is dead, so they are `interrupted`
        None => return stored_flying_lines(book, done),
    };
    done.in_flight = flying.1.iter().map(|one| one.record.commands).sum();
    Ok(flying.1.iter().map(|one| flying_line(flying.0, one)).collect())
}

fn flying_line(epoch: u32, one: &InFlight) -> String {
    let InFlight { window, names, units, record } = one;
    let names = [&names.department, &names.subsystem, &names.command].map(ToString::to_string).join("\t");
    let numbers = [record.commands, *units, record.request_bytes, record.response_bytes, record.duration_ns];
    format!("in_flight\t{epoch}\t{window}\t{names}\t{}", numbers.map(|number| number.to_string()).join("\t"))
}

fn stored_flying_lines(book: &Connection, done: &mut Export) -> rusqlite::Result<Vec<String>> {
    let mut query = book.prepare(
        "SELECT epoch, \"window\", concat_ws(char(9), department, subsystem, command, commands, units, request_bytes,
                response_bytes, duration_ns), commands
         FROM in_flight JOIN series USING (series) ORDER BY 1, 2, 3",
    )?;
    let mut rows = query.query([])?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        let (epoch, window, rest): (u32, u32, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        done.in_flight = done.in_flight.saturating_add(row.get::<_, i64>(3)?.unsigned_abs());
        lines.push(format!("in_flight\t{epoch}\t{}\t{rest}", Window(window)));
    }
    Ok(lines)
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    form: ExportForm,
    done: Export,
}

impl Writer<'_> {
    fn title(&mut self) -> io::Result<()> {
        match self.form {
            ExportForm::Text => self.line(TITLE),
            ExportForm::JsonLines => self.json([("record", Value::from("export")), ("format", Value::from(1))]),
        }
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        match self.form {
            ExportForm::Text => {
                self.done.lines += 1;
                self.out.write_all(line.as_bytes())?;
                self.out.write_all(b"\n")
            }
            ExportForm::JsonLines => self.json(named(line)),
        }
    }

    fn json<'f>(&mut self, fields: impl IntoIterator<Item = (&'f str, Value)>) -> io::Result<()> {
        self.done.lines += 1;
        let object: Map<String, Value> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        serde_json::to_writer(&mut *self.out, &object)?;
        self.out.write_all(b"\n")
    }
}

/// The fields of a line by their names. Those of `epoch` to `ns` that are numbers are so here, and `-` is null.
fn named(line: &str) -> Vec<(&'static str, Value)> {
    let fields: Vec<&str> = line.split('\t').collect();
    fields_of(fields[0], fields.len()).iter().zip(fields).map(|(name, field)| (*name, value(name, field))).collect()
}

fn value(name: &str, field: &str) -> Value {
    match field {
        "-" => Value::Null,
        _ if TEXTS.contains(&name) => Value::from(field),
        _ => field.parse::<i64>().map_or_else(|_| Value::from(field), Value::from),
    }
}

/// Fields that are text even if they look like numbers.
const TEXTS: [&str; 9] =
    ["gateway", "boot_id", "department", "subsystem", "command", "reason", "who", "period", "hash"];

/// The names of a line's fields; by their number where two kinds of line begin with the same word.
fn fields_of(word: &str, count: usize) -> &'static [&'static str] {
    match (word, count) {
        ("book", _) => &["record", "gateway", "format", "calendar", "head_number", "head_hash", "rolled_before"],
        ("epoch", _) => {
            &["record", "epoch", "gateway", "boot_id", "process_id", "started_at", "last_sync_at", "ended_at", "ending"]
        }
        ("seal", 3) => &["record", "number", "hash"],
        ("seal", _) => &[
            "record",
            "number",
            "format",
            "kind",
            "epoch",
            "window",
            "lines",
            "content",
            "previous",
            "hash",
            "sealed_at",
        ],
        ("admission", _) => &["record", "department", "subsystem", "command", "admitted", "units"],
        ("usage", 10) => &[
            "record",
            "department",
            "subsystem",
            "command",
            "outcome",
            "commands",
            "units",
            "request_bytes",
            "response_bytes",
            "duration_ns",
        ],
        ("usage", _) => &[
            "record",
            "department",
            "subsystem",
            "command",
            "outcome",
            "late",
            "commands",
            "units",
            "request_bytes",
            "response_bytes",
            "duration_ns",
        ],
        ("day", _) => &[
            "record",
            "department",
            "subsystem",
            "command",
            "outcome",
            "commands",
            "units",
            "request_bytes",
            "response_bytes",
            "duration_ns",
        ],
        ("adjustment", _) => {
            &["record", "number", "department", "subsystem", "command", "period", "units", "reason", "who", "made_at"]
        }
        ("open", _) => &["record", "epoch", "window"],
        ("in_flight", _) => &[
            "record",
            "epoch",
            "window",
            "department",
            "subsystem",
            "command",
            "commands",
            "units",
            "request_bytes",
            "response_bytes",
            "duration_ns",
        ],
        ("end", _) => &["record", "seals", "lines"],
        _ => &["record"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_line_has_a_name() {
        for (line, last) in [
            ("usage\tpolice\tcameras\tread\tok\t0\t1\t3\t0\t0\t9", "duration_ns"),
            ("usage\tpolice\tcameras\tread\tok\t1\t3\t0\t0\t9", "duration_ns"),
            ("seal\t7\tab", "hash"),
            ("open\t1\t2026-11-24T03:00:00Z", "window"),
        ] {
            let fields = named(line);
            assert_eq!(fields.len(), line.split('\t').count(), "{line}");
            assert_eq!(fields.last().map(|(name, _)| *name), Some(last));
        }
        let adjustment = named("adjustment\t1\t12\t-\t-\t2026-11\t-5\t7\tfinance\t2026-11-24T03:10:00Z");
        assert_eq!(adjustment[2].1, "12", "a department that looks like a number is text");
        assert_eq!((&adjustment[3].1, &adjustment[6].1), (&Value::Null, &Value::from(-5)));
    }
}
