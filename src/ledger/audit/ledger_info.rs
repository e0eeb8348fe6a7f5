//! Describes a ledger: head of the chain, epochs, hours, corrections, sizes, and the tally's counts at this moment.

use std::path::Path;

use rusqlite::Connection;
use serde::Serialize;

use crate::ledger::book::adjustments::{self, AdjustmentRow};
use crate::ledger::book::ledger_identity::ledger_identity;
use crate::ledger::files::book_path::{LOG_SUFFIX, TALLY_EXTENSION, path_with_suffix};
use crate::ledger::tally::file::TallyImage;
use crate::ledger::tally::slot::{SlotKind, offset};
use crate::ledger::values::error::LedgerError;
use crate::model::Window;

use super::epoch_check::{EpochRow, EpochTable};
use super::findings::ChainHead;
use super::ledger_snapshot::{LedgerSnapshot, TallyState};
use super::open_epoch::series_in_flight;

/// The description of a ledger.
#[derive(Clone, Debug, Serialize)]
pub struct LedgerInfo {
    /// The identity of the ledger; `None` before its first epoch. Copies have the identity of their original.
    pub id: Option<String>,
    /// The gateway that created the book.
    pub gateway: String,
    /// The book's format.
    pub format: u32,
    /// The calendar of its days and months.
    pub calendar: String,
    /// Whether a gateway keeps the ledger now.
    pub is_kept: bool,
    /// The head of the chain.
    pub head: ChainHead,
    /// All epochs of the book.
    pub epochs: Vec<EpochInfo>,
    /// The hours of the book.
    pub windows: WindowInfo,
    /// Corrections, in the order of their creation.
    pub adjustments: Vec<AdjustmentRow>,
    /// Bytes on the disk.
    pub sizes: FileSizes,
    /// The tally's counts, if a tally is in use.
    pub tally: Option<TallyInfo>,
}

/// An epoch, and the meaning of its ending.
#[derive(Clone, Debug, Serialize)]
pub struct EpochInfo {
    /// The row in the book.
    #[serde(flatten)]
    pub row: EpochRow,
    /// The meaning in words.
    pub meaning: String,
}

/// The hours of a book.
#[derive(Clone, Debug, Serialize)]
pub struct WindowInfo {
    /// The first hour with rows or seals.
    pub first: Option<String>,
    /// The last hour with rows or seals.
    pub last: Option<String>,
    /// Hours of epochs that are sealed.
    pub sealed: u64,
    /// Hours of epochs that wait for a seal.
    pub unsealed: u64,
    /// Hours before this one are kept as days only.
    pub rolled_before: Option<String>,
}

/// Bytes on the disk.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FileSizes {
    /// The book.
    pub book: u64,
    /// The write-ahead log: writes that are not yet in the book's own file.
    pub log: u64,
    /// The tally.
    pub tally: u64,
}

/// The counts of a tally.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TallyInfo {
    /// The open epoch.
    pub epoch: u32,
    /// Slots that count or hold names.
    pub slots_used: u64,
    /// Free slots.
    pub slots_free: u64,
    /// Commands received in this epoch.
    pub received: u64,
    /// Received commands that were refused.
    pub refused: u64,
    /// Received commands that were admitted.
    pub admitted: u64,
    /// Admitted commands that have ended.
    pub finished: u64,
    /// Admitted commands that have not ended; those of a dead gateway are interrupted.
    pub in_flight: u64,
}

/// Describes the ledger at `path`; changes nothing.
pub fn ledger_info(path: &Path) -> Result<LedgerInfo, LedgerError> {
    let snapshot = LedgerSnapshot::read(path)?;
    describe(&snapshot).map_err(|error| snapshot.book_error(error))
}

fn describe(snapshot: &LedgerSnapshot) -> rusqlite::Result<LedgerInfo> {
    let book = &snapshot.connection;
    let query = "SELECT gateway, calendar_offset FROM meta";
    let (gateway, calendar) = book.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let epochs = EpochTable::from_book(book)?.rows.into_iter().map(|row| epoch_info(row, snapshot)).collect();
    Ok(LedgerInfo {
        id: ledger_identity(book)?,
        gateway,
        format: book.pragma_query_value(None, "user_version", |row| row.get(0))?,
        calendar,
        is_kept: snapshot.is_kept,
        head: chain_head(book)?,
        epochs,
        windows: window_info(book)?,
        adjustments: adjustments::all_adjustments(book)?,
        sizes: file_sizes(&snapshot.path),
        tally: snapshot.readings().map(|readings| tally_info(&readings.newer)),
    })
}

fn epoch_info(row: EpochRow, snapshot: &LedgerSnapshot) -> EpochInfo {
    let meaning = match row.ending.as_deref() {
        Some("clean") => "closed; counts exact".to_owned(),
        Some("process died") => "the process died; counts exact".to_owned(),
        Some("machine died") => format!("the machine died; counts after {} may be missing", row.last_sync_at),
        Some(_) => format!("its tally was missing; counts after {} may be missing", row.last_sync_at),
        None => match (&snapshot.tally, snapshot.is_kept) {
            (TallyState::Open(_), true) => format!("running, process {}", row.process_id),
            (TallyState::Open(_), false) => "its process has died; the next start recovers it".to_owned(),
            _ => format!("not ended, no tally beside the book; counts after {} may be missing", row.last_sync_at),
        },
    };
    EpochInfo { row, meaning }
}

pub(crate) fn chain_head(book: &Connection) -> rusqlite::Result<ChainHead> {
    let query = "SELECT head_number, head_hash, (SELECT sealed_at FROM seal WHERE number = head_number) FROM meta";
    book.query_row(query, [], |row| Ok(ChainHead { number: row.get(0)?, hash: row.get(1)?, sealed_at: row.get(2)? }))
}

fn window_info(book: &Connection) -> rusqlite::Result<WindowInfo> {
    let query = "SELECT (SELECT min(\"window\") FROM seal WHERE kind = 'hour'), (SELECT max(\"window\") FROM seal WHERE kind = 'hour'),
                        (SELECT min(\"window\") FROM unsealed), (SELECT max(\"window\") FROM unsealed),
                        (SELECT count(*) FROM seal WHERE kind = 'hour'), (SELECT count(*) FROM unsealed),
                        (SELECT nullif(rolled_before, 0) FROM meta)";
    book.query_row(query, [], |row| {
        let hour = |column| row.get::<_, Option<u32>>(column);
        let shown = |window: Option<u32>| window.map(|window| Window(window).to_string());
        Ok(WindowInfo {
            first: shown([hour(0)?, hour(2)?].into_iter().flatten().min()),
            last: shown([hour(1)?, hour(3)?].into_iter().flatten().max()),
            sealed: row.get::<_, i64>(4)?.unsigned_abs(),
            unsealed: row.get::<_, i64>(5)?.unsigned_abs(),
            rolled_before: shown(hour(6)?),
        })
    })
}

fn file_sizes(book: &Path) -> FileSizes {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    FileSizes {
        book: size(book),
        log: size(&path_with_suffix(book, LOG_SUFFIX)),
        tally: size(&book.with_extension(TALLY_EXTENSION)),
    }
}

fn tally_info(image: &TallyImage) -> TallyInfo {
    let of = |kind: SlotKind| image.slots.iter().skip(1).filter(move |copy| copy.kind() == kind);
    let sum = |at: usize| of(SlotKind::Worker).fold(0_u64, |sum, own| sum.wrapping_add(own.0[at]));
    TallyInfo {
        epoch: image.header.epoch,
        slots_used: (of(SlotKind::Count).count() + of(SlotKind::Series).count()) as u64,
        slots_free: of(SlotKind::Free).count() as u64,
        received: sum(offset::WORKER_RECEIVED),
        refused: sum(offset::WORKER_REFUSED),
        admitted: sum(offset::WORKER_ADMITTED),
        finished: sum(offset::WORKER_FINISHED),
        in_flight: series_in_flight(image).iter().map(|one| one.measures.commands).sum(),
    }
}
