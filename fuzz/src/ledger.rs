//! Fuzz target for an edited ledger, as an auditor may receive it: any values in any rows, any words in the tally.
//!
//! Guarantees:
//! - The book has three hours, a correction and the ends of its epochs. The gateway's own ledger creates it once in
//!   each process.
//! - An edit is a few bytes, so that libFuzzer can create many edits.
//! - During the edits, the book's tables accept every type and missing values. Afterwards the book has its original
//!   schema again, as a forger would leave it.
//! - A gateway with a clock at any hour may run on the edited book. Its additions are valid: anyone could add rows with
//!   new seals.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::Value;
use tallygate::clock::Clock;
use tallygate::ledger::audit::{ExportError, NotedHead, export, ledger_info, verify};
use tallygate::ledger::{
    Adjustment, AdjustmentRow, Ledger, LedgerError, LedgerFiles, LedgerSettings, Meter, UsageRow, add_adjustment,
};
use tallygate::lifecycle::Readiness;
use tallygate::model::{CalendarOffset, CommandKey, Department, Finished, Name, Refused, Window};
use tempfile::TempDir;

/// Edits per input; more edits would only be slower.
const EDITS_MAX: usize = 16;
/// Placeholder for the settings that no seal covers: the calendar of the last start, which every reader names, and the
/// hour before which only days are left, which the rows themselves show.
const NOT_SEALED: &str = "(not sealed)";
const HOUR: Duration = Duration::from_secs(3600);
const ALWAYS: std::ops::Range<Window> = Window(0)..Window(u32::MAX);

/// A book and its tally as bytes, and the reports on them before any edit.
struct Original {
    book: Vec<u8>,
    tally: Option<Vec<u8>>,
    tables: Vec<Table>,
    /// Names of the tables, and their SQL text before the constraints were removed.
    schema: Vec<(String, String)>,
    head: NotedHead,
    said: Said,
}

struct Table {
    name: String,
    columns: Vec<String>,
    /// The columns that identify a row.
    key: String,
}

/// Export and reports of a ledger; `None` where the ledger refuses them.
#[derive(Debug)]
struct Said {
    export: Option<Vec<String>>,
    usage: Option<Vec<UsageRow>>,
    adjustments: Option<Vec<AdjustmentRow>>,
}

thread_local! {
    /// A closed ledger with all hours sealed, and a ledger whose gateway was killed. A fuzz target receives only bytes,
    /// so state that is created once has to be static.
    static ORIGINALS: Rc<[Original; 2]> = Rc::new([Original::make(true), Original::make(false)]);
}

/// An edited ledger is read to its end or refused with a reason.
///
/// `verify` is given the head of a closed ledger. If `verify` finds nothing:
/// - Export and reports are the same as before the edit, or are refused.
/// - After a gateway ran on the edited ledger, this holds for all hours up to the last one sealed at the head. `verify`
///   then reports that seals follow the head.
pub fn ledger(bytes: &[u8]) {
    let Some((which, mut edits)) = bytes.split_first() else { return };
    let originals = ORIGINALS.with(Rc::clone);
    let is_closed = which % 2 == 0;
    let original = &originals[usize::from(!is_closed)];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    std::fs::write(&path, &original.book).expect("a book");
    let book = Connection::open(&path).expect("a book");
    let _ = book.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY; PRAGMA foreign_keys = OFF");
    let mut tally = original.tally.clone();
    for _ in 0..EDITS_MAX {
        if Edit::read(&mut edits).is_none_or(|edit| edit.make(&book, &original.tables, tally.as_mut()).is_none()) {
            break;
        }
    }
    tighten(&book, &original.schema).expect("the schema as it was");
    drop(book);
    if let Some(tally) = tally {
        std::fs::write(path.with_extension("tally"), tally).expect("written");
    }
    let ran = is_closed && which & RUNS != 0 && run_on(&path, u32::from(which >> 2)).is_ok();
    let verdict = verify(&path, Some(&original.head), &mut |_, _, _| ());
    let _ = ledger_info(&path); // it returns a result or an error
    let said = Said::of(&path);
    let Some(verdict) = verdict.ok().filter(|verdict| is_closed && verdict.ok) else { return };
    if ran {
        assert!(verdict.after.is_some_and(|after| after.seals > 0), "it came after the head: {verdict:?}");
        let [said, original] = [&said, &original.said].map(|said| said.usage.as_ref().map(|rows| until_head(rows)));
        assert!(is_same(&said, &original), "an hour that was past: {said:#?}, not {original:#?}");
    } else {
        let is_told = is_same(&said.export, &original.said.export)
            && is_same(&said.usage, &original.said.usage)
            && is_same(&said.adjustments, &original.said.adjustments);
        assert!(is_told, "an edit that nothing finds: {said:#?}, not {:#?}", original.said);
    }
}

/// Bit of the first byte: a gateway runs on the edited book. The bits above it select the hour.
const RUNS: u8 = 2;

/// Runs a gateway that counts one command and closes, at an hour near those of the book. Returns an error if the
/// gateway cannot run on the edited book.
fn run_on(path: &Path, hour: u32) -> Result<(), LedgerError> {
    let clock = Clock::manual("2026-11-23T20:10:00Z".parse().expect("a time"));
    clock.advance(HOUR * hour);
    let (ledger, seeds) = Ledger::open(settings(path), clock.clone(), Box::new(|_| ()))?;
    let meter = seeds.into_iter().map(|seed| seed.into_meter()).next().expect("one worker");
    let (department, command) = (department(1), command());
    meter.received();
    meter.open(&department, &command, 3, clock.window()).expect("a slot").settle(Finished::Ok);
    let passed = pass((&clock, &ledger, &meter));
    drop(meter);
    passed.and(ledger.close())
}

/// The rows of the hours that were sealed when the head was noted, which are the first rows of the book.
fn until_head(rows: &[UsageRow]) -> Vec<&UsageRow> {
    rows.iter().filter(|row| row.window <= LAST_SEALED).collect()
}

/// The last hour of [`kept`] that is sealed at the close, 2026-11-24T06:00:00Z.
const LAST_SEALED: Window = Window(498_750);

/// One change of one value.
struct Edit {
    what: u8,
    table: u8,
    row: u8,
    column: u8,
    value: Value,
}

impl Edit {
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let [what, table, row, column] = *bytes.split_off(..4)?.first_chunk()?;
        let value = match what >> 4 {
            0..=3 => Value::Integer(i64::from(*bytes.split_off_first()?) - 128),
            4..=6 => Value::Integer(i64::from_le_bytes(*bytes.split_off(..8)?.first_chunk()?)),
            7..=11 => Value::Text(String::from_utf8_lossy(text(bytes)?).into_owned()),
            12 => Value::Blob(text(bytes)?.to_vec()),
            13 => Value::Real(f64::from_le_bytes(*bytes.split_off(..8)?.first_chunk()?)),
            _ => Value::Null,
        };
        Some(Self { what: what & 7, table, row, column, value })
    }

    /// Applies the edit if the book accepts it. Returns `None` if the target of the edit does not exist.
    fn make(self, book: &Connection, tables: &[Table], tally: Option<&mut Vec<u8>>) -> Option<()> {
        let Self { what, table, row, column, value } = self;
        let table = &tables[usize::from(table) % tables.len()];
        let Table { name, columns, key } = table;
        let changed = &columns[usize::from(column) % columns.len()];
        let count: i64 = book.query_row(&format!("SELECT count(*) FROM {name}"), [], |row| row.get(0)).ok()?;
        let offset = i64::from(row).checked_rem(count).unwrap_or(0);
        let place = format!("({key}) = (SELECT {key} FROM {name} ORDER BY {key} LIMIT 1 OFFSET {offset})");
        let done = match what {
            0 => book.execute(&format!("DELETE FROM {name} WHERE {place}"), []),
            1 => book.execute(&format!("UPDATE {name} SET {changed} = {changed} + ?1 WHERE {place}"), [value]),
            2 => book.execute(&format!("UPDATE {name} SET {changed} = {changed} || ?1 WHERE {place}"), [value]),
            3 => {
                let all =
                    columns.iter().map(|column| if column == changed { "?1" } else { column }).collect::<Vec<_>>();
                book.execute(
                    &format!("INSERT INTO {name} SELECT {} FROM {name} WHERE {place}", all.join(", ")),
                    [value],
                )
            }
            6 => book.execute_batch(SCHEMA_EDITS[usize::from(row) % SCHEMA_EDITS.len()]).map(|()| 1),
            4 => return tally.map(|tally| scratch(tally, (row, column), &value)),
            _ => book.execute(&format!("UPDATE {name} SET {changed} = ?1 WHERE {place}"), [value]),
        };
        let _ = done; // edits that the keys forbid are skipped
        Some(())
    }
}

/// Schema changes that make a book report wrong figures with unchanged rows.
const SCHEMA_EDITS: [&str; 4] = [
    "DROP VIEW usage_hourly; CREATE VIEW usage_hourly AS SELECT 1 AS units",
    "CREATE TRIGGER planted AFTER INSERT ON usage BEGIN UPDATE usage SET units = 0; END",
    "DROP INDEX seal_of_hour",
    "CREATE VIEW mine AS SELECT 1",
];

/// A length byte, and that number of bytes.
fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::from(*bytes.split_off_first()?);
    bytes.split_off(..length.min(bytes.len()))
}

/// Changes a word in the first 64 KiB of the tally: its header and the slots in use.
fn scratch(tally: &mut [u8], (row, column): (u8, u8), value: &Value) {
    let at = usize::from(u16::from_be_bytes([row, column])) / 8 * 8;
    if let (Value::Integer(number), Some(word)) = (value, tally.get_mut(at..at + 8)) {
        let bits = u64::from_le_bytes(*word.first_chunk().expect("eight bytes"));
        word.copy_from_slice(&(bits ^ number.cast_unsigned()).to_le_bytes());
    }
}

impl Original {
    fn make(is_closed: bool) -> Self {
        let folder = kept(is_closed).expect("a ledger");
        let path = folder.path().join("ledger.db");
        let verdict = verify(&path, None, &mut |_, _, _| ()).expect("an audit");
        assert!(verdict.ok, "{:?}", verdict.findings);
        let said = Said::of(&path);
        let tally = std::fs::read(path.with_extension("tally")).ok();
        assert!(is_closed == tally.is_none() && said.export.is_some() && said.usage.is_some(), "{said:?}");
        let schema = schema(&path).expect("a schema");
        let tables = loosen(&path).expect("a book that lets itself be edited");
        let head = NotedHead { number: verdict.head.number, hash: verdict.head.hash };
        Self { book: std::fs::read(&path).expect("a book"), tally, tables, schema, head, said }
    }
}

/// Writes a ledger: three sealed hours, a correction, a late end. A ledger that is not closed also has an open hour and
/// a command in flight.
fn kept(is_closed: bool) -> Result<TempDir, LedgerError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    let clock = Clock::manual("2026-11-24T03:10:00Z".parse().expect("a time"));
    let (ledger, seeds) = Ledger::open(settings(&path), clock.clone(), Box::new(|error| panic!("{error}")))?;
    let meter = seeds.into_iter().map(|seed| seed.into_meter()).next().expect("one worker");
    let (departments, command) = ([1, 2].map(department), command());
    let names = departments.iter().map(|department| (department.id.clone(), department.name.clone()));
    ledger.reader().update_department_names(names.collect());
    let admit = |department| {
        meter.received();
        meter.open(&departments[department], &command, 3, clock.window()).expect("a slot")
    };
    let stream = admit(0);
    for number in 0..3 {
        admit(number % 2).settle(Finished::Ok);
        let mut unsent = admit(0);
        unsent.waive();
        unsent.settle(Finished::Timeout);
        meter.received();
        meter.refuse(&departments[1], &command, Refused::Forbidden, clock.window());
        pass((&clock, &ledger, &meter))?;
    }
    stream.settle(Finished::Aborted);
    let correction = Adjustment {
        department: name("department-1"),
        subsystem: None,
        command: None,
        period: "2026-11".to_owned(),
        units: -5,
        reason: "a test".to_owned(),
        who: "finance".to_owned(),
    };
    add_adjustment(&path, &correction, &clock)?;
    pass((&clock, &ledger, &meter))?;
    if is_closed {
        drop(meter);
        ledger.close()?;
        return Ok(folder);
    }
    let flying = admit(1);
    wait(ledger.reader().fold_now())?;
    drop(ledger); // like a kill: the command in flight has no end
    drop(flying);
    Ok(folder)
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn department(number: u32) -> Department {
    Department { number, id: name(&format!("department-{number}")), name: "A".to_owned() }
}

fn command() -> CommandKey {
    CommandKey { number: 1, subsystem: name("cameras"), command: name("snapshot.read") }
}

fn settings(path: &Path) -> LedgerSettings {
    LedgerSettings {
        path: path.to_owned(),
        gateway: name("gateway-1"),
        sync_every: HOUR,
        workers: 1,
        calendar: CalendarOffset::default(),
        compact_after: None,
        ready: Readiness::default(),
    }
}

/// Advances the clock by an hour, until keeper and worker agree on the sealed hours.
fn pass((clock, ledger, meter): (&Clock, &Ledger, &Meter)) -> Result<(), LedgerError> {
    clock.advance(HOUR);
    for _ in 0..4 {
        wait(ledger.reader().fold_now())?;
        meter.tick();
    }
    Ok(())
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

/// Removes the type constraints from a book's tables; returns the tables.
fn loosen(path: &Path) -> rusqlite::Result<Vec<Table>> {
    let book = Connection::open(path)?;
    book.execute_batch(
        "PRAGMA journal_mode = DELETE; PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(replace(replace(sql, 'STRICT, ', ''), 'STRICT', ''), ' NOT NULL', '')
         WHERE type = 'table';
         PRAGMA writable_schema = RESET; VACUUM",
    )?;
    let mut names = book.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let names = names.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    names.into_iter().map(|name| table(&book, name)).collect()
}

/// The SQL text of every table.
fn schema(path: &Path) -> rusqlite::Result<Vec<(String, String)>> {
    let book = Connection::open(path)?;
    let mut query = book.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'table'")?;
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Restores the original SQL text of a book's tables.
fn tighten(book: &Connection, schema: &[(String, String)]) -> rusqlite::Result<()> {
    book.execute_batch("PRAGMA writable_schema = ON")?;
    for (name, sql) in schema {
        book.execute("UPDATE sqlite_schema SET sql = ?2 WHERE type = 'table' AND name = ?1", (name, sql))?;
    }
    book.execute_batch("PRAGMA writable_schema = RESET")
}

fn table(book: &Connection, name: String) -> rusqlite::Result<Table> {
    let mut query = book.prepare("SELECT name, pk FROM pragma_table_info(?1)")?;
    let columns =
        query.query_map([&name], |row| Ok((format!("\"{}\"", row.get::<_, String>(0)?), row.get::<_, u32>(1)?)))?;
    let columns = columns.collect::<rusqlite::Result<Vec<_>>>()?;
    let key =
        columns.iter().filter(|(_, part)| *part > 0).map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    Ok(Table { name, key, columns: columns.into_iter().map(|(name, _)| name).collect() })
}

impl Said {
    fn of(path: &Path) -> Self {
        let files = LedgerFiles::open(path).ok();
        Self {
            export: exported(path).ok(),
            usage: files.as_ref().and_then(|files| files.usage_by_hour(ALWAYS).ok()),
            adjustments: files.and_then(|files| files.adjustments().ok()),
        }
    }
}

/// Whether the ledger reports the original figures, or none.
fn is_same<T: PartialEq>(said: &Option<T>, original: &Option<T>) -> bool {
    said.is_none() || said == original
}

/// The text of an export. Each part has the length in its heading, whatever the contents of the book.
fn exported(path: &Path) -> Result<Vec<String>, ExportError> {
    let mut text = Vec::new();
    export(path, &mut |part| {
        let count = part.lines.len().to_string();
        assert_eq!(part.heading.last(), Some(&count), "{:?}", part.heading);
        assert!(part.heading.iter().all(|field| !field.contains(['\t', '\n'])), "{:?}", part.heading);
        assert!(part.lines.iter().all(|line| !line.contains('\n')), "{:?}", part.lines);
        let mut heading = part.heading;
        if let [title, _, settings @ ..] = heading.as_mut_slice()
            && title == "tallygate export 1"
        {
            settings.fill(NOT_SEALED.to_owned());
        }
        text.push(heading.join("\t"));
        text.extend(part.lines);
        Ok(())
    })?;
    Ok(text)
}
