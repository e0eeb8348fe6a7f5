//! A consistent snapshot of a ledger's files: the book at one moment, and the tally of the same moment.
//!
//! Guarantees:
//! - The book is read in one transaction, so no concurrent write is visible.
//! - Between the begin of the transaction and the read of the tally, nothing was sealed, begun or ended. So book and
//!   tally are consistent.
//! - Neither file is changed.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};

use crate::ledger::book::book_reader::open_for_audit;
use crate::ledger::files::book_path::TALLY_EXTENSION;
use crate::ledger::files::file_identity::FileIdentity;
use crate::ledger::files::{book_path, lock};
use crate::ledger::tally::file::{TallyImage, journaled_slots};
use crate::ledger::tally::slot::{SlotKind, offset};
use crate::ledger::tally::slot_copy::SlotCopy;
use crate::ledger::values::error::LedgerError;
use crate::model::{Finished, Window};

/// The most attempts of a snapshot, when the gateway seals, begins or ends an epoch in the middle of an attempt.
const SNAPSHOT_ATTEMPTS_MAX: u32 = 100;

/// Two reads of the tally, the second after the end of the first. Its words only grow, so the values at the moment
/// between the reads lie between the two.
#[derive(Debug)]
pub(crate) struct TallyReadings {
    pub(crate) older: TallyImage,
    pub(crate) newer: TallyImage,
    /// The first unsealed window of the epoch.
    pub(crate) first_unsealed: Window,
    /// Whether the tally is a copy of the file that its gateway created. If the copy was made while the gateway
    /// counted, its pages may be of different moments.
    pub(crate) is_copy: bool,
}

/// The tally beside the book.
#[derive(Debug)]
pub(crate) enum TallyState {
    /// There is no tally: the gateway was closed, or this is a copy of the book alone.
    Missing,
    /// There is a file that is not this book's tally, and the reason.
    Foreign(String),
    /// The tally of an ended epoch: the process died between the end and the removal. All its counts are in the book.
    Folded,
    /// The tally of an epoch that has not ended.
    Open(Box<TallyReadings>),
}

/// A ledger at one moment.
#[derive(Debug)]
pub(crate) struct LedgerSnapshot {
    pub(crate) path: PathBuf,
    /// A connection in a transaction that has begun to read.
    pub(crate) connection: Connection,
    pub(crate) tally: TallyState,
    /// Whether a gateway keeps the ledger now.
    pub(crate) is_kept: bool,
}

impl LedgerSnapshot {
    /// Repeats the read until nothing was sealed, begun or ended in between.
    pub(crate) fn read(path: &Path) -> Result<Self, LedgerError> {
        let path = &book_path::canonical_path(path)?;
        for _ in 0..SNAPSHOT_ATTEMPTS_MAX {
            if let Some(snapshot) = try_snapshot(path)? {
                return Ok(snapshot);
            }
        }
        Err(LedgerError::ChangedWhileRead(path.to_owned()))
    }

    /// Like `read`, and also repeats until no slot changed in the middle of its read and no late end was transferred
    /// between two reads. Then admitted = ended + in flight holds exactly in the last read.
    pub(crate) fn read_consistent(path: &Path) -> Result<Self, LedgerError> {
        for _ in 0..SNAPSHOT_ATTEMPTS_MAX {
            let snapshot = Self::read(path)?;
            if snapshot.readings().is_none_or(TallyReadings::is_consistent) {
                return Ok(snapshot);
            }
        }
        Err(LedgerError::ChangedWhileRead(path.to_owned()))
    }

    /// Returns the reads of an open tally.
    pub(crate) fn readings(&self) -> Option<&TallyReadings> {
        match &self.tally {
            TallyState::Open(readings) => Some(readings),
            _ => None,
        }
    }

    /// Returns the error of a failed read.
    pub(crate) fn book_error(&self, error: rusqlite::Error) -> LedgerError {
        LedgerError::book("read", &self.path, error)
    }
}

fn try_snapshot(path: &Path) -> Result<Option<LedgerSnapshot>, LedgerError> {
    let connection = open_for_audit(path)?;
    let failed = |error| LedgerError::book("read", path, error);
    connection.execute_batch("BEGIN").map_err(failed)?;
    let before = revision(&connection).map_err(failed)?;
    let is_kept = lock::is_held(path)?;
    let Some(tally) = tally_state(path, &connection, is_kept)? else { return Ok(None) };
    let after = revision(&open_for_audit(path)?).map_err(failed)?;
    let same = after == before && lock::is_held(path)? == is_kept;
    Ok(same.then(|| LedgerSnapshot { path: path.to_owned(), connection, tally, is_kept }))
}

/// Returns a revision, which changes whenever something is sealed, begun or ended.
pub(crate) fn revision(connection: &Connection) -> rusqlite::Result<[i64; 3]> {
    let query = "SELECT (SELECT coalesce(max(number), 0) FROM seal), (SELECT count(*) FROM epoch),
                        (SELECT count(ending) FROM epoch)";
    connection.query_row(query, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))
}

/// Returns the state of the tally; `None` if a slot changed its use, or the epoch changed, during the read.
fn tally_state(path: &Path, connection: &Connection, is_kept: bool) -> Result<Option<TallyState>, LedgerError> {
    let (Some(first), Some(second)) = (read_tally_bytes(path)?, read_tally_bytes(path)?) else {
        return Ok(Some(TallyState::Missing));
    };
    let (mut older, mut newer) = match (TallyImage::parse(&first), TallyImage::parse(&second)) {
        (Ok(older), Ok(newer)) => (older, newer),
        (Err(reason), _) | (_, Err(reason)) => return Ok(Some(TallyState::Foreign(reason.to_string()))),
    };
    drop((first, second));
    if older.header.epoch != newer.header.epoch || !is_same_layout(&older, &newer) {
        return Ok(None);
    }
    if !is_kept {
        apply_journals(&mut older);
        apply_journals(&mut newer);
    }
    let failed = |error| LedgerError::book("read", path, error);
    let mut state = classify_tally(connection, older, newer).map_err(failed)?;
    if let TallyState::Open(readings) = &mut state {
        readings.is_copy = is_copied_tally(path, &readings.newer)?;
    }
    Ok(Some(state))
}

fn is_copied_tally(book: &Path, image: &TallyImage) -> Result<bool, LedgerError> {
    let path = book.with_extension(TALLY_EXTENSION);
    let found = path.metadata().map_err(|error| LedgerError::file("inspect the tally", &path, error))?;
    Ok(image.inode != 0 && image.inode != FileIdentity::from_metadata(&found).inode())
}

/// Applies the journals of dead workers, as the next start will.
fn apply_journals(image: &mut TallyImage) {
    for (position, copy) in journaled_slots(&image.slots) {
        image.slots[position] = copy;
    }
}

/// Returns whether no slot changed its use between the reads.
fn is_same_layout(older: &TallyImage, newer: &TallyImage) -> bool {
    older.slots.iter().zip(&newer.slots).all(|(one, other)| one.state() == other.state())
}

fn classify_tally(connection: &Connection, older: TallyImage, newer: TallyImage) -> rusqlite::Result<TallyState> {
    let header = &newer.header;
    let query = "SELECT ending IS NOT NULL, (SELECT coalesce(max(\"window\") + 1, 0) FROM seal
                                             WHERE seal.epoch = ?1 AND kind = 'hour'),
                        gateway, boot_id, process_id
                 FROM epoch WHERE epoch = ?1";
    let known = connection.query_row(query, [header.epoch], |row| {
        Ok((row.get::<_, bool>(0)?, row.get(1)?, (row.get(2)?, row.get(3)?, row.get(4)?)))
    });
    let Some((has_ended, floor, owner)) = known.optional()? else {
        return classify_unknown_epoch(connection, older, newer);
    };
    let mine = (header.gateway.clone(), header.boot_id.clone(), header.process_id);
    Ok(if owner != mine {
        TallyState::Foreign(format!("in the book, epoch {} belongs to another gateway or process", header.epoch))
    } else if has_ended {
        TallyState::Folded
    } else {
        TallyState::Open(Box::new(TallyReadings { older, newer, first_unsealed: Window(floor), is_copy: false }))
    })
}

/// Classifies a tally whose epoch is not in the book: either the process died before it recorded the epoch in the book,
/// or the tally belongs to another book.
fn classify_unknown_epoch(
    connection: &Connection,
    older: TallyImage,
    newer: TallyImage,
) -> rusqlite::Result<TallyState> {
    let next: u32 = connection.query_row("SELECT coalesce(max(epoch), 0) + 1 FROM epoch", [], |row| row.get(0))?;
    let epoch = newer.header.epoch;
    Ok(if epoch == next {
        TallyState::Open(Box::new(TallyReadings { older, newer, first_unsealed: Window(0), is_copy: false }))
    } else {
        TallyState::Foreign(format!(
            "it is of epoch {epoch}, but the next epoch of the book is {next}: it belongs to another book, or the book \
             was copied without its log, the file that ends with -wal"
        ))
    })
}

fn read_tally_bytes(book: &Path) -> Result<Option<Vec<u8>>, LedgerError> {
    let path = book.with_extension(TALLY_EXTENSION);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LedgerError::file("read the tally", &path, error)),
    }
}

impl TallyReadings {
    /// Returns whether nothing was counted between the reads, so that everything must balance exactly.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.older.slots.len() == self.newer.slots.len()
            && self.older.slots.iter().zip(&self.newer.slots).skip(1).all(|(one, other)| one == other)
    }

    fn is_consistent(&self) -> bool {
        let mut slots = self.newer.slots.iter().enumerate().skip(1).filter(|(_, copy)| copy.kind() == SlotKind::Count);
        let before = |at: usize| self.older.slots.get(at).unwrap_or(&SlotCopy::EMPTY);
        slots.all(|(at, now)| !is_torn_copy(now) && late_counts(now) == late_counts(before(at)))
    }
}

/// Returns whether a copy shows more ends than admissions: its ends were read after more commands had ended.
fn is_torn_copy(copy: &SlotCopy) -> bool {
    let [transferred_in, transferred_out] = late_counts(copy);
    let ended =
        Finished::ALL.into_iter().fold(transferred_out, |sum, one| sum.saturating_add(copy.finished(one).commands));
    ended > copy.0[offset::ADMITTED].saturating_add(transferred_in)
}

fn late_counts(copy: &SlotCopy) -> [u64; 2] {
    [copy.0[offset::LATE_IN], copy.0[offset::LATE_OUT]]
}
