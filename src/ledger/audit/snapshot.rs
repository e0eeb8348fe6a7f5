//! One coherent look at a ledger's files: the book at one moment, and the tally as it was then.
//!
//! Guarantees: the book is read in one transaction, so nothing that is written meanwhile shows; between its beginning and
//! the tally's reading nothing was sealed, begun or ended, so book and tally fit together. Changes neither.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};

use crate::ledger::disk::FileIdentity;
use crate::ledger::error::LedgerError;
use crate::ledger::pages::open_for_audit;
use crate::ledger::slot::{Kind, word};
use crate::ledger::tally::{TallyImage, moves};
use crate::ledger::words::Words;
use crate::ledger::{TALLY, lock, place};
use crate::model::{Finished, Window};

/// How often a look is begun anew when the gateway seals, begins or ends in the middle of it.
const LOOKS: u32 = 100;

/// Two readings of the tally, one wholly after the other. Its words only grow, so what was true between them lies between
/// their values.
#[derive(Debug)]
pub(super) struct Readings {
    pub(super) older: TallyImage,
    pub(super) newer: TallyImage,
    /// The first window of the epoch that is not sealed.
    pub(super) floor: Window,
    /// Whether the tally is a copy of the file that its gateway made. It may have been made while that counted, so its
    /// pages may be of different moments.
    pub(super) is_copy: bool,
}

/// The tally beside the book.
#[derive(Debug)]
pub(super) enum TallyState {
    /// There is none: the gateway was closed, or this is a copy of the book alone.
    Missing,
    /// There is a file, and why it is not this book's tally.
    Foreign(String),
    /// It belongs to an epoch that has ended: the process died between the end and the removal. All of it is in the book.
    Folded,
    /// It counts an epoch that has not ended.
    Open(Box<Readings>),
}

/// A ledger at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) path: PathBuf,
    /// In a transaction that has begun to read.
    pub(super) connection: Connection,
    pub(super) tally: TallyState,
    /// Whether a gateway keeps it now.
    pub(super) is_kept: bool,
}

impl Snapshot {
    /// Looks until nothing was sealed, begun or ended in between.
    pub(super) fn take(path: &Path) -> Result<Self, LedgerError> {
        let path = &place::canonical(path)?;
        for _ in 0..LOOKS {
            if let Some(snapshot) = look(path)? {
                return Ok(snapshot);
            }
        }
        Err(LedgerError::Unsteady(path.to_owned()))
    }

    /// Looks until also no slot moved in the middle of its reading and no late end moved between two, so that admitted =
    /// ended + in flight holds exactly in what was read last.
    pub(super) fn take_settled(path: &Path) -> Result<Self, LedgerError> {
        for _ in 0..LOOKS {
            let snapshot = Self::take(path)?;
            if snapshot.readings().is_none_or(Readings::is_settled) {
                return Ok(snapshot);
            }
        }
        Err(LedgerError::Unsteady(path.to_owned()))
    }

    /// The readings of an open tally.
    pub(super) fn readings(&self) -> Option<&Readings> {
        match &self.tally {
            TallyState::Open(readings) => Some(readings),
            _ => None,
        }
    }

    /// Says that reading failed.
    pub(super) fn failed(&self, error: rusqlite::Error) -> LedgerError {
        LedgerError::book("read", &self.path, error)
    }
}

fn look(path: &Path) -> Result<Option<Snapshot>, LedgerError> {
    let connection = open_for_audit(path)?;
    let failed = |error| LedgerError::book("read", path, error);
    connection.execute_batch("BEGIN").map_err(failed)?;
    let before = edition(&connection).map_err(failed)?;
    let is_kept = lock::is_held(path)?;
    let Some(tally) = tally(path, &connection, is_kept)? else { return Ok(None) };
    let after = edition(&open_for_audit(path)?).map_err(failed)?;
    let same = after == before && lock::is_held(path)? == is_kept;
    Ok(same.then(|| Snapshot { path: path.to_owned(), connection, tally, is_kept }))
}

/// Numbers that are others after anything was sealed, begun or ended.
pub(super) fn edition(connection: &Connection) -> rusqlite::Result<[i64; 3]> {
    let query = "SELECT (SELECT coalesce(max(number), 0) FROM seal), (SELECT count(*) FROM epoch),
                        (SELECT count(ending) FROM epoch)";
    connection.query_row(query, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))
}

/// The tally; nothing if it changed hands while it was read.
fn tally(path: &Path, connection: &Connection, is_kept: bool) -> Result<Option<TallyState>, LedgerError> {
    let (Some(first), Some(second)) = (bytes(path)?, bytes(path)?) else { return Ok(Some(TallyState::Missing)) };
    let (mut older, mut newer) = match (TallyImage::parse(&first), TallyImage::parse(&second)) {
        (Ok(older), Ok(newer)) => (older, newer),
        (Err(reason), _) | (_, Err(reason)) => return Ok(Some(TallyState::Foreign(reason.to_string()))),
    };
    drop((first, second));
    if older.header.epoch != newer.header.epoch || !fit(&older, &newer) {
        return Ok(None);
    }
    if !is_kept {
        complete_moves(&mut older);
        complete_moves(&mut newer);
    }
    let failed = |error| LedgerError::book("read", path, error);
    let mut state = judge(connection, older, newer).map_err(failed)?;
    if let TallyState::Open(readings) = &mut state {
        readings.is_copy = is_copy(path, &readings.newer)?;
    }
    Ok(Some(state))
}

fn is_copy(book: &Path, image: &TallyImage) -> Result<bool, LedgerError> {
    let path = book.with_extension(TALLY);
    let found = path.metadata().map_err(|error| LedgerError::file("look at the tally", &path, error))?;
    Ok(image.inode != 0 && image.inode != FileIdentity::of(&found).inode())
}

/// Ends what a dead worker was in the middle of, as the next start will.
fn complete_moves(image: &mut TallyImage) {
    for (position, words) in moves(&image.slots) {
        image.slots[position] = words;
    }
}

/// Whether no slot was put to another use in between.
fn fit(older: &TallyImage, newer: &TallyImage) -> bool {
    older.slots.iter().zip(&newer.slots).all(|(one, other)| one.state() == other.state())
}

fn judge(connection: &Connection, older: TallyImage, newer: TallyImage) -> rusqlite::Result<TallyState> {
    let header = &newer.header;
    let query = "SELECT ending IS NOT NULL, (SELECT coalesce(max(\"window\") + 1, 0) FROM seal
                                             WHERE seal.epoch = ?1 AND kind = 'hour'),
                        gateway, boot_id, process_id
                 FROM epoch WHERE epoch = ?1";
    let known = connection.query_row(query, [header.epoch], |row| {
        Ok((row.get::<_, bool>(0)?, row.get(1)?, (row.get(2)?, row.get(3)?, row.get(4)?)))
    });
    let Some((has_ended, floor, owner)) = known.optional()? else { return unheard_of(connection, older, newer) };
    let mine = (header.gateway.clone(), header.boot_id.clone(), header.process);
    Ok(if owner != mine {
        TallyState::Foreign(format!("the book knows epoch {} as another gateway's or process's", header.epoch))
    } else if has_ended {
        TallyState::Folded
    } else {
        TallyState::Open(Box::new(Readings { older, newer, floor: Window(floor), is_copy: false }))
    })
}

/// The process died before it could write into the book that it had begun; or the tally is another book's.
fn unheard_of(connection: &Connection, older: TallyImage, newer: TallyImage) -> rusqlite::Result<TallyState> {
    let next: u32 = connection.query_row("SELECT coalesce(max(epoch), 0) + 1 FROM epoch", [], |row| row.get(0))?;
    let epoch = newer.header.epoch;
    Ok(if epoch == next {
        TallyState::Open(Box::new(Readings { older, newer, floor: Window(0), is_copy: false }))
    } else {
        TallyState::Foreign(format!(
            "it counts epoch {epoch}, the book's next one is {next}: it is another book's, or the book was copied without \
             its log, the file that ends with -wal"
        ))
    })
}

fn bytes(book: &Path) -> Result<Option<Vec<u8>>, LedgerError> {
    let path = book.with_extension(TALLY);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LedgerError::file("read the tally", &path, error)),
    }
}

impl Readings {
    /// Whether nothing was counted in between, so that everything must balance to the last command.
    pub(super) fn is_still(&self) -> bool {
        self.older.slots.len() == self.newer.slots.len()
            && self.older.slots.iter().zip(&self.newer.slots).skip(1).all(|(one, other)| one == other)
    }

    fn is_settled(&self) -> bool {
        let mut slots = self.newer.slots.iter().enumerate().skip(1).filter(|(_, words)| words.kind() == Kind::Count);
        let before = |at: usize| self.older.slots.get(at).unwrap_or(&Words::EMPTY);
        slots.all(|(at, now)| !is_torn(now) && late(now) == late(before(at)))
    }
}

/// More ends than beginnings: the ends were read after more had ended.
fn is_torn(words: &Words) -> bool {
    let [come, gone] = late(words);
    let ended = Finished::ALL.into_iter().fold(gone, |sum, one| sum.saturating_add(words.finished(one).commands));
    ended > words.0[word::ADMITTED].saturating_add(come)
}

fn late(words: &Words) -> [u64; 2] {
    [words.0[word::LATE_IN], words.0[word::LATE_OUT]]
}
