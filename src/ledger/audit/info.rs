//! What a ledger is and how it is: one page for people and programs.
//!
//! Guarantees: cheap, since only sums and ends are read, never all rows; whether it is sound is for `verify`.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;

use super::days::Days;
use super::epochs::{EpochRow, Epochs};
use super::finding::ChainHead;
use super::open;
use super::snapshot::{Readings, Snapshot, TallyState};
use super::tally::workers;
use crate::ledger::canon::BEGINNING;
use crate::ledger::error::LedgerError;
use crate::ledger::pages::format_of;
use crate::ledger::slot::Kind;
use crate::ledger::words::Record;
use crate::ledger::{TALLY, tally::TallyImage};
use crate::model::Window;

/// What `ledger info` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// The gateway that made the book.
    pub gateway: String,
    /// The book's format.
    pub format: u32,
    /// Its calendar, as an offset.
    pub calendar: String,
    /// The process that keeps it now.
    pub kept_by: Option<u32>,
    /// The end of the chain.
    pub head: ChainHead,
    /// All epochs, oldest first.
    pub epochs: Vec<EpochState>,
    /// Its hours.
    pub windows: WindowSums,
    /// Hours before this one are kept as whole days only.
    pub rolled_before: Option<String>,
    /// Admitted and not ended.
    pub in_flight: FlightSums,
    /// Corrections.
    pub adjustments: AdjustmentSums,
    /// Bytes on the disk.
    pub sizes: Sizes,
    /// The tally's slots, if there is one that belongs to this book.
    pub slots: Option<SlotSums>,
    /// What the epoch that has not ended counted since it began.
    pub live: Option<LiveSums>,
    /// What should be known besides.
    pub notes: Vec<String>,
}

/// A life of a gateway.
#[derive(Clone, Debug, Serialize)]
pub struct EpochState {
    /// As the book tells it.
    #[serde(flatten)]
    pub row: EpochRow,
    /// How it is, in words: its ending and what that means for its counts, or that it runs.
    pub state: String,
}

/// Hours that have rows.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WindowSums {
    /// The first.
    pub first: Option<String>,
    /// The last.
    pub last: Option<String>,
    /// How many are sealed.
    pub sealed: u64,
    /// How many wait for a seal.
    pub unsealed: u64,
}

/// Commands in flight, with what they have used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FlightSums {
    /// Commands.
    pub commands: u64,
    /// Their units.
    pub units: u64,
    /// Bytes of their requests.
    pub request_bytes: u64,
    /// Bytes of their answers.
    pub response_bytes: u64,
    /// Nanoseconds since their admission, summed.
    pub duration_ns: u64,
}

/// Corrections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AdjustmentSums {
    /// How many.
    pub count: u64,
    /// Their units, summed.
    pub units: i64,
}

/// Bytes of the ledger's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// The book.
    pub book: u64,
    /// SQLite's write-ahead log beside it.
    pub wal: u64,
    /// The tally.
    pub tally: u64,
}

/// What the tally's slots are used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SlotSums {
    /// In use.
    pub in_use: u64,
    /// Free.
    pub free: u64,
}

/// Sums over all workers of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LiveSums {
    /// Commands received.
    pub received: u64,
    /// Of them refused.
    pub refused: u64,
    /// Of them ended.
    pub finished: u64,
    /// Of them in flight.
    pub in_flight: u64,
}

/// Looks at the ledger at `path`.
pub fn info(path: &Path) -> Result<Info, LedgerError> {
    let snapshot = Snapshot::take(path)?;
    read(&snapshot).map_err(|error| snapshot.failed(error))
}

fn read(snapshot: &Snapshot) -> rusqlite::Result<Info> {
    let book = &snapshot.connection;
    let days = Days::read(book)?;
    let image = snapshot.readings().map(|readings| &readings.newer);
    Ok(Info {
        gateway: book.query_row("SELECT gateway FROM meta", [], |row| row.get(0))?,
        format: format_of(book)?,
        calendar: days.calendar.to_string(),
        kept_by: kept_by(snapshot),
        head: head(book)?,
        epochs: epochs(snapshot)?,
        windows: windows(snapshot)?,
        rolled_before: (days.horizon > Window(0)).then(|| days.horizon.to_string()),
        in_flight: in_flight(snapshot)?,
        adjustments: adjustments(book)?,
        sizes: sizes(&snapshot.path),
        slots: image.map(slots),
        live: image.map(live),
        notes: notes(snapshot),
    })
}

fn kept_by(snapshot: &Snapshot) -> Option<u32> {
    snapshot.readings().filter(|_| snapshot.is_kept).map(|readings| readings.newer.header.process)
}

fn head(book: &Connection) -> rusqlite::Result<ChainHead> {
    let query = "SELECT number, hash, sealed_at FROM seal ORDER BY number DESC LIMIT 1";
    let head = book.query_row(query, [], |row| {
        Ok(ChainHead { number: row.get(0)?, hash: row.get(1)?, sealed_at: Some(row.get(2)?) })
    });
    let beginning = || ChainHead { number: 0, hash: BEGINNING.to_owned(), sealed_at: None };
    head.optional().map(|head| head.unwrap_or_else(beginning))
}

fn epochs(snapshot: &Snapshot) -> rusqlite::Result<Vec<EpochState>> {
    let mut rows = Epochs::read(&snapshot.connection)?.rows;
    if let Some(readings) =
        snapshot.readings().filter(|readings| rows.iter().all(|row| row.epoch != epoch_of(readings)))
    {
        rows.push(begun(&readings.newer));
    }
    Ok(rows.into_iter().map(|row| EpochState { state: state(&row, snapshot), row }).collect())
}

fn epoch_of(readings: &Readings) -> u32 {
    readings.newer.header.epoch
}

/// The book has not heard of it yet.
fn begun(image: &TallyImage) -> EpochRow {
    let header = &image.header;
    EpochRow {
        epoch: header.epoch,
        gateway: header.gateway.clone(),
        boot_id: header.boot_id.clone(),
        process_id: header.process,
        started_at: header.created.to_string(),
        last_sync_at: header.synced_at.to_string(),
        ended_at: None,
        ending: None,
    }
}

fn state(row: &EpochRow, snapshot: &Snapshot) -> String {
    let is_counted = snapshot.readings().is_some_and(|readings| epoch_of(readings) == row.epoch);
    match row.ending.as_deref() {
        Some("process died") => "process died (counts exact)".to_owned(),
        Some("machine died") => format!("machine died (after {} counts may be missing)", row.last_sync_at),
        Some("tally missing") => format!("tally missing (after {} counts may be missing)", row.last_sync_at),
        Some(ending) => ending.to_owned(),
        None if is_counted && snapshot.is_kept => format!("running, process {}", row.process_id),
        None if is_counted => "dead; the next start recovers it (its tally is here)".to_owned(),
        None => format!("not ended, and its tally is not here (counts after {} may be missing)", row.last_sync_at),
    }
}

fn windows(snapshot: &Snapshot) -> rusqlite::Result<WindowSums> {
    let book = &snapshot.connection;
    let query = "SELECT min(\"window\"), max(\"window\"), count(DISTINCT \"window\") FROM seal WHERE kind = 'hour'";
    let (first, last, sealed): (Option<u32>, Option<u32>, i64) =
        book.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut query = book.prepare("SELECT DISTINCT \"window\" FROM unsealed")?;
    let mut open: BTreeSet<Window> =
        query.query_map([], |row| row.get(0).map(Window))?.collect::<rusqlite::Result<_>>()?;
    open.extend(open::lines(snapshot).into_keys().map(|(_, window)| window));
    let ends = || first.into_iter().chain(last).map(Window).chain(open.iter().copied());
    Ok(WindowSums {
        first: ends().min().map(|window| window.to_string()),
        last: ends().max().map(|window| window.to_string()),
        sealed: sealed.unsigned_abs(),
        unsealed: open.len() as u64,
    })
}

/// As the tally tells it; as the book does where there is none.
fn in_flight(snapshot: &Snapshot) -> rusqlite::Result<FlightSums> {
    let Some(readings) = snapshot.readings() else { return stored_in_flight(&snapshot.connection) };
    Ok(open::in_flight(&readings.newer).iter().fold(FlightSums::default(), |sum, one| {
        let Record { commands, request_bytes, response_bytes, duration_ns } = one.record;
        FlightSums {
            commands: sum.commands.saturating_add(commands),
            units: sum.units.saturating_add(one.units),
            request_bytes: sum.request_bytes.saturating_add(request_bytes),
            response_bytes: sum.response_bytes.saturating_add(response_bytes),
            duration_ns: sum.duration_ns.saturating_add(duration_ns),
        }
    }))
}

fn stored_in_flight(book: &Connection) -> rusqlite::Result<FlightSums> {
    let query = "SELECT coalesce(sum(commands), 0), coalesce(sum(units), 0), coalesce(sum(request_bytes), 0),
                        coalesce(sum(response_bytes), 0), coalesce(sum(duration_ns), 0) FROM in_flight";
    book.query_row(query, [], |row| {
        Ok(FlightSums {
            commands: number(row, 0)?,
            units: number(row, 1)?,
            request_bytes: number(row, 2)?,
            response_bytes: number(row, 3)?,
            duration_ns: number(row, 4)?,
        })
    })
}

/// A sum that was edited to be negative shows as none.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0))
}

fn adjustments(book: &Connection) -> rusqlite::Result<AdjustmentSums> {
    let query = "SELECT count(*), coalesce(sum(units), 0) FROM adjustment";
    book.query_row(query, [], |row| Ok(AdjustmentSums { count: number(row, 0)?, units: row.get(1)? }))
}

fn sizes(book: &Path) -> Sizes {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let mut wal = book.as_os_str().to_owned();
    wal.push("-wal");
    Sizes { book: size(book), wal: size(Path::new(&wal)), tally: size(&book.with_extension(TALLY)) }
}

/// Slots behind the header's page.
fn slots(image: &TallyImage) -> SlotSums {
    let mut sums = SlotSums::default();
    for words in image.slots.iter().skip(crate::ledger::tally::HEADER_SLOTS) {
        match words.kind() {
            Kind::Free => sums.free += 1,
            Kind::Series | Kind::Count | Kind::Worker => sums.in_use += 1,
        }
    }
    sums
}

fn live(image: &TallyImage) -> LiveSums {
    let number = |sum: i128| u64::try_from(sum).unwrap_or(0);
    let (mut received, mut refused, mut admitted, mut finished) = (0, 0, 0, 0);
    for worker in workers(image).values() {
        received += worker.received;
        refused += worker.refused;
        admitted += worker.admitted;
        finished += worker.finished;
    }
    LiveSums {
        received: number(received),
        refused: number(refused),
        finished: number(finished),
        in_flight: number(admitted - finished),
    }
}

fn notes(snapshot: &Snapshot) -> Vec<String> {
    match &snapshot.tally {
        TallyState::Foreign(why) => {
            vec![format!(
                "the tally beside the book cannot be read as this book's: {why}; the next start sets it aside"
            )]
        }
        TallyState::Folded => {
            vec!["the tally beside the book is of an epoch that has ended; all of it is in the book".to_owned()]
        }
        TallyState::Open(_) if !snapshot.is_kept => {
            vec!["the process that kept it is dead; what was in flight then is `interrupted` in reports".to_owned()]
        }
        TallyState::Open(_) | TallyState::Missing => Vec::new(),
    }
}
