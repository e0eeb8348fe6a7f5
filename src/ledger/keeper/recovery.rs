//! Crash recovery: ends the epoch of a dead process at the next start, and folds a tally for readers and for close.
//!
//! Guarantees:
//! - A tally is folded into the book before it is removed. If the process dies in between, the fold can be repeated.
//! - Commands in flight become `interrupted`.
//! - A tally that is older than the book lowers no number in the book.
//! - A tally that cannot be read, or that belongs to another gateway, is set aside and never overwritten.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::ledger::book::book_reader::EpochState;
use crate::ledger::book::book_writer::{BookUpdate, BookWriter};
use crate::ledger::book::epoch_end::{EpochEnding, fallback_window};
use crate::ledger::files::book_path::ASIDE_EXTENSION;
use crate::ledger::fold::{FoldRow, SeriesNames, TallyFold};
use crate::ledger::tally::disk::TallyDisk;
use crate::ledger::tally::file::{TallyHeader, TallyImage, journaled_slots};
use crate::ledger::values::error::LedgerError;
use crate::model::Window;

/// Folds the tally that a dead process left at `path` into the book. Then removes the tally or sets it aside, so that a
/// new one can be created.
pub(crate) fn recover_epoch(
    book: &mut BookWriter,
    disk: &dyn TallyDisk,
    path: &Path,
    me: &TallyHeader,
) -> Result<(), LedgerError> {
    let Some(bytes) = read_if_exists(path)? else { return Ok(()) };
    let image = match TallyImage::parse(&bytes) {
        Ok(image) if image.header.gateway == me.gateway => image,
        Ok(image) => return set_aside(disk, path, &format!("it belongs to gateway {:?}", image.header.gateway), me),
        Err(reason) => return set_aside(disk, path, &reason.to_string(), me),
    };
    let known = book.reader().epoch_state(image.header.epoch)?;
    let has_ended = known.as_ref().is_some_and(|epoch| epoch.has_ended);
    if !has_ended && end_dead_epoch(book, &image, known, me)? == DeadTally::BehindBook {
        return set_aside(disk, path, "it has fewer counts than the book", me);
    }
    disk.remove(path).map_err(|error| LedgerError::file("remove the recovered tally", path, error))
}

/// The content of a dead epoch's tally, compared with the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeadTally {
    /// At least as much as the book, in every number.
    Complete,
    /// Less than the book in some number.
    BehindBook,
}

fn end_dead_epoch(
    book: &mut BookWriter,
    image: &TallyImage,
    known: Option<EpochState>,
    me: &TallyHeader,
) -> Result<DeadTally, LedgerError> {
    book.begin_epoch(&image.header)?;
    let floor = known.map_or(Window(0), |epoch| epoch.first_unsealed);
    let counted = fold_ended(book.reader().series()?, image, floor);
    if book.exceeds_fold(&counted, image.header.epoch)? {
        end_with_larger_counts(book, &counted, &image.header, me)?;
        return Ok(DeadTally::BehindBook);
    }
    let fold = interrupt_unfinished(counted, image, floor);
    let ending = if image.header.boot_id == me.boot_id { EpochEnding::ProcessDied } else { EpochEnding::MachineDied };
    tracing::warn!(
        epoch = image.header.epoch,
        ending = ?ending,
        last_sync = %image.header.synced_at,
        "the last gateway on this ledger did not close it; its counts are recovered, commands in flight are \
         `interrupted`"
    );
    book.apply(&BookUpdate {
        fold: &fold,
        in_flight: BTreeMap::new(),
        epoch: image.header.epoch,
        synced_at: image.header.synced_at,
        now: me.created_at,
        seal_before: None,
        ending: Some(ending),
    })?;
    Ok(DeadTally::Complete)
}

/// Ends an epoch whose tally is older than the book, or was truncated: an older copy took the tally's place. The book's
/// counts are not lowered: of each number the larger one stays. The epoch's ending records that some counts may be
/// missing.
fn end_with_larger_counts(
    book: &mut BookWriter,
    counted: &TallyFold,
    header: &TallyHeader,
    me: &TallyHeader,
) -> Result<(), LedgerError> {
    tracing::error!(
        epoch = header.epoch,
        tally_synced = %header.synced_at,
        "the tally beside the book has fewer counts than the book: it is an older copy, or it was changed. The larger \
         value of each number is kept, and the epoch ends as `tally missing`, because its last counts may be missing. \
         Find out how the tally got there"
    );
    book.end_epoch_with_larger_counts(counted, header, me.created_at)
}

/// Returns the rows of a dead epoch from window `floor` on, with its commands in flight as `interrupted`.
pub(crate) fn fold_dead(known: Vec<(SeriesNames, FoldRow)>, image: &TallyImage, floor: Window) -> TallyFold {
    interrupt_unfinished(fold_ended(known, image, floor), image, floor)
}

/// Returns the rows of a dead epoch, without its commands in flight.
pub(crate) fn fold_ended(known: Vec<(SeriesNames, FoldRow)>, image: &TallyImage, floor: Window) -> TallyFold {
    let mut fold = fold_image(known, image, floor);
    for (position, words) in journaled_slots(&image.slots) {
        fold.absorb(position, &words, |at| image.slot(at).and_then(SeriesNames::from_copy));
    }
    fold
}

fn interrupt_unfinished(mut fold: TallyFold, image: &TallyImage, floor: Window) -> TallyFold {
    let header = &image.header;
    fold.interrupt(fallback_window(header.synced_at, floor), header.synced_ns, |at| {
        image.slot(at).and_then(SeriesNames::from_copy)
    });
    fold
}

/// Returns the rows of an epoch from window `floor` on, without its commands in flight.
pub(crate) fn fold_image(known: Vec<(SeriesNames, FoldRow)>, image: &TallyImage, floor: Window) -> TallyFold {
    let mut fold = TallyFold::new(known, floor);
    for (position, words) in image.slots.iter().enumerate().skip(1) {
        fold.absorb(position, words, |at| image.slot(at).and_then(SeriesNames::from_copy));
    }
    fold
}

fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>, LedgerError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LedgerError::file("read the tally", path, error)),
    }
}

fn set_aside(disk: &dyn TallyDisk, path: &Path, reason: &str, me: &TallyHeader) -> Result<(), LedgerError> {
    let aside = aside_path(path, me.created_at);
    disk.rename(path, &aside).map_err(|error| LedgerError::file("set aside", path, error))?;
    tracing::error!(
        tally = %path.display(),
        aside = %aside.display(),
        reason,
        "the tally beside the book cannot be folded into it and was set aside; counts of its epoch may be missing from \
         the book. Keep the file; if it belongs to another gateway, start that gateway on it"
    );
    Ok(())
}

fn aside_path(path: &Path, now: Timestamp) -> PathBuf {
    path.with_extension(format!("{ASIDE_EXTENSION}{}", now.strftime("%Y%m%dT%H%M%S%f")))
}
